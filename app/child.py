"""One part as a child process that is kept alive: started, watched, started again, ended.

It dies with us however we die (see `launcher`), and takes its own children with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from app.embedded import NotReady, Part
from app.partlog import PartLog

LAUNCHER = Path(__file__).with_name("launcher.py")
FIRST_DELAY = 0.2
LONGEST_DELAY = 5.0
STEADY = 30.0
"""A child that lived this long is forgiven its earlier deaths."""
ATTEMPTS = 3
"""How often a child may die before it was ever ready."""
CANNOT_START = 3
"""The exit code of our own commands for what another attempt would not mend."""
KILL_PATIENCE = 5.0


class StartFailed(Exception):
    """A part did not get ready; the message holds its last words."""


def delay_after(failures: int) -> float:
    """Seconds to wait before start number `failures` + 1: doubling, bounded, and jittered so that parts
    that died together do not come back together."""
    longest = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** (failures - 1))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  (no secret)


class Child:
    """A part's life. `changed` is called whenever its process is another one."""

    def __init__(
        self, part: Part, log: PartLog, say: Callable[[str], None], changed: Callable[[], None] = lambda: None
    ) -> None:
        self.part = part
        self.log = log
        self.ready = asyncio.Event()
        self._say = say
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._life: asyncio.Task[None] | None = None
        self._stopping = False
        self._was_ready = False

    @property
    def name(self) -> str:
        return self.part.name

    @property
    def pid(self) -> int | None:
        """The number of the process that lives now."""
        process = self._process
        return process.pid if process and process.returncode is None else None

    async def start(self, timeout: float) -> float:
        """Start it and wait until it is ready; returns the seconds it took. Raises `StartFailed`."""
        began = time.monotonic()
        self._life = asyncio.create_task(self._live(), name=f"life of {self.name}")
        ready = asyncio.create_task(self.ready.wait())
        done, _ = await asyncio.wait(
            {self._life, ready}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
        )
        ready.cancel()
        if self._life in done:
            self._life.result()
        if not done:
            raise StartFailed(self._last_words(f"{self.name} was not ready in {timeout:.0f} s"))
        return time.monotonic() - began

    async def stop(self, hurry: asyncio.Event) -> None:
        """End it in good order; soon when `hurry` is set, now or later. Nothing of it is left."""
        self._stopping = True
        self.log.shown = False
        if self._process and self._process.returncode is None:
            await self._end(self._process, hurry)
        if self._life:
            self._life.cancel()
            await asyncio.wait({self._life})
            if not self._life.cancelled():
                self._life.exception()  # Told where it was started; read here so that asyncio is content.
        self.log.close()

    async def _live(self) -> None:
        failures, restarted_at = 0, 0.0
        while True:
            began = time.monotonic()
            try:
                code = await self._run(restarted_at)
                how, hopeless = _how(code), code == CANNOT_START
            except OSError as error:  # The machine has no memory or no file left for it, and may have again.
                how, hopeless = f"could not be started ({error.strerror})", False
            if self._stopping:
                return
            failures = 1 if time.monotonic() - began > STEADY else failures + 1
            if not self._was_ready and (hopeless or failures >= ATTEMPTS):
                raise StartFailed(self._last_words(f"{self.name} {how}"))
            self.ready.clear()
            delay = delay_after(failures)
            self._say(f"{self.name} {how}; starting it again in {delay:.1f} s")
            restarted_at = time.monotonic()
            await asyncio.sleep(delay)

    async def _run(self, restarted_at: float) -> int:
        """One process, from its start to its end; its exit code."""
        process = await self._spawn()
        probe = asyncio.create_task(self._probe(restarted_at))
        try:
            return await process.wait()
        finally:
            probe.cancel()
            _kill_group(process.pid)

    async def _probe(self, restarted_at: float) -> None:
        """Set `ready` when a client gets an answer."""
        while True:
            try:
                await self.part.ready()
                break
            except NotReady:
                await asyncio.sleep(0.05)
        self._was_ready = True
        self.log.shown = True
        self.ready.set()
        if restarted_at:
            self._say(f"{self.name} is back after {time.monotonic() - restarted_at:.1f} s")

    async def _spawn(self) -> asyncio.subprocess.Process:
        part = self.part
        self.log.begin()
        read, write = os.pipe()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: _Reader(self.log), os.fdopen(read, "rb", 0))
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(LAUNCHER)),
                *(str(os.getpid()), str(int(part.stop)), part.user or "-", str(part.nice), *part.command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write,
                stderr=write,
                cwd=part.folder,
                env={**os.environ, **part.environment},
                start_new_session=True,  # Ctrl-C in the terminal is for us; we end the parts in order.
            )
        finally:
            os.close(write)
        self._changed()
        return self._process

    async def _end(self, process: asyncio.subprocess.Process, hurry: asyncio.Event) -> None:
        ended = asyncio.create_task(process.wait())
        hurried = asyncio.create_task(hurry.wait())
        _signal(process, self.part.stop)
        await asyncio.wait({ended, hurried}, timeout=self.part.patience, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        for number in (self.part.hurry, signal.SIGKILL):
            if not ended.done():
                self._say(f"{self.name} is slow to stop; sending {number.name}")
                _signal(process, number)
                await asyncio.wait({ended}, timeout=KILL_PATIENCE)
        _kill_group(process.pid)

    def _last_words(self, what: str) -> str:
        words = "\n".join(f"  {self.name} | {line}" for line in self.log.tail()[-15:])
        return f"{what}. Its log is {self.log.path}; the last of it:\n{words}"


class _Reader(asyncio.Protocol):
    """Feeds a pipe into a log. Of our own, because asyncio's waits for every holder of the pipe to end
    before it says that the process has."""

    def __init__(self, log: PartLog) -> None:
        self._log = log

    def data_received(self, data: bytes) -> None:
        self._log.feed(data)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # It may have ended by itself.
        process.send_signal(number)


def _kill_group(leader: int) -> None:
    """End what a process that is gone left behind in its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"
