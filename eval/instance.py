"""A private instance to evaluate a release on: started, fed, asked, stopped, and checked to be gone.

It has a data folder of its own and is told of no server but the model's, so that it cannot touch the
instance that serves. It dies with the process that started it.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from app import launcher
from app.embedded import free_port
from app.stores import KINDS
from app.supervisor import START_TIMEOUT
from eval.target import HttpTarget
from eval.types import InstanceFailed

STOP = 60.0
_ELSEWHERE = (
    "DATABASE_URL",
    "REDIS_URL",
    *(kind.setting.upper() for kind in KINDS),
    "BLOBS_URL",
    "RELEASE",
    "DATA",
    "HOST",
)
"""Settings that would point a private instance at somebody else's data, or at another release."""
_IN_ORDER = re.compile(r'"level": ?"(?:debug|info)"|^(?:ready|stopped|creating) |Its log is ')
_LINES, _CHARACTERS = 8, 500


@dataclass(frozen=True, slots=True)
class Started:
    """A private instance, as who measures it sees it."""

    target: HttpTarget
    data: Path
    pid: int


@asynccontextmanager
async def private_instance(
    release: Path | None,
    *,
    drafts: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
    timeout: float = 120.0,
) -> AsyncIterator[HttpTarget]:
    """An empty instance with this release (None: the default one), ready, until the block ends. `drafts`
    are release files that it knows too, and that may be promoted; `environment` adds settings to ours.

    Raises `InstanceFailed` with the end of its log when it does not start, and when anything of it is
    left after it was stopped.
    """
    async with started(release, drafts=drafts, environment=environment, timeout=timeout) as one:
        yield one.target


@asynccontextmanager
async def started(
    release: Path | None,
    *,
    drafts: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
    timeout: float = 120.0,
) -> AsyncIterator[Started]:
    """The same, with its folder and its first process."""
    with _folder() as folder:
        log, port = folder / "log", free_port()
        process = await _spawn(_command(folder / "data", port, release, environment or {}), log)
        try:
            async with HttpTarget(f"http://127.0.0.1:{port}", timeout=timeout) as target:
                await _until_ready(target, process, log)
                for draft in drafts:
                    await _add(folder / "data", draft, folder / "add.log")
                yield Started(target, folder / "data", process.pid)
        finally:
            await _stop(process, log)


def _command(data: Path, port: int, release: Path | None, environment: Mapping[str, str]) -> list[str]:
    """Bound to our life, and without the settings that name servers (`env -u` keeps all others)."""
    bound = [sys.executable, "-I", "-S", str(launcher.__file__), str(os.getpid()), str(int(signal.SIGTERM))]
    up = ["up", "--data", str(data), "--port", str(port), "--no-sample"]
    if release is not None:
        up += ["--release", str(release.resolve())]
    return [*bound, "-", "0", *_alone(*up, **environment)]


def _alone(*words: str, **environment: str) -> list[str]:
    unset = [f"--unset={name}" for each in _ELSEWHERE for name in _names(each)]
    added = [f"{name}={value}" for name, value in environment.items()]
    return [shutil.which("env") or "/usr/bin/env", *unset, *added, sys.executable, "-m", "app.cli", *words]


async def _add(data: Path, release: Path, log: Path) -> None:
    process = await _spawn(_alone("release", "add", str(release), "--data", str(data)), log)
    if await process.wait():
        raise InstanceFailed(f"It did not take the release {release.name}: {_end(log)}")


def _names(setting: str) -> Iterator[str]:
    for name in (setting, f"PLUMBLINE_{setting}"):
        yield from (name, f"{name}_FILE")


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="plumbline-eval-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _spawn(command: Sequence[str], log: Path) -> asyncio.subprocess.Process:
    with log.open("wb") as output:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


async def _until_ready(target: HttpTarget, process: asyncio.subprocess.Process, log: Path) -> None:
    deadline = asyncio.get_running_loop().time() + START_TIMEOUT
    while not await target.ready():
        if process.returncode is not None:
            raise InstanceFailed(f"It ended with {process.returncode} before it was ready: {_end(log)}")
        if asyncio.get_running_loop().time() > deadline:
            raise InstanceFailed(f"It was not ready in {START_TIMEOUT:.0f} s: {_end(log)}")
        await asyncio.sleep(0.2)


async def _stop(process: asyncio.subprocess.Process, log: Path) -> None:
    """Stop it as Ctrl-C would, and check that neither it nor a child of it remains."""
    family = _family(process.pid)
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOP)
    except TimeoutError:
        process.kill()
        await process.wait()
        await _end_all(family)
        raise InstanceFailed(f"It did not stop within {STOP:.0f} s: {_end(log)}") from None
    left = await _end_all(family)
    if left:
        raise InstanceFailed(f"It stopped and left processes behind: {', '.join(left)}.")


def _family(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


async def _end_all(processes: list[psutil.Process]) -> list[str]:
    """Names of those that were still there after a moment; they are killed."""
    _, left = await asyncio.to_thread(psutil.wait_procs, processes, timeout=5)
    names = []
    for process in left:
        try:
            names.append(f"{process.name()} ({process.pid})")
            process.kill()
        except psutil.NoSuchProcess:
            continue
    return names


def _end(log: Path) -> str:
    """The last that it said, without what went well. Its own logs are gone by now."""
    lines = log.read_text(errors="replace").strip().splitlines()
    telling = [line.strip() for line in lines if not _IN_ORDER.search(line)]
    return " | ".join(telling[-_LINES:])[-_CHARACTERS:] or "it wrote nothing."
