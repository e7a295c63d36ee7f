"""Rows that nobody may see are removed from the store, also those that a stalled writer adds late."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ingestion import visibility
from ingestion.erasing import Erasing
from ingestion.ledger import Ledger
from ingestion.leftovers import Leftovers
from ingestion.revisions import NOBODY
from ingestion.sweeper import Sweeper
from ingestion.types import Job, Lease
from ingestion.written import Flip, Written
from retrieval.errors import StoreUnavailable
from retrieval.stores.memory import MemoryStore
from retrieval.types import Filter, IndexSpec, Row
from tests.passages import passage

Accept = Callable[..., Awaitable[Job]]
LeaseOne = Callable[..., Awaitable[Lease]]
Write = Callable[[Lease], Awaitable[Written]]
Stored = Callable[..., Awaitable[list[int]]]
Switch = Callable[[str, str], Awaitable[None]]
WriteRow = Callable[..., Awaitable[None]]


@pytest.fixture
def sweeper(ledger: Ledger, store: MemoryStore) -> Sweeper:
    return Sweeper(ledger, store, lease=10, call_deadline=5)


@pytest.fixture
def write_row(store: MemoryStore, spec: IndexSpec) -> WriteRow:
    """Put one row of this revision into the store."""

    async def write_row(written: Written, generation: str = spec.generation) -> None:
        chunk = passage(
            "text",
            document_id=written.job.document_id,
            revision=written.revision,
            tenant=written.job.tenant,
        )
        vector = np.full(64, 0.125, dtype=np.float32)
        await store.upsert(generation, [Row(chunk=chunk, vector=vector, terms="text")])

    return write_row


async def _later(engine: AsyncEngine, seconds: int) -> None:
    sql = (
        f"UPDATE revisions SET retired_at = retired_at - interval '{seconds} s', "
        f"look_at = look_at - interval '{seconds} s' WHERE state = 'retired'"
    )
    async with engine.begin() as connection:
        await connection.execute(text(sql))


async def test_rows_of_a_worker_that_died_are_removed(
    ledger: Ledger,
    sweeper: Sweeper,
    accept: Accept,
    lease_one: LeaseOne,
    written: Write,
    write_row: WriteRow,
    stored: Stored,
) -> None:
    await accept("handbook")
    await write_row(await written(await lease_one(seconds=0.0)))
    assert len(await stored()) == 1
    await sweeper.sweep()
    assert await stored() == []


async def test_rows_that_are_visible_or_being_written_are_kept(
    ledger: Ledger,
    sweeper: Sweeper,
    accept: Accept,
    lease_one: LeaseOne,
    written: Write,
    write_row: WriteRow,
    stored: Stored,
) -> None:
    await accept("shown")
    shown = await written(await lease_one())
    await write_row(shown)
    await ledger.flip([shown])
    await accept("running")
    running = await written(await lease_one())
    await write_row(running)
    await sweeper.sweep()
    assert await stored() == [shown.revision, running.revision]


async def test_rows_of_a_replaced_version_are_removed(
    ledger: Ledger,
    sweeper: Sweeper,
    accept: Accept,
    lease_one: LeaseOne,
    written: Write,
    write_row: WriteRow,
    stored: Stored,
) -> None:
    revisions = []
    for content in ("one", "two"):
        await accept("handbook", content)
        one = await written(await lease_one())
        await write_row(one)
        await ledger.flip([one])
        revisions.append(one.revision)
    await sweeper.sweep()
    assert await stored() == revisions[1:]


async def test_rows_of_a_deleted_document_are_removed(
    ledger: Ledger,
    sweeper: Sweeper,
    accept: Accept,
    lease_one: LeaseOne,
    written: Write,
    write_row: WriteRow,
    stored: Stored,
) -> None:
    await accept("handbook")
    shown = await written(await lease_one())
    await write_row(shown)
    await ledger.flip([shown])
    await accept("handbook", "newer")
    await write_row(await written(await lease_one()))
    await ledger.delete("acme", None, "handbook")
    await sweeper.sweep()
    assert await stored() == []


async def test_a_row_that_a_stalled_writer_adds_late_is_removed_too(
    ledger: Ledger,
    engine: AsyncEngine,
    sweeper: Sweeper,
    accept: Accept,
    lease_one: LeaseOne,
    written: Write,
    write_row: WriteRow,
    stored: Stored,
) -> None:
    await accept("handbook")
    zombie = await written(await lease_one(seconds=0.0))
    await write_row(zombie)
    await sweeper.sweep()
    await _later(engine, 14)
    assert await sweeper.sweep() == 0
    await write_row(zombie)
    await _later(engine, 2)
    assert await sweeper.sweep() == 1
    assert await stored() == []
    await _later(engine, 1000)
    assert await sweeper.sweep() == 0


async def test_rows_that_came_after_the_last_look_are_removed_once_their_writer_tells(
    ledger: Ledger,
    engine: AsyncEngine,
    sweeper: Sweeper,
    accept: Accept,
    lease_one: LeaseOne,
    written: Write,
    write_row: WriteRow,
    stored: Stored,
) -> None:
    await accept("handbook")
    zombie = await written(await lease_one(seconds=0.0))
    await sweeper.sweep()
    await _later(engine, 16)
    assert await sweeper.sweep() == 1
    await write_row(zombie)
    assert await sweeper.sweep() == 0
    await ledger.sweep_again({zombie.revision: "acme"})
    assert await sweeper.sweep() == 1
    assert await stored() == []
    await _later(engine, 14)
    assert await sweeper.sweep() == 0
    await _later(engine, 2)
    assert await sweeper.sweep() == 1


async def test_what_was_left_behind_is_told_once(
    ledger: Ledger, engine: AsyncEngine, sweeper: Sweeper, accept: Accept, lease_one: LeaseOne, written: Write
) -> None:
    await accept("handbook")
    zombie = await written(await lease_one(seconds=0.0))
    leftovers = Leftovers(ledger)
    leftovers.note(zombie.revision, "acme")
    for due in (1, 0):
        await sweeper.sweep()
        await _later(engine, 16)
        await sweeper.sweep()
        await leftovers.tell()
        assert await sweeper.sweep() == due


async def test_rows_of_a_writer_who_tells_during_the_last_look_are_removed_too(
    ledger: Ledger,
    engine: AsyncEngine,
    sweeper: Sweeper,
    store: MemoryStore,
    accept: Accept,
    lease_one: LeaseOne,
    written: Write,
    write_row: WriteRow,
    stored: Stored,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await accept("handbook")
    zombie = await written(await lease_one(seconds=0.0))
    await sweeper.sweep()
    await _later(engine, 16)
    remove = store.remove

    async def late(generation: str, revisions: Collection[int]) -> None:
        await remove(generation, revisions)
        await write_row(zombie)
        await ledger.sweep_again({zombie.revision: "acme"})

    with monkeypatch.context() as patched:
        patched.setattr(store, "remove", late)
        assert await sweeper.sweep() == 1
    assert await stored() == [zombie.revision]
    assert await sweeper.sweep() == 1
    assert await stored() == []


async def test_rows_of_an_erased_document_are_removed_once_their_writer_tells(
    ledger: Ledger,
    engine: AsyncEngine,
    sweeper: Sweeper,
    accept: Accept,
    lease_one: LeaseOne,
    written: Write,
    write_row: WriteRow,
    stored: Stored,
) -> None:
    """The ledger knows its revision no more."""
    await accept("handbook")
    zombie = await written(await lease_one())
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM revisions"))
    await write_row(zombie)
    await ledger.sweep_again({zombie.revision: "acme"})
    await sweeper.sweep()
    assert await stored() == []


async def test_an_erasure_forgets_no_revision_that_is_to_be_swept_again(
    ledger: Ledger,
    engine: AsyncEngine,
    sweeper: Sweeper,
    accept: Accept,
    lease_one: LeaseOne,
    written: Write,
    write_row: WriteRow,
    stored: Stored,
) -> None:
    erasing = Erasing(engine)
    await accept("handbook")
    zombie = await written(await lease_one())
    which = Filter(tenant="acme", groups=None)
    erasure = await erasing.begin(which, "tenant", "a test")
    await erasing.choose(erasure, which, "")
    await sweeper.sweep()
    await _later(engine, 16)
    await sweeper.sweep()
    assert await erasing.unswept(erasure) == (0, 1)
    await write_row(zombie)
    await ledger.sweep_again({zombie.revision: "acme"})
    assert await erasing.forget(erasure) == 1
    async with engine.connect() as connection:
        kept = await connection.execute(text("SELECT document_id FROM revisions"))
    assert [row.document_id for row in kept] == [NOBODY]
    await sweeper.sweep()
    assert await stored() == []


async def test_telling_hides_nothing_that_is_visible_or_being_written(
    ledger: Ledger,
    sweeper: Sweeper,
    accept: Accept,
    lease_one: LeaseOne,
    written: Write,
    write_row: WriteRow,
    stored: Stored,
) -> None:
    await accept("shown")
    shown = await written(await lease_one())
    await write_row(shown)
    await ledger.flip([shown])
    await accept("running")
    running = await written(await lease_one())
    await write_row(running)
    await ledger.sweep_again({shown.revision: "acme", running.revision: "acme"})
    await sweeper.sweep()
    assert await stored() == [shown.revision, running.revision]
    assert (await ledger.flip([running])) == {running.job.id: "flipped"}


async def test_a_swept_writer_cannot_flip(
    ledger: Ledger,
    sweeper: Sweeper,
    accept: Accept,
    lease_one: LeaseOne,
    written: Write,
    write_row: WriteRow,
    spec: IndexSpec,
) -> None:
    """Its lease ran out and nobody took the job, but its rows are gone."""
    await accept("handbook")
    stalled = await written(await lease_one(seconds=0.0))
    await write_row(stalled)
    await sweeper.sweep()
    assert await ledger.flip([stalled]) == {stalled.job.id: "lost"}
    assert not (await ledger.document("acme", None, "handbook")).visible


async def test_rows_are_removed_from_every_generation(
    ledger: Ledger,
    sweeper: Sweeper,
    store: MemoryStore,
    accept: Accept,
    lease_one: LeaseOne,
    written: Write,
    write_row: WriteRow,
    stored: Stored,
    spec: IndexSpec,
    switch: Switch,
) -> None:
    await accept("handbook")
    await write_row(await written(await lease_one(seconds=0.0)))
    other = replace(spec, parser="2")
    await store.prepare(other.generation, other)
    await ledger.build_generation(other, "hashing")
    await switch(other.generation, spec.generation)
    await sweeper.sweep()
    assert await stored() == []


async def test_rows_are_removed_from_a_generation_that_is_new_since_the_sweep_began(
    engine: AsyncEngine,
    store: MemoryStore,
    accept: Accept,
    lease_one: LeaseOne,
    written: Write,
    write_row: WriteRow,
    stored: Stored,
    spec: IndexSpec,
) -> None:
    other = replace(spec, parser="2")

    class HeldUp(Ledger):
        async def expire(self) -> None:
            await self.build_generation(other, "hashing")
            await store.prepare(other.generation, other)
            await write_row(late, other.generation)
            await super().expire()

    await accept("handbook")
    late = await written(await lease_one(seconds=0.0))
    await Sweeper(HeldUp(engine), store, lease=0, call_deadline=0).sweep()
    assert await stored(other.generation) == []


async def test_what_a_flip_is_about_to_show_is_not_retired_though_its_lease_ran_out(
    ledger: Ledger,
    engine: AsyncEngine,
    sweeper: Sweeper,
    accept: Accept,
    lease_one: LeaseOne,
    written: Write,
    write_row: WriteRow,
    stored: Stored,
) -> None:
    """Its rows would be removed, while readers are sent to them."""
    await accept("handbook")
    done = await written(await lease_one(seconds=0.0))
    await write_row(done)
    async with engine.begin() as connection:
        assert await visibility.flip(connection, [done]) == {done.job.id: "flipped"}
        sweeping = asyncio.create_task(sweeper.sweep())
        await asyncio.wait({sweeping}, timeout=0.3)
    await sweeping
    await sweeper.sweep()
    assert await stored() == [done.revision]


async def test_a_store_that_is_away_is_swept_when_it_is_back(
    ledger: Ledger,
    accept: Accept,
    lease_one: LeaseOne,
    written: Write,
    write_row: WriteRow,
    stored: Stored,
    store: MemoryStore,
) -> None:
    class Away(MemoryStore):
        async def remove(self, generation: str, revisions: Collection[int]) -> None:
            raise StoreUnavailable("away")

    await accept("handbook")
    await write_row(await written(await lease_one(seconds=0.0)))
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await Sweeper(ledger, Away(), lease=0, call_deadline=0).sweep()
    await Sweeper(ledger, store, lease=0, call_deadline=0).sweep()
    assert await stored() == []


async def test_what_nobody_wrote_is_not_swept(
    sweeper: Sweeper, accept: Accept, show: Callable[[], Awaitable[tuple[Flip, int]]]
) -> None:
    await accept("handbook")
    await show()
    assert await sweeper.sweep() == 0
