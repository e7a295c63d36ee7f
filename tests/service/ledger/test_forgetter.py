"""What newer versions replaced is forgotten in time; whatever somebody may still ask for is not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ingestion.errors import LedgerUnavailable
from ingestion.forgetter import Forgetter
from ingestion.ledger import Ledger
from ingestion.sweeper import Sweeper
from ingestion.types import Job, JobError, Lease
from ingestion.written import Flip
from retrieval.stores.memory import MemoryStore

Accept = Callable[..., Awaitable[Job]]
LeaseOne = Callable[..., Awaitable[Lease]]
Show = Callable[[], Awaitable[tuple[Flip, int]]]
DAY = 86_400.0


@pytest.fixture
def forget(ledger: Ledger, engine: AsyncEngine, store: MemoryStore) -> Callable[..., Awaitable[None]]:
    """Let so many days pass, sweep, and forget what is older than 30."""

    async def forget(days: int = 31) -> None:
        past = f"interval '{days} days'"
        async with engine.begin() as connection:
            await connection.execute(text("DELETE FROM loose_files"))
            await connection.execute(text(f"UPDATE versions SET created_at = created_at - {past}"))
            await connection.execute(text(f"UPDATE jobs SET finished_at = finished_at - {past}"))
            earlier = f"retired_at = retired_at - {past}, look_at = look_at - {past}"
            await connection.execute(text(f"UPDATE revisions SET {earlier} WHERE state = 'retired'"))
        await Sweeper(ledger, store, lease=10, call_deadline=5).sweep()
        await Forgetter(ledger, age=30 * DAY).forget(asyncio.Event())

    return forget


async def _left(engine: AsyncEngine) -> tuple[int, int, int]:
    async with engine.connect() as connection:
        counts = [
            await connection.scalar(text(f"SELECT count(*) FROM {table}"))
            for table in ("versions", "jobs", "revisions")
        ]
    return counts[0] or 0, counts[1] or 0, counts[2] or 0


async def test_of_a_document_that_is_updated_again_and_again_one_version_is_left(
    ledger: Ledger,
    engine: AsyncEngine,
    accept: Accept,
    show: Show,
    forget: Callable[..., Awaitable[None]],
) -> None:
    for n in range(5):
        await accept("pay", f"text {n}")
        assert (await show())[0] == "flipped"
    await forget(29)
    assert await _left(engine) == (5, 5, 5)
    await forget(2)
    assert await _left(engine) == (1, 1, 1)
    assert (await ledger.document("acme", None, "pay")).status == "succeeded"
    await accept("pay", "text 5")
    assert (await show())[0] == "flipped"


async def test_what_readers_still_see_is_kept_while_the_newest_version_failed(
    ledger: Ledger,
    engine: AsyncEngine,
    accept: Accept,
    lease_one: LeaseOne,
    show: Show,
    forget: Callable[..., Awaitable[None]],
) -> None:
    await accept("pay", "readable")
    await show()
    failed = await accept("pay", "not readable")
    await ledger.quarantine((await lease_one()).job, JobError(code="damaged", message="It is."))
    await forget()
    assert await _left(engine) == (2, 2, 1)
    assert (await ledger.retry("acme", failed.id)).state == "queued"


async def test_what_is_not_over_is_kept(
    ledger: Ledger,
    engine: AsyncEngine,
    accept: Accept,
    lease_one: LeaseOne,
    forget: Callable[..., Awaitable[None]],
) -> None:
    """A worker is at an older version, and its rows are not swept."""
    await accept("pay", "old")
    lease = await lease_one()
    await ledger.begin([lease.job])
    await accept("pay", "new")
    await forget()
    assert await _left(engine) == (2, 2, 1)


async def test_of_a_deleted_document_its_deletion_is_left(
    ledger: Ledger, engine: AsyncEngine, accept: Accept, show: Show, forget: Callable[..., Awaitable[None]]
) -> None:
    await accept("pay")
    await show()
    await ledger.delete("acme", None, "pay")
    await forget()
    assert await _left(engine) == (1, 0, 0)
    assert await ledger.erasing.known("acme", ["pay"]) == {"pay"}


async def test_a_version_whose_file_is_still_there_is_kept_for_an_erasure(
    ledger: Ledger, engine: AsyncEngine, accept: Accept, show: Show
) -> None:
    for content in ("old", "new"):
        await accept("pay", content)
        await show()
    async with engine.begin() as connection:
        for column in ("versions SET created_at = created_at", "jobs SET finished_at = finished_at"):
            await connection.execute(text(f"UPDATE {column} - interval '31 days'"))
        await connection.execute(text("UPDATE revisions SET state = 'swept' WHERE state = 'retired'"))
    await Forgetter(ledger, age=30 * DAY).forget(asyncio.Event())
    assert await _left(engine) == (2, 1, 1)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE loose_files SET gone = true"))
    await Forgetter(ledger, age=30 * DAY).forget(asyncio.Event())
    assert await _left(engine) == (1, 1, 1)


async def test_it_goes_on_after_a_page(
    ledger: Ledger,
    engine: AsyncEngine,
    accept: Accept,
    show: Show,
    forget: Callable[..., Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ingestion.ledger.HISTORY_BATCH", 2)
    for name in ("pay", "leave"):
        for n in range(4):
            await accept(name, f"{name} {n}")
            await show()
    await forget()
    assert await _left(engine) == (2, 2, 2)


async def test_a_job_that_ended_lately_is_kept_however_old_its_version_is(
    ledger: Ledger, engine: AsyncEngine, accept: Accept, show: Show
) -> None:
    for content in ("old", "new"):
        await accept("pay", content)
        await show()
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM loose_files"))
        await connection.execute(text("UPDATE versions SET created_at = created_at - interval '31 days'"))
        await connection.execute(text("UPDATE revisions SET state = 'swept' WHERE state = 'retired'"))
    await Forgetter(ledger, age=30 * DAY).forget(asyncio.Event())
    assert await _left(engine) == (2, 2, 1)


async def test_it_tries_again_soon_after_an_outage_and_then_rests(engine: AsyncEngine) -> None:
    asked: list[int] = []

    class Flaky(Ledger):
        async def forget_history(self, after: int, age: float) -> int | None:
            asked.append(after)
            if len(asked) == 1:
                raise LedgerUnavailable("away")
            return await super().forget_history(after, age)

    stop = asyncio.Event()
    running = asyncio.create_task(Forgetter(Flaky(engine), age=DAY, first=0.01).run(stop))
    async with asyncio.timeout(20):
        while len(asked) < 2:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    stop.set()
    await running
    assert asked == [0, 0]
