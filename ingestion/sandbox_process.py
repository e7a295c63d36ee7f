"""One child process of the sandbox: how it is started, asked, and ended so that nothing of it remains."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ingestion.errors import IngestionError, ParserUnavailable
from ingestion.sandbox_wire import (
    ANSWER,
    MAX_ANSWER,
    PART_BYTES,
    MalformedAnswer,
    PartNote,
    decode_answer,
    encode_request,
    peak_resident,
)
from ingestion.types import Parsed

_START_SECONDS = 60.0
_LOOK_SECONDS = 0.01
_BUFFER = 2**20
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(slots=True, eq=False)
class Child:
    """`status` is its exit status once it ended, negative for a signal; `peak` the largest resident size
    seen, in bytes. `tired` asks for its replacement."""

    NO_MEMORY: ClassVar[int] = 3

    process: subprocess.Popen[bytes]
    input: asyncio.StreamReader
    output: asyncio.StreamWriter
    note: PartNote
    served: int = 0
    tired: bool = False
    status: int | None = None
    peak: int = 0
    _ending: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def alive(self) -> bool:
        """Whether it can take a document: running, and its end of the line open."""
        return self._ending is None and not self.input.at_eof() and not self._exited()

    async def ask(
        self, content: bytes, filename: str | None, media_type: str | None
    ) -> Parsed | IngestionError:
        """The child's answer. Raises `OSError`, `EOFError` or `MalformedAnswer` when it gives none."""
        self.served += 1
        self.note.write("")
        watching = asyncio.create_task(self._watch())
        try:
            self.output.write(encode_request(content, filename, media_type))
            self.output.write(content)
            await self.output.drain()
            answer, tired = decode_answer(await _frame(self.input))
        finally:
            watching.cancel()
        self.tired = self.tired or tired
        return answer

    async def _watch(self) -> None:
        """Keep `peak`. The kernel's own count at the end would not do: a process inherits that of the one
        that started it, and a worker is large."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.peak = max(self.peak, peak_resident(self.process.pid))

    def part(self) -> str | None:
        """The part of the document that it read last, as far as it told."""
        return self.note.read()

    async def end(self, grace: float = 0.0) -> None:
        """Kill it with everything it started, and wait until it is gone, however often we are cancelled.

        `grace` seconds are given to a child that is dying by itself, to learn of what.
        """
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(grace))
        await asyncio.shield(self._ending)

    async def _end(self, grace: float) -> None:
        clock = asyncio.get_running_loop().time
        until = clock() + grace
        # Looked at, not signalled: the host program's own SIGCHLD handling stays as it is.
        while not self._exited() and clock() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        while not self._exited():  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        self._reap()
        self.output.close()
        with contextlib.suppress(OSError):
            await self.output.wait_closed()

    def _exited(self) -> bool:
        try:
            found = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True
        return found is not None

    def _reap(self) -> None:
        try:
            _, status = os.waitpid(self.process.pid, 0)
        except ChildProcessError:  # The host program collects all children itself.
            self.status = -signal.SIGKILL
        else:
            self.status = os.waitstatus_to_exitcode(status)
        self.process.returncode = self.status


async def start(reader: str, memory: int, timeout: float) -> Child:
    """A child that is ready for its first document. Raises `ParserUnavailable`."""
    ours, theirs = socket.socketpair()
    descriptor = os.memfd_create("part", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, PART_BYTES)
        about = (theirs.fileno(), descriptor, os.getpid(), memory, timeout, reader)
        process = _popen([str(part) for part in about], (theirs.fileno(), descriptor))
        note = PartNote(descriptor)
    except OSError as error:
        ours.close()
        raise ParserUnavailable(f"No parsing process could be started: {error.strerror}.") from None
    finally:
        theirs.close()
        os.close(descriptor)
    return await _ready(process, ours, note)


def _popen(arguments: list[str], descriptors: tuple[int, int]) -> subprocess.Popen[bytes]:
    """Without our environment: it holds secrets. From this thread: the kernel ends the child with it."""
    return subprocess.Popen(  # noqa: S603 - our own module, numbers, and a name from our own code.
        [sys.executable, "-P", "-m", "ingestion.sandbox_child", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=descriptors,
        cwd="/",
        env={
            "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, sys.path)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "1",
        },
        start_new_session=True,
    )


async def _ready(process: subprocess.Popen[bytes], ours: socket.socket, note: PartNote) -> Child:
    input_, output = await asyncio.open_connection(sock=ours, limit=_BUFFER)
    child = Child(process, input_, output, note)
    try:
        async with asyncio.timeout(_START_SECONDS):
            problem = (await _frame(input_)).decode("utf-8", "replace")
    except (OSError, EOFError, MalformedAnswer, TimeoutError):
        problem = "it ended or fell silent while starting; its memory limit may be too low"
    except BaseException:
        await child.end()
        raise
    if problem:
        await child.end()
        raise ParserUnavailable(f"The parsing process could not start: {problem}.")
    return child


async def _frame(stream: asyncio.StreamReader) -> bytes:
    (length,) = ANSWER.unpack(await stream.readexactly(ANSWER.size))
    if length > MAX_ANSWER:
        raise MalformedAnswer("too long")
    return await stream.readexactly(length)
