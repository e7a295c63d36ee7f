"""The processes that open files made by anyone: a nursery that has every reader loaded, and the children that
it forks, one for a file. Started by `ingestion.sandbox_process`.

The nursery never sees a file. It has no environment, no secrets, and gave up its rights before the first
fork; a child gives up more, so that a file which takes one over finds memory and processor time to a limit,
and the two lines to its parent. Everything ends with the process that started it.
"""

from __future__ import annotations

import gc
import importlib
import math
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import orjson

from ingestion import sandbox_filter as filter_
from ingestion import sandbox_rights as rights
from ingestion.errors import Quarantined, UnsupportedType
from ingestion.sandbox_wire import (
    MOST_WORDS,
    REQUEST,
    PartNote,
    encode_error,
    encode_parsed,
    encode_words,
)
from ingestion.types import Containment, Parsed

Reader = Callable[[bytes, str | None, str | None, Callable[[str], None]], Parsed]

_NO_MEMORY = 3
_REACHED = frozenset({"damaged", "too_large"})
"""Where these are met tells something: the part being read, unless the reader named one."""
_ELSEWHERE = "/proc/1/status"
"""A file that everybody may read, and no reader needs."""


def main(arguments: list[str]) -> None:
    descriptor, parent, memory, timeout, reader = arguments
    rights.end_with(int(parent))
    # A terminal's Ctrl-C is the parent's business: it lets us finish or ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(descriptor)) as line:
        try:
            read, folder = _load(reader)
            rights.drop_powers()
            rights.limit(int(memory))
            rights.leave_files([folder])
            held = _tried()
            if not held.network:
                rights.leave_network()
                held = _tried()
        except (ImportError, AttributeError, ValueError, OSError) as error:
            _tell(line, "failed", f"{type(error).__name__}: {error}")
            return
        gc.collect()
        gc.freeze()
        _tell(line, "ready", held.network, held.files, held.processes)
        _Nursery(line, read, float(timeout)).run()


def _load(reader: str) -> tuple[Reader, Path]:
    """`module:function` and its folder; its libraries are imported now: afterwards there is no memory or
    descriptor to spare."""
    name, _, function = reader.partition(":")
    module = importlib.import_module(name)
    preload = getattr(module, "preload", None)
    if preload is not None:
        preload()
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise ValueError("a library that reads files started a thread, which a forked process would lack")
    found: Reader = getattr(module, function)
    return found, Path(module.__file__ or "/").resolve().parent


def _tell(line: socket.socket, *words: object) -> None:
    line.send(encode_words(*words))


def _tried() -> Containment:
    """What a child cannot do, found out by one that tries."""
    process = os.fork()
    if process == 0:
        held = 0
        with suppress(BaseException):
            _give_up(os.getppid())
            held = sum(_refused(attempt) << bit for bit, attempt in enumerate((_connect, _open, _fork)))
        os._exit(held)
    _, status = os.waitpid(process, 0)
    held = os.waitstatus_to_exitcode(status)
    return Containment(*(held > 0 and bool(held & 1 << bit) for bit in range(3)))


def _refused(attempt: Callable[[], None]) -> bool:
    try:
        attempt()
    except OSError:
        return True
    return False


def _connect() -> None:
    """To nobody: a datagram socket has a route, or has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
        tried.connect(("127.0.0.1", 9))


def _open() -> None:
    os.close(os.open(_ELSEWHERE, os.O_RDONLY))


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _give_up(parent: int) -> None:
    """What only a child can do without."""
    rights.end_with(parent)
    os.setsid()
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    filter_.install()


class _Nursery:
    """Forks when it is told to, and tells of every child how it ended, until its parent closes the line."""

    def __init__(self, line: socket.socket, read: Reader, timeout: float) -> None:
        self._line = line
        self._read = read
        self._timeout = timeout
        self._watched: dict[int, int] = {}
        """Process ids by the descriptors that tell of their end."""

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._line, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor != self._line.fileno():
                    poll.unregister(descriptor)
                    self._bury(descriptor)
                    continue
                message, passed, _, _ = socket.recv_fds(self._line, MOST_WORDS, 2)
                if not message:
                    self._end_all()
                    return
                word, *numbers = orjson.loads(message)
                if word == "kill":
                    self._kill(*numbers)
                else:
                    poll.register(self._fork(passed), select.POLLIN)

    def _fork(self, passed: Sequence[int]) -> int:
        nursery, talk, note = os.getpid(), *passed
        process = os.fork()
        if process == 0:
            status = 1
            with suppress(BaseException):
                for descriptor in (self._line.fileno(), *self._watched):
                    os.close(descriptor)
                _give_up(nursery)
                status = _serve(talk, PartNote(note), self._read, self._timeout)
            os._exit(status)
        watch = os.pidfd_open(process)
        self._watched[watch] = process
        for descriptor in passed:
            os.close(descriptor)
        _tell(self._line, "forked", process)
        return watch

    def _kill(self, process: int) -> None:
        """With what it started; one that was buried may go by another's number."""
        if process in self._watched.values():
            for kill in (os.kill, os.killpg):
                with suppress(ProcessLookupError, PermissionError):
                    kill(process, signal.SIGKILL)

    def _bury(self, watch: int) -> None:
        process = self._watched[watch]
        self._kill(process)
        _, status, used = os.wait4(process, 0)
        del self._watched[watch]
        os.close(watch)
        ended = os.waitstatus_to_exitcode(status)
        _tell(self._line, "ended", process, ended, used.ru_maxrss * 1024)

    def _end_all(self) -> None:
        for process in self._watched.values():
            self._kill(process)


def _serve(descriptor: int, note: PartNote, read: Reader, timeout: float) -> int:
    """Answer one request after the other until the parent closes; the exit status."""
    with socket.socket(fileno=descriptor) as talk:
        while (head := _receive(talk, REQUEST.size)) is not None:
            about_bytes, content_bytes = REQUEST.unpack(head)
            try:
                about = _receive(talk, about_bytes)
                content = _receive(talk, content_bytes)
                if about is None or content is None:
                    break
                _allow_cpu(timeout)
                talk.sendall(_answer(read, bytes(content), bytes(about), note))
            except MemoryError:
                return _NO_MEMORY  # Not even the content fits, or the answer.
            except OSError:
                break
    return 0


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


def _answer(read: Reader, content: bytes, about: bytes, note: PartNote) -> bytes:
    filename, media_type = orjson.loads(about)
    note.write("")
    try:
        return encode_parsed(read(content, filename, media_type, note.write))
    except Quarantined as error:
        reached = note.read() if error.reason in _REACHED else None
        return encode_error(error.reason, str(error), error.part or reached)
    except UnsupportedType as error:
        return encode_error(error.code, str(error), None)
    except MemoryError:
        return encode_error("memory", "Reading the document takes more memory than allowed.", note.read())
    except Exception as error:  # noqa: BLE001 - the process's edge: any other failure is the document's end.
        message = f"The document could not be read: its reader failed ({type(error).__name__})."
        return encode_error("crashed", message, note.read())


if __name__ == "__main__":
    main(sys.argv[1:])
