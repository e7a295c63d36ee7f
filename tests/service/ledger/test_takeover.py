"""A generation of another version of the product takes over at once, before anything is in it; what readers
could find before they find again, or something newer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ingestion import visibility
from ingestion.blobs import Blobs
from ingestion.errors import Conflict, Quarantined
from ingestion.ledger import Ledger
from ingestion.purger import Purger
from ingestion.reads import Reads
from ingestion.rules import Rules
from ingestion.sweeper import Sweeper
from ingestion.types import Job, JobError, Lease, Parsed
from ingestion.validation import Validation
from ingestion.written import Flip, Written
from retrieval.stores.memory import MemoryStore
from retrieval.types import Filter, IndexSpec

Accept = Callable[..., Awaitable[Job]]
LeaseOne = Callable[..., Awaitable[Lease]]
Write = Callable[..., Awaitable[Written]]
Show = Callable[[], Awaitable[tuple[Flip, int]]]
Switch = Callable[[str, str], Awaitable[None]]

ACME = Filter(tenant="acme", groups=None)
BROKEN = JobError(code="damaged", message="It cannot be read.")


@pytest.fixture
def upgraded(spec: IndexSpec) -> IndexSpec:
    """What the champion's index is to the next version of the product."""
    return replace(spec, parser="2")


@pytest.fixture
def sweep(ledger: Ledger, store: MemoryStore) -> Callable[[], Awaitable[int]]:
    return Sweeper(ledger, store, lease=0, call_deadline=0).sweep


Sweep = Callable[[], Awaitable[int]]


@pytest.fixture
def shown(reads: Reads) -> Callable[[IndexSpec], Awaitable[dict[str, int]]]:
    """The revision of every document that can be found in a generation."""

    async def shown(spec: IndexSpec) -> dict[str, int]:
        found = await reads.contents(spec.generation, ACME, 1_000)
        return {document: revision for document, revision, _ in found}

    return shown


Shown = Callable[[IndexSpec], Awaitable[dict[str, int]]]


@pytest.fixture
def fill(ledger: Ledger, written: Write) -> Callable[[], Awaitable[list[Lease]]]:
    """Take every job that fills a generation to its end."""

    async def fill() -> list[Lease]:
        leases = await ledger.lease_backfill("b", 30, 50)
        await ledger.flip([await written(lease) for lease in leases])
        return leases

    return fill


Fill = Callable[[], Awaitable[list[Lease]]]


@pytest.mark.parametrize("newest", ["quarantined", "cancelled", "queued"])
async def test_a_version_that_readers_saw_comes_back_where_a_newer_one_cannot_be_read(
    ledger: Ledger,
    reads: Reads,
    accept: Accept,
    show: Show,
    lease_one: LeaseOne,
    upgraded: IndexSpec,
    sweep: Sweep,
    fill: Fill,
    shown: Shown,
    newest: str,
) -> None:
    first = await accept("handbook", "one", groups=frozenset({"staff"}))
    await show()
    second = await accept("handbook", "two")
    if newest == "quarantined":
        await ledger.quarantine((await lease_one()).job, BROKEN)
    elif newest == "cancelled":
        await ledger.cancel("acme", second.id)
    await ledger.ensure_generation(upgraded, "hashing")
    await sweep()
    if newest == "queued":
        assert await ledger.lease_backfill("b", 30, 50) == [], "it may be read yet"
        await ledger.quarantine((await lease_one()).job, BROKEN)
        await sweep()
    epoch = await reads.epoch(ACME)
    (lease,) = await fill()
    assert (lease.job.version, lease.groups) == (first.version, frozenset({"staff"}))
    assert (await shown(upgraded)).keys() == {"handbook"}
    assert await reads.epoch(ACME) != epoch
    await sweep()
    assert await ledger.lease_backfill("b", 30, 50) == []


