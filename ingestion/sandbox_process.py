"""The sandbox's processes as their parent knows them: the nursery, and a child for a file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import orjson

from ingestion.errors import IngestionError, ParserUnavailable
from ingestion.sandbox_wire import (
    ANSWER,
    MAX_ANSWER,
    MOST_WORDS,
    PART_BYTES,
    MalformedAnswer,
    PartNote,
    decode_answer,
    encode_request,
    encode_words,
)
from ingestion.types import Containment, Parsed

_START_SECONDS = 60.0
_END_SECONDS = 2.0
_SILENCE = 10.0
"""Seconds after which a nursery that does not do as it is told is taken for lost, and is ended."""
_BUFFER = 2**20
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: its exit status, negative for a signal, and the most memory that it held at a time,
    in bytes, as the kernel counted it."""

    status: int
    peak: int


KILLED = Ended(-signal.SIGKILL, 0)


@dataclass(slots=True, eq=False)
class Child:
    """A process of its own. `served` counts the documents that it was asked to read."""

    NO_MEMORY: ClassVar[int] = 3

    process: int
    nursery: Nursery
    input: asyncio.StreamReader
    output: asyncio.StreamWriter
    note: PartNote
    ended: asyncio.Future[Ended]
    served: int = 0

    @property
    def alive(self) -> bool:
        """Whether it can take a document: running, and its end of the line open."""
        return not self.ended.done() and not self.input.at_eof() and not self.output.is_closing()

    async def ask(
        self, content: bytes, filename: str | None, media_type: str | None
    ) -> Parsed | IngestionError:
        """The child's answer. Raises `OSError`, `EOFError` or `MalformedAnswer` when it gives none."""
        self.served += 1
        self.note.write("")
        self.output.write(encode_request(content, filename, media_type))
        self.output.write(content)
        await self.output.drain()
        (length,) = ANSWER.unpack(await self.input.readexactly(ANSWER.size))
        if length > MAX_ANSWER:
            raise MalformedAnswer("too long")
        return decode_answer(await self.input.readexactly(length))

    def part(self) -> str | None:
        """The part of the document that it read last, as far as it told."""
        return self.note.read()

    async def end(self, grace: float = 0.0) -> Ended:
        """Kill it with everything it started, and wait until it is gone. `grace` seconds are given to one
        that is dying by itself, to learn of what."""
        await asyncio.wait({self.ended}, timeout=grace)
        self.kill()
        killed, _ = await asyncio.wait({self.ended}, timeout=_SILENCE)
        if not killed:
            await self.nursery.end()
        ended = await asyncio.shield(self.ended)
        with contextlib.suppress(OSError):
            await self.output.wait_closed()
        return ended

    def kill(self) -> None:
        """Have it killed; `ended` tells when it is gone."""
        if not self.ended.done():
            self.nursery.kill(self.process)
        self.output.close()


