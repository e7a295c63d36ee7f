"""The process that opens files made by anyone. Started by `ingestion.sandbox`, one document at a time.

It has no environment, no secrets, and next to no rights: bounded address space and CPU time, no files to
write, a handful of descriptors, no new privileges. It ends with its parent.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import math
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable

from ingestion.errors import Quarantined, UnsupportedType
from ingestion.sandbox_wire import ANSWER, REQUEST, PartNote, encode_error, encode_parsed, peak_resident
from ingestion.types import Parsed

Reader = Callable[[bytes, str | None, str | None, Callable[[str], None]], Parsed]

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_DESCRIPTORS = 24
_NO_MEMORY = 3


def main(arguments: list[str]) -> None:
    connection, note, parent, memory, timeout, reader = arguments
    _end_with(int(parent))
    # A terminal's Ctrl-C is the parent's business: it lets us finish or ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    shown = PartNote(int(note))
    with socket.socket(fileno=int(connection)) as talk:
        try:
            read = _load(reader)
            _limit(int(memory))
        except (ImportError, AttributeError, ValueError, OSError) as error:
            _say(talk, f"{type(error).__name__}: {error}".encode())
            return
        gc.freeze()
        _say(talk, b"")
        _serve(talk, read, shown, int(memory), float(timeout))


def _say(talk: socket.socket, body: bytes) -> None:
    talk.sendall(ANSWER.pack(len(body)) + body)


def _end_with(parent: int) -> None:
    """Be killed when the parent ends, also when it ended before we asked."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)


def _load(reader: str) -> Reader:
    """`module:function`, its libraries imported now: afterwards there is no memory or descriptor to spare."""
    name, _, function = reader.partition(":")
    module = importlib.import_module(name)
    preload = getattr(module, "preload", None)
    if preload is not None:
        preload()
    found: Reader = getattr(module, function)
    return found


def _limit(memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def _serve(talk: socket.socket, read: Reader, shown: PartNote, memory: int, timeout: float) -> None:
    """Answer one request after the other until the parent closes."""
    while (head := _receive(talk, REQUEST.size)) is not None:
        about_bytes, content_bytes = REQUEST.unpack(head)
        about = _receive(talk, about_bytes)
        try:
            content = _receive(talk, content_bytes)
            if about is None or content is None:
                return
            _allow_cpu(timeout)
            answer = _answer(read, bytes(content), bytes(about), shown, memory)
        except MemoryError:
            sys.exit(_NO_MEMORY)  # Not even the content fits, or the answer.
        talk.sendall(answer)


def _receive(talk: socket.socket, count: int) -> bytearray | None:
    """Exactly `count` bytes; None when the parent is gone."""
    data = bytearray(count)
    view, at = memoryview(data), 0
    while at < count:
        got = talk.recv_into(view[at:])
        if got == 0:
            return None
        at += got
    return data


def _allow_cpu(timeout: float) -> None:
    """Seconds of CPU for this document: the parent's clock is the usual end, this one needs no parent."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(used.ru_utime + used.ru_stime + timeout) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _answer(read: Reader, content: bytes, about: bytes, shown: PartNote, memory: int) -> bytes:
    import orjson

    filename, media_type = orjson.loads(about)
    shown.write("")
    try:
        return encode_parsed(read(content, filename, media_type, shown.write), _tired(memory))
    except Quarantined as error:
        return encode_error(error.reason, str(error), error.part, _tired(memory))
    except UnsupportedType as error:
        return encode_error(error.code, str(error), None, _tired(memory))
    except MemoryError:
        return encode_error(
            "memory", "Reading the document takes more memory than allowed.", shown.read(), True
        )
    except Exception as error:  # noqa: BLE001 - the process's edge: any other failure is the document's end.
        message = f"The document could not be read: its reader failed ({type(error).__name__})."
        return encode_error("crashed", message, shown.read(), True)


def _tired(memory: int) -> bool:
    """Whether so much memory was used that a fresh process is better for the next document."""
    return peak_resident(os.getpid()) > memory // 2


if __name__ == "__main__":
    main(sys.argv[1:])