async def test_its_file_is_kept_until_a_newer_version_is_shown(
    ledger: Ledger,
    engine: AsyncEngine,
    accept: Accept,
    show: Show,
    lease_one: LeaseOne,
    written: Write,
    upgraded: IndexSpec,
    store: MemoryStore,
    sweep: Sweep,
    fill: Fill,
    tmp_path: Path,
) -> None:
    purger = Purger(ledger, store, Blobs(str(tmp_path)), window=0.0)
    await accept("handbook", "one")
    await show()
    await accept("handbook", "two")
    await ledger.quarantine((await lease_one()).job, BROKEN)
    await ledger.ensure_generation(upgraded, "hashing")
    await sweep()
    (filling,) = await ledger.lease_backfill("b", 30, 50)
    await ledger.quarantine(filling.job, BROKEN)
    for _ in range(2):
        await sweep()
        assert await purger.collect() == 0
        assert await fill() == [], "it is tried once"
    await accept("handbook", "three")
    done = replace(await written(await lease_one()), chunks={upgraded.generation: 3})
    assert await ledger.flip([done]) == {done.job.id: "flipped"}
    await sweep()
    assert await purger.collect() == 2
    async with engine.connect() as connection:
        left = await connection.scalars(text("SELECT generation FROM visibility"))
        assert left.all() == [upgraded.generation]


async def test_an_older_version_that_is_brought_back_late_does_not_replace_a_newer_one(
    ledger: Ledger,
    accept: Accept,
    show: Show,
    lease_one: LeaseOne,
    written: Write,
    upgraded: IndexSpec,
    sweep: Sweep,
    shown: Shown,
) -> None:
    for name in ("updated", "deleted"):
        await accept(name, "one")
        await show()
        await accept(name, "two")
        await ledger.quarantine((await lease_one()).job, BROKEN)
    await ledger.ensure_generation(upgraded, "hashing")
    await sweep()
    late = [await written(lease) for lease in await ledger.lease_backfill("b", 30, 50)]
    assert len(late) == 2
    await ledger.delete("acme", None, "deleted")
    await accept("updated", "three")
    done = replace(await written(await lease_one()), chunks={upgraded.generation: 3})
    await ledger.flip([done])
    await ledger.flip(late)
    assert await shown(upgraded) == {"updated": done.revision}


async def test_what_is_read_anew_needs_nothing_else(
    ledger: Ledger,
    engine: AsyncEngine,
    accept: Accept,
    show: Show,
    lease_one: LeaseOne,
    written: Write,
    upgraded: IndexSpec,
    sweep: Sweep,
    shown: Shown,
) -> None:
    await accept("handbook")
    _, before = await show()
    await ledger.ensure_generation(upgraded, "hashing")
    await sweep()
    assert [one.id for one in await ledger.generations()] == [upgraded.generation], "the other one is gone"
    assert await ledger.lease_backfill("b", 30, 50) == []
    done = replace(await written(await lease_one()), chunks={upgraded.generation: 3})
    await ledger.flip([done])
    await sweep()
    assert await shown(upgraded) == {"handbook": done.revision}
    async with engine.connect() as connection:
        states = text(f"SELECT state FROM revisions WHERE revision = {before}")
        assert await connection.scalar(states) == "swept"


async def test_what_comes_back_reaches_every_generation_beside_the_one_that_serves(
    ledger: Ledger,
    accept: Accept,
    show: Show,
    lease_one: LeaseOne,
    spec: IndexSpec,
    upgraded: IndexSpec,
    switch: Switch,
    sweep: Sweep,
    fill: Fill,
    shown: Shown,
) -> None:
    await accept("handbook", "one")
    await show()
    await accept("handbook", "two")
    await ledger.quarantine((await lease_one()).job, BROKEN)
    await ledger.ensure_generation(upgraded, "hashing")
    candidate, next_one = replace(upgraded, chunk_tokens=32), replace(upgraded, chunk_tokens=16)
    await ledger.build_generation(next_one, "hashing")
    await switch(next_one.generation, upgraded.generation)
    await ledger.build_generation(candidate, "hashing")
    await sweep()
    while await fill():
        pass
    for one in (upgraded, candidate, next_one):
        assert (await shown(one)).keys() == {"handbook"}


