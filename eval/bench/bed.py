"""Where measurements run: parts of their own in a folder that is thrown away, and processes beside them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from app import embedded, instance, launcher
from app.child import Child
from app.embedded import Part, free_port
from app.partlog import PartLog
from app.standalone import WORKER_NICE
from app.supervisor import Supervisor
from eval.types import InstanceFailed

_UVICORN = (
    *("--loop", "uvloop", "--http", "httptools", "--lifespan", "off"),
    *("--log-level", "critical", "--no-access-log", "--no-server-header"),
)
START = 600.0
"""Seconds that a filled service may take to be ready."""


@dataclass(slots=True)
class Running:
    """A process that listens on loopback. `key` is what it wants to see, if anything; `admin` is one that may
    hand documents in while others ask."""

    process: asyncio.subprocess.Process
    url: str
    key: str = ""
    admin: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def cpu(self) -> float:
        """Seconds of processor time that it has used so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)


@dataclass(slots=True)
class Bed:
    """`environment` names the parts that run; `start` puts a process beside them."""

    folder: Path
    environment: Mapping[str, str]
    _stack: AsyncExitStack = field(repr=False)

    async def service(self, *options: str, **environment: str) -> Running:
        """The service under measurement, filled and ready."""
        running = await self._start(("eval.bench.stand", *options), environment)
        told = json.loads(await _line(running.process, self.folder))
        running.key, running.admin = told["key"], told["admin"]
        return running

    async def worker(self, store: str) -> Running:
        """A worker, which takes the service's jobs with the niceness that a worker has."""
        running = await self._start(("eval.bench.feeder", "--store", store), {}, WORKER_NICE)
        await _line(running.process, self.folder)
        return running

    async def floor(self) -> Running:
        """What answers `/{n}` with n bytes."""
        running = await self._start(("uvicorn", "eval.bench.floor:floor", *_UVICORN), {})
        await _until_listening(running)
        return running

    async def paced(self, slots: int) -> Running:
        """A model that answers as fast as its name says, so many at once."""
        return await self.web("eval.bench.paced:served", PACED_SLOTS=str(slots))

    async def web(self, factory: str, **environment: str) -> Running:
        """The ASGI application that `module:factory` makes."""
        running = await self._start(("uvicorn", "--factory", factory, *_UVICORN), environment)
        await _until_listening(running)
        return running

    async def _start(self, command: Sequence[str], environment: Mapping[str, str], nice: int = 0) -> Running:
        """A module with its options; `env` adds what the parts are called to what we inherited."""
        port = free_port()
        named = [f"{name}={value}" for name, value in {**self.environment, **environment}.items()]
        log = (self.folder / "log").open("ab")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(launcher.__file__), str(os.getpid()), str(int(signal.SIGTERM))),
            *("-", str(nice), shutil.which("env") or "/usr/bin/env", *named),
            *(sys.executable, "-m", *command, "--port", str(port)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        self._stack.push_async_callback(_end, process)
        return Running(process, f"http://127.0.0.1:{port}")


@asynccontextmanager
async def made(*, milvus: bool = False) -> AsyncIterator[Bed]:
    """PostgreSQL and Redis (and Milvus Lite) in a new folder, until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="plumbline-bench-"))
    supervisor = Supervisor(lambda line: None)
    try:
        with instance.sockets_folder() as sockets:
            parts = await asyncio.to_thread(_parts, folder, sockets, milvus)
            try:
                await supervisor.start([_child(part, folder) for part in parts.values()])
                environment = {name: part.url for name, part in parts.items()}
                environment["PLUMBLINE_DATA"] = str(folder)
                async with AsyncExitStack() as stack:
                    yield Bed(folder, environment, stack)
            finally:
                await supervisor.stop()
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _parts(folder: Path, sockets: Path, milvus: bool) -> dict[str, Part]:
    parts = {
        "DATABASE_URL": embedded.postgres(folder / "postgres", sockets),
        "REDIS_URL": embedded.redis(folder / "redis", sockets),
    }
    if milvus:
        parts["MILVUS_URI"] = embedded.milvus(folder / "milvus", free_port())
    return parts


def _child(part: Part, folder: Path) -> Child:
    say = _unheard
    return Child(part, PartLog(part.name, folder, say, always=False), say)


def _unheard(line: str) -> None:
    """The log has it."""


async def _line(process: asyncio.subprocess.Process, folder: Path) -> bytes:
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), START)
    except TimeoutError:
        raise InstanceFailed(f"The service was not ready in {START:.0f} s.") from None
    if not line:
        said = (folder / "log").read_text(errors="replace").strip()[-2_000:]
        raise InstanceFailed(f"The service ended before it was ready: {said}")
    return line


async def _until_listening(running: Running) -> None:
    port = int(running.url.rpartition(":")[2])
    for _ in range(600):
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.05)
    raise InstanceFailed("A web server of the measurement was not ready in 30 s.")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), 20)
    except TimeoutError:
        process.kill()
        await process.wait()
