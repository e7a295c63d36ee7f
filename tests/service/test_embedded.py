"""What the embedded PostgreSQL does with what a killed one left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import embedded
from app.child import Child
from app.embedded import EmbeddedError
from app.partlog import PartLog


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="plt-"))
    (made / "sockets").mkdir(mode=0o700)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def postgres(folder: Path) -> Child:
    part = embedded.postgres(folder / "postgres", folder / "sockets")
    return Child(part, PartLog("postgres", folder, print, always=False), print)


async def test_a_lock_file_that_names_somebody_elses_process_does_not_block_a_start(folder: Path) -> None:
    first = postgres(folder)
    await first.start(60)
    await first.stop(asyncio.Event())
    lock = folder / "postgres" / "postmaster.pid"
    lock.write_text(f"{os.getpid()}\n{folder / 'postgres'}\n")
    second = postgres(folder)
    await second.start(60)
    await second.stop(asyncio.Event())


async def test_a_running_postgres_is_never_started_on(folder: Path) -> None:
    running = postgres(folder)
    await running.start(60)
    try:
        with pytest.raises(EmbeddedError, match=f"kill -INT {running.pid}"):
            postgres(folder)
        await running.part.ready()
    finally:
        await running.stop(asyncio.Event())


async def test_a_creation_that_was_cut_short_is_made_again(folder: Path) -> None:
    half = folder / "postgres" / "unfinished"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    made = postgres(folder)
    await made.start(60)
    await made.stop(asyncio.Event())
    assert not half.exists()


def test_a_folder_of_another_postgres_version_is_left_alone(folder: Path) -> None:
    (folder / "postgres").mkdir()
    (folder / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(EmbeddedError, match="written by PostgreSQL 15"):
        postgres(folder)
    assert (folder / "postgres" / "PG_VERSION").read_text() == "15\n"


async def test_a_killed_postgres_comes_back_by_itself(folder: Path) -> None:
    kept = postgres(folder)
    await kept.start(60)
    first = kept.pid
    assert first
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(60):
        while kept.pid in (None, first) or not kept.ready.is_set():
            await asyncio.sleep(0.05)
    await kept.part.ready()
    await kept.stop(asyncio.Event())