async def test_everything_is_read_anew_whatever_other_jobs_there_are_of_it(
    ledger: Ledger, accept: Accept, show: Show, lease_one: LeaseOne, spec: IndexSpec, upgraded: IndexSpec
) -> None:
    await accept("damaged before")
    await ledger.quarantine((await lease_one()).job, BROKEN)
    for name in ("damaged before", "in a candidate"):
        await accept(name, "two")
        await show()
    await ledger.build_generation(replace(spec, chunk_tokens=32), "hashing")
    await ledger.ensure_generation(upgraded, "hashing")
    leases = await ledger.lease("w", 30, 50)
    assert sorted(lease.job.document_id for lease in leases) == ["damaged before", "in a candidate"]


async def test_what_a_flip_shows_just_then_is_read_anew_too(
    ledger: Ledger,
    engine: AsyncEngine,
    accept: Accept,
    lease_one: LeaseOne,
    written: Write,
    upgraded: IndexSpec,
    somebody_waits: Callable[[], Awaitable[None]],
) -> None:
    await accept("handbook")
    done = await written(await lease_one())
    async with engine.begin() as connection:
        assert await visibility.flip(connection, [done]) == {done.job.id: "flipped"}
        taking_over = asyncio.create_task(ledger.ensure_generation(upgraded, "hashing"))
        await somebody_waits()
    await taking_over
    assert (await lease_one()).job.document_id == "handbook"


@pytest.mark.parametrize("act", [Ledger.ensure_generation, Ledger.build_generation])
async def test_processes_that_ask_for_an_index_at_once_do_not_block_each_other(
    ledger: Ledger,
    engine: AsyncEngine,
    upgraded: IndexSpec,
    act: Callable[[Ledger, IndexSpec, str], Awaitable[object]],
) -> None:
    """Held up together they go on together: as the first processes of an instance, or after an upgrade."""
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    async with engine.begin() as other, engine.connect() as looking, asyncio.timeout(10):
        await other.execute(text("LOCK TABLE generations IN SHARE MODE"))
        asking = [asyncio.ensure_future(act(ledger, upgraded, "hashing")) for _ in range(2)]
        while await looking.scalar(waiting) != len(asking):
            await looking.rollback()
            await asyncio.sleep(0.01)
    await asyncio.gather(*asking)
    assert upgraded.generation in {one.id for one in await ledger.generations()}


async def test_an_index_that_was_being_built_is_taken_over_as_it_is(
    ledger: Ledger, accept: Accept, show: Show, upgraded: IndexSpec, fill: Fill, shown: Shown
) -> None:
    await accept("handbook")
    await show()
    await ledger.build_generation(upgraded, "hashing")
    await fill()
    await ledger.ensure_generation(upgraded, "hashing")
    assert await ledger.lease("w", 30, 50) == []
    assert (await shown(upgraded)).keys() == {"handbook"}


async def test_what_was_let_in_once_is_not_refused_by_rules_that_came_later(
    ledger: Ledger, accept: Accept, show: Show, lease_one: LeaseOne, upgraded: IndexSpec
) -> None:
    await accept("handbook")
    await show()
    rules = Rules(min_characters=1_000, refuse=frozenset({"min_characters"}))
    await ledger.set_rules("acme", "default", rules)
    await ledger.ensure_generation(upgraded, "hashing")
    parsed = Parsed(title=None, text="text", blocks=())
    await Validation(ledger).check(await lease_one(), parsed)
    await accept("handbook", "another")
    with pytest.raises(Quarantined):
        await Validation(ledger).check(await lease_one(), parsed)


async def test_it_comes_back_to_the_version_of_the_product_before_as_well(
    ledger: Ledger,
    accept: Accept,
    show: Show,
    lease_one: LeaseOne,
    spec: IndexSpec,
    upgraded: IndexSpec,
    sweep: Sweep,
    fill: Fill,
    shown: Shown,
) -> None:
    await accept("handbook", "one")
    await show()
    await accept("handbook", "two")
    await ledger.quarantine((await lease_one()).job, BROKEN)
    await ledger.ensure_generation(upgraded, "hashing")
    with pytest.raises(Conflict, match="being removed"):
        await ledger.ensure_generation(spec, "hashing")
    await sweep()
    await ledger.ensure_generation(spec, "hashing")
    await sweep()
    assert len(await fill()) == 1
    assert (await shown(spec)).keys() == {"handbook"}