class Nursery:
    """The process that forks children; `containment` is what it found to hold for them."""

    def __init__(self, process: subprocess.Popen[bytes], line: socket.socket) -> None:
        self._process = process
        self._line = line
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[Containment] = self._loop.create_future()
        self._forking: deque[asyncio.Future[tuple[int, asyncio.Future[Ended]]]] = deque()
        self._children: dict[int, asyncio.Future[Ended]] = {}
        self._loop.add_reader(line.fileno(), self._heard)
        self._open = True

    @property
    def alive(self) -> bool:
        return self._open

    async def ready(self) -> Containment:
        """Raises `ParserUnavailable` with the reason why it is not."""
        try:
            async with asyncio.timeout(_START_SECONDS):
                return await asyncio.shield(self._ready)
        except TimeoutError:
            raise ParserUnavailable("The parsing process fell silent while starting.") from None

    async def fork(self) -> Child:
        """A child that waits for its first document. Raises `ParserUnavailable`."""
        ours, theirs = socket.socketpair()
        descriptor = os.memfd_create("part", os.MFD_CLOEXEC)
        forked: asyncio.Future[tuple[int, asyncio.Future[Ended]]] = self._loop.create_future()
        try:
            os.ftruncate(descriptor, PART_BYTES)
            note = PartNote(descriptor)
            socket.send_fds(self._line, [encode_words("fork")], [theirs.fileno(), descriptor])
            self._forking.append(forked)
        except OSError as error:
            ours.close()
            if isinstance(error, ConnectionError):
                self._close()
            raise ParserUnavailable(f"No parsing process could be started: {error.strerror}.") from None
        finally:
            theirs.close()
            os.close(descriptor)
        try:
            async with asyncio.timeout(_SILENCE):
                process, ended = await asyncio.shield(forked)
        except TimeoutError:
            ours.close()
            await self.end()
            raise ParserUnavailable("The parsing process fell silent.") from None
        except BaseException:
            ours.close()  # Nobody will ask it anything: it ends by itself.
            raise
        input_, output = await asyncio.open_connection(sock=ours, limit=_BUFFER)
        return Child(process, self, input_, output, note, ended)

    def kill(self, process: int) -> None:
        if not self._open:
            return
        try:
            self._line.send(encode_words("kill", process))
        except OSError:
            self._close()

    async def end(self) -> None:
        """End it and every child, and wait until none is left. It has a moment to end them by itself."""
        self._close()
        until = self._loop.time() + _END_SECONDS
        # Looked at, not signalled: the host program's own SIGCHLD handling stays as it is.
        while self._process.poll() is None:
            if self._loop.time() > until:
                self._process.kill()
            await asyncio.sleep(0.002)

    def _heard(self) -> None:
        try:
            message = self._line.recv(MOST_WORDS)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._close()
            return
        word, *told = orjson.loads(message)
        match word:
            case "ready" if not self._ready.done():
                self._ready.set_result(Containment(*told))
            case "failed" if not self._ready.done():
                self._ready.set_exception(
                    ParserUnavailable(f"The parsing process could not start: {told[0]}.")
                )
            case "forked":
                self._born(told[0])
            case "ended":
                process, status, peak = told
                self._children.pop(process).set_result(Ended(status, peak))

    def _born(self, process: int) -> None:
        ended = self._children[process] = self._loop.create_future()
        self._forking.popleft().set_result((process, ended))

    def _close(self) -> None:
        """It is gone, or told to go; and with it, by the kernel's hand, are its children."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._line.fileno())
        self._line.close()
        gone = ParserUnavailable("The parsing process ended, or fell silent while starting.")
        waiting: list[asyncio.Future[Any]] = [self._ready, *self._forking]
        for asked in waiting:
            if not asked.done():
                asked.set_exception(gone)
                asked.exception()  # Whoever waits for it hears; nobody has to.
        for ended in self._children.values():
            ended.set_result(KILLED)
        self._forking.clear()
        self._children.clear()


async def start(reader: str, memory: int, timeout: float) -> tuple[Nursery, Containment]:
    """A nursery that is ready, and what holds for its children. Raises `ParserUnavailable`."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    try:
        about = (theirs.fileno(), os.getpid(), memory, timeout, reader)
        process = _popen([str(part) for part in about], theirs.fileno())
    except OSError as error:
        ours.close()
        raise ParserUnavailable(f"No parsing process could be started: {error.strerror}.") from None
    finally:
        theirs.close()
    nursery = Nursery(process, ours)
    try:
        return nursery, await nursery.ready()
    except BaseException:
        await asyncio.shield(nursery.end())
        raise


def _popen(arguments: list[str], descriptor: int) -> subprocess.Popen[bytes]:
    """Without our environment: it holds secrets. From this thread: the kernel ends it with it."""
    return subprocess.Popen(  # noqa: S603 - our own module, numbers, and a name from our own code.
        [sys.executable, "-P", "-m", "ingestion.sandbox_child", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(descriptor,),
        cwd="/",
        env={
            "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, sys.path)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "1",
        },
        start_new_session=True,
    )
