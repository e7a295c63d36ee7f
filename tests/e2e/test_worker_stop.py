"""A machine that is taken away: the real worker process is told to stop while it works."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app import migrate
from app.database import open_engine
from app.standalone import WORKER_READY
from ingestion.blobs import Blobs
from ingestion.intake import Intake
from ingestion.ledger import Ledger
from ingestion.types import Job, NewDocument

STOPPED = 60.0
GRACE = 0.5
LONG = "\n\n".join(
    f"The keeper of lamp {n} writes what the sea said to him that night." for n in range(40_000)
)


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    await migrate.upgrade(database_url)
    engine = open_engine(database_url)
    yield Ledger(engine)
    await engine.dispose()


@pytest.fixture
def intake(ledger: Ledger, tmp_path: Path) -> Intake:
    return Intake(ledger, Blobs(str(tmp_path / "blobs")), upload_limit=64 * 2**20)


@contextmanager
def _worker(database_url: str, milvus_uri: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        "PLUMBLINE_DATA": str(folder),
        "DATABASE_URL": database_url,
        "MILVUS_URI": milvus_uri,
        "PLUMBLINE_GRACE": str(GRACE),
        "PLUMBLINE_LEASE": "600",
        "PLUMBLINE_STALL": "0.01",
    }
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "worker"],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def _until(ledger: Ledger, job: Job, stage: str) -> Job:
    async with asyncio.timeout(180):
        while (now := await ledger.job("acme", job.id)).stage != stage:
            await asyncio.sleep(0.05)
    return now


async def test_a_worker_told_to_stop_gives_its_jobs_back_and_leaves(
    ledger: Ledger, intake: Intake, database_url: str, milvus_uri: str, tmp_path: Path
) -> None:
    """Not a lease (of ten minutes here) is waited for, and no attempt or loss is counted."""
    (job,) = await intake.put("acme", [NewDocument(id="log", content=LONG.encode(), filename="log.txt")])
    with _worker(database_url, milvus_uri, tmp_path) as process:
        await _until(ledger, job, "embed")
        assert [one.state for one in await ledger.workers()] == ["working"]
        told = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, STOPPED) == 0
        took = time.monotonic() - told
    log = (tmp_path / "worker.log").read_text()
    assert WORKER_READY in log
    # Work on a long document keeps the event loop for longer than ten milliseconds, and that is told.
    assert "the event loop has stood still" in log
    assert took < STOPPED
    now = await ledger.job("acme", job.id)
    assert (now.state, now.attempts, now.worker) == ("queued", 0, None)
    assert await ledger.workers() == []
    (taken,) = await ledger.lease("another", 30, 1)
    assert taken.job.id == job.id
