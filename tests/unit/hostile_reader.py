"""A reader that does what hostile files make readers do. Called by the sandbox's child, by name."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ingestion.types import Block, Parsed
from retrieval.types import Span


def parse(
    content: bytes, filename: str | None, media_type: str | None, progress: Callable[[str], None]
) -> Parsed:
    """Do what the content names, after having come to page 7; otherwise give it back as text."""
    wish, _, argument = content.decode().partition(" ")
    if wish == "pages":
        return _text(_pages(argument, progress))
    deed = _DEEDS.get(wish)
    if deed is None:
        _SEEN.append(content.decode())
        return _text(content.decode())
    progress("page 7")
    return _text(deed(argument))


def _text(text: str) -> Parsed:
    block = Block(kind="paragraph", span=Span(0, len(text)))
    return Parsed(title=None, text=text, blocks=(block,))


def _loop(_: str) -> str:
    while True:
        pass


def _sleep(_: str) -> str:
    time.sleep(600)
    return ""


def _hog(_: str) -> str:
    held = []
    while True:
        held.append(bytes(1_000_000) * 2)


def _hog_in_c(_: str) -> str:
    """A library that ends the process when it gets no memory."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    while place := libc.malloc(1_000_000):
        ctypes.memset(place, 1, 1_000_000)
    os.abort()


def _take(amount: str) -> str:
    return f"took {len(bytearray(int(amount)))}"


def _segfault(_: str) -> str:
    ctypes.string_at(0)
    return ""


def _fail(_: str) -> str:
    raise RuntimeError("secret text of the document")


def _once(moment: str) -> str:
    """Die in the process that comes here before a moment, as when something else on the machine kills it."""
    left = float(moment) - time.monotonic()
    if left > 0:
        time.sleep(left)
        os.kill(os.getpid(), signal.SIGKILL)
    return "second try"


def _lie(_: str) -> str:
    """Send the parent what no child of ours sends."""
    for descriptor in range(3, 24):
        try:
            with socket.socket(fileno=os.dup(descriptor)) as talk:
                talk.sendall(b"\x10" + bytes(7) + b"\x80pickle or worse")
        except OSError:
            continue
    time.sleep(600)
    return ""


def _tried(deed: Callable[[str], object]) -> Callable[[str], str]:
    """What the deed comes to: its result, or the name of the error that it meets."""

    def told(argument: str) -> str:
        try:
            return str(deed(argument))
        except OSError as error:
            return type(error).__name__

    return told


def _connect(port: str) -> str:
    with socket.create_connection(("127.0.0.1", int(port)), timeout=5):
        return "connected"


def _kill(process: str) -> str:
    os.kill(int(process), signal.SIGKILL)
    return "killed"


def _fork(_: str) -> str:
    """Leave a process behind that outlives this one unless somebody cares."""
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    return str(child)


def _pages(argument: str, progress: Callable[[str], None]) -> str:
    """So many pages, each of which takes so many seconds of work."""
    pages, seconds = argument.split()
    for number in range(int(pages)):
        progress(f"page {number + 1}")
        _busy(float(seconds))
    return f"{pages} pages"


def _work(seconds: str) -> str:
    _busy(float(seconds))
    return "done"


def _busy(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


_SEEN: list[str] = []
"""What this process read before."""

_DEEDS: dict[str, Callable[[str], str]] = {
    "loop": _loop,
    "sleep": _sleep,
    "work": _work,
    "hog": _hog,
    "hog-in-c": _hog_in_c,
    "abort": lambda _: os.abort(),
    "segfault": _segfault,
    "take": _take,
    "exit": lambda _: sys.exit(0),
    "fail": _fail,
    "once": _once,
    "lie": _lie,
    "write": _tried(lambda path: Path(path).write_bytes(b"x" * 100)),
    "remove": _tried(lambda path: Path(path).unlink()),
    "read": _tried(lambda path: Path(path).read_text()),
    "connect": _tried(_connect),
    "kill": _tried(_kill),
    "run": _tried(lambda path: os.execv(path, [path])),
    "fork": _tried(_fork),
    "seen": lambda _: " ".join(_SEEN) or "nothing",
    "pid": lambda _: str(os.getpid()),
    "parent": lambda _: str(os.getppid()),
    "environment": lambda _: " ".join(sorted(os.environ)) or "none",
}
