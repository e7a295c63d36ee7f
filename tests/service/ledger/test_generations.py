"""A generation is built beside the one that serves, follows what happens to it, and takes over only whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ingestion.errors import Conflict
from ingestion.ledger import Ledger
from ingestion.queue import MAX_ATTEMPTS
from ingestion.reads import Reads
from ingestion.sweeper import Sweeper
from ingestion.types import Build, Job, JobError, Lease
from ingestion.written import Flip, Written
from retrieval.errors import StoreUnavailable
from retrieval.stores.memory import MemoryStore
from retrieval.types import Filter, IndexSpec

Accept = Callable[..., Awaitable[Job]]
LeaseOne = Callable[..., Awaitable[Lease]]
Write = Callable[..., Awaitable[Written]]
Show = Callable[[], Awaitable[tuple[Flip, int]]]
Switch = Callable[[str, str], Awaitable[None]]

SomebodyWaits = Callable[[], Awaitable[None]]

ACME = Filter(tenant="acme", groups=None)
BROKEN = JobError(code="damaged", message="It cannot be read.")


@pytest.fixture
async def other(spec: IndexSpec, ledger: Ledger) -> IndexSpec:
    """Another way to cut text."""
    return replace(spec, chunk_tokens=32)


@pytest.fixture
def shown(ledger: Ledger, reads: Reads) -> Callable[[IndexSpec], Awaitable[dict[str, int]]]:
    """The revision of every document that can be found in a generation."""

    async def shown(spec: IndexSpec) -> dict[str, int]:
        found = await reads.contents(spec.generation, ACME, 1_000)
        return {document: revision for document, revision, _ in found}

    return shown


Shown = Callable[[IndexSpec], Awaitable[dict[str, int]]]


@pytest.fixture
def status(ledger: Ledger, other: IndexSpec) -> Callable[[], Awaitable[Build]]:
    async def status() -> Build:
        build = await ledger.build(other.generation)
        assert build is not None
        return build

    return status


Status = Callable[[], Awaitable[Build]]


@pytest.fixture
def fill(ledger: Ledger, written: Write) -> Callable[[], Awaitable[dict[str, Flip]]]:
    """Take every job that fills a generation to its end; the outcomes by document."""

    async def fill() -> dict[str, Flip]:
        done = [await written(lease) for lease in await ledger.lease_backfill("b", 30, 50)]
        outcomes = await ledger.flip(done)
        return {one.job.document_id: outcomes[one.job.id] for one in done}

    return fill


Fill = Callable[[], Awaitable[dict[str, Flip]]]


async def _build(ledger: Ledger, spec: IndexSpec) -> None:
    await ledger.build_generation(spec, "hashing")


async def test_every_document_that_can_be_found_is_brought_into_a_new_generation(
    ledger: Ledger, accept: Accept, show: Show, spec: IndexSpec, other: IndexSpec, fill: Fill, shown: Shown
) -> None:
    for name in ("a", "b", "c"):
        await accept(name)
        await show()
    await ledger.delete("acme", None, "c")
    await _build(ledger, other)
    before = await shown(spec)
    assert await shown(other) == {}
    assert await fill() == {"a": "flipped", "b": "flipped"}
    assert (await shown(other)).keys() == before.keys()
    assert await shown(spec) == before
    assert not set((await shown(other)).values()) & set(before.values())


async def test_owners_are_told_nothing_of_jobs_that_fill_a_generation(
    ledger: Ledger, accept: Accept, show: Show, other: IndexSpec
) -> None:
    job = await accept("a")
    await show()
    await _build(ledger, other)
    (filling,) = await ledger.lease_backfill("b", 30, 1)
    assert [one.id for one in await ledger.jobs("acme", limit=10)] == [job.id]
    now = await ledger.queue(None)
    assert (now.queued, now.running) == (0, 0)
    assert filling.job.generation == other.generation
    assert await ledger.lease("w", 30, 10) == []


async def test_ordinary_jobs_are_leased_before_and_beside_any_number_of_those(
    ledger: Ledger, accept: Accept, show: Show, other: IndexSpec
) -> None:
    for n in range(30):
        await accept(f"page-{n}")
        await show()
    await _build(ledger, other)
    assert len(await ledger.lease_backfill("b", 30, 20)) == 20
    assert await ledger.waiting("acme", 100) == (0, 0), "they take no room from what is handed in"
    newest = await accept("newest")
    assert [lease.job.id for lease in await ledger.lease("w", 30, 10)] == [newest.id]


async def test_an_update_while_it_is_built_follows_and_the_older_version_never_shows(
    ledger: Ledger,
    accept: Accept,
    show: Show,
    other: IndexSpec,
    written: Write,
    fill: Fill,
    shown: Shown,
    status: Status,
) -> None:
    await accept("a", "one")
    await show()
    await _build(ledger, other)
    (lease,) = await ledger.lease_backfill("b", 30, 1)
    late = await written(lease)
    await accept("a", "two")
    await show()
    assert await ledger.flip([late]) == {late.job.id: "superseded"}
    assert await shown(other) == {}
    assert (await status()).behind == 1
    assert await fill() == {"a": "flipped"}
    assert (await status()).behind == 0


async def test_an_update_hides_the_version_before_it_in_a_generation_that_is_behind(
    ledger: Ledger, accept: Accept, show: Show, other: IndexSpec, fill: Fill, shown: Shown, status: Status
) -> None:
    await accept("a", "one")
    await show()
    await _build(ledger, other)
    await fill()
    await accept("a", "two")
    await show()
    assert await shown(other) == {}
    assert ((await status()).done, (await status()).behind) == (0, 1)


async def test_a_newer_version_that_cannot_be_read_leaves_the_visible_one_to_the_new_generation(
    ledger: Ledger,
    accept: Accept,
    show: Show,
    other: IndexSpec,
    lease_one: LeaseOne,
    fill: Fill,
    shown: Shown,
) -> None:
    first = await accept("a", "one", groups=frozenset({"staff"}))
    await show()
    await _build(ledger, other)
    await accept("a", "two")
    await ledger.quarantine((await lease_one()).job, BROKEN)
    (lease,) = await ledger.lease_backfill("b", 0.0, 1)
    assert (lease.job.version, lease.groups) == (first.version, frozenset({"staff"}))
    assert await fill() == {"a": "flipped"}
    assert (await shown(other)).keys() == {"a"}


async def test_a_document_deleted_while_it_is_built_is_gone_from_every_generation(
    ledger: Ledger,
    accept: Accept,
    show: Show,
    spec: IndexSpec,
    other: IndexSpec,
    written: Write,
    fill: Fill,
    shown: Shown,
    status: Status,
) -> None:
    for name in ("a", "b"):
        await accept(name)
        await show()
    await _build(ledger, other)
    late = [await written(lease) for lease in await ledger.lease_backfill("b", 30, 2)]
    await ledger.delete("acme", None, "a")
    await ledger.flip(late)
    await ledger.delete("acme", None, "b")
    assert (await shown(spec), await shown(other)) == ({}, {})
    assert await fill() == {}
    assert ((await status()).documents, (await status()).behind, (await status()).extra) == (0, 0, 0)


async def test_a_worker_that_dies_while_filling_loses_nothing_and_building_again_repeats_nothing(
    ledger: Ledger, accept: Accept, show: Show, other: IndexSpec, written: Write, fill: Fill, status: Status
) -> None:
    for n in range(4):
        await accept(f"page-{n}")
        await show()
    await _build(ledger, other)
    (done,) = [await written(lease) for lease in await ledger.lease_backfill("b", 30, 1)]
    await ledger.flip([done])
    await ledger.lease_backfill("dies", 0.0, 2)
    await _build(ledger, other)
    assert (await status()).behind == 3
    assert len(await fill()) == 3
    assert await fill() == {}
    assert ((await status()).done, (await status()).behind) == (4, 0)


async def test_what_cannot_be_put_into_it_is_counted_there_and_harms_no_document(
    ledger: Ledger,
    accept: Accept,
    show: Show,
    other: IndexSpec,
    shown: Shown,
    spec: IndexSpec,
    status: Status,
) -> None:
    job = await accept("a")
    _, revision = await show()
    await _build(ledger, other)
    (lease,) = await ledger.lease_backfill("b", 30, 1)
    await ledger.quarantine(lease.job, BROKEN)
    now = await status()
    assert (now.failed, now.behind, now.trouble) == ({"damaged": 1}, 0, None)
    assert await shown(spec) == {"a": revision}
    assert (await ledger.job("acme", job.id)).state == "succeeded"
    assert (await ledger.document("acme", None, "a")).visible


async def test_what_failed_of_a_version_before_is_no_failure_of_the_one_that_readers_see(
    ledger: Ledger, accept: Accept, show: Show, other: IndexSpec, status: Status
) -> None:
    """Or the generation would seem complete while that one is still to come."""
    await accept("a", "one")
    await show()
    await _build(ledger, other)
    (lease,) = await ledger.lease_backfill("b", 30, 1)
    await ledger.quarantine(lease.job, BROKEN)
    await accept("a", "two")
    await show()
    assert ((await status()).failed, (await status()).behind) == ({}, 1)


async def test_building_again_tries_again_what_failed(
    ledger: Ledger,
    accept: Accept,
    show: Show,
    other: IndexSpec,
    fill: Fill,
    status: Status,
    engine: AsyncEngine,
) -> None:
    await accept("a")
    await show()
    await _build(ledger, other)
    for _ in range(MAX_ATTEMPTS):
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE jobs SET run_after = now()"))
        (lease,) = await ledger.lease_backfill("b", 30, 1)
        await ledger.fail(lease.job, JobError(code="internal", message="A bug."))
    assert (await status()).failed == {"internal": 1}
    await _build(ledger, other)
    assert await fill() == {"a": "flipped"}
    assert (await status()).failed == {}


async def test_trouble_that_holds_it_up_is_told(
    ledger: Ledger, accept: Accept, show: Show, other: IndexSpec, status: Status
) -> None:
    await accept("a")
    await show()
    await _build(ledger, other)
    (lease,) = await ledger.lease_backfill("b", 30, 1)
    problem = JobError(code="embedder_unavailable", message="The embedder 'e5' is not installed.")
    await ledger.release([lease.job], problem, 5.0)
    assert (await status()).trouble == problem.message
    assert (await status()).behind == 1


async def test_its_cost_is_counted(
    ledger: Ledger, accept: Accept, show: Show, other: IndexSpec, written: Write, status: Status
) -> None:
    for name in ("a", "b"):
        await accept(name)
        await show()
    await _build(ledger, other)
    done = [await written(lease) for lease in await ledger.lease_backfill("b", 30, 2)]
    await ledger.flip([replace(one, characters=400, seconds=1.5) for one in done])
    now = await status()
    assert (now.chunks, now.tokens, now.embedding_seconds) == (6, 200, 3.0)


async def test_after_the_switch_every_job_writes_both_and_switching_back_loses_no_update(
    ledger: Ledger,
    accept: Accept,
    show: Show,
    spec: IndexSpec,
    other: IndexSpec,
    fill: Fill,
    switch: Switch,
    lease_one: LeaseOne,
    written: Write,
    shown: Shown,
) -> None:
    await accept("a", "one")
    await show()
    await _build(ledger, other)
    await fill()
    await switch(other.generation, spec.generation)
    assert await ledger.serving() == {spec.generation, other.generation}
    await accept("a", "two")
    done = await written(await lease_one())
    assert await ledger.flip([done]) == {done.job.id: "generations_changed"}
    both = replace(done, chunks={spec.generation: 3, other.generation: 5})
    assert await ledger.flip([both]) == {done.job.id: "flipped"}
    assert await shown(spec) == await shown(other) == {"a": done.revision}
    assert (await ledger.document("acme", None, "a")).chunks == 5
    await switch(spec.generation, other.generation)
    assert (await ledger.document("acme", None, "a")).chunks == 3
    assert await shown(spec) == {"a": done.revision}


async def test_a_switch_leaves_what_is_being_built_beside_it(
    ledger: Ledger, spec: IndexSpec, other: IndexSpec, switch: Switch
) -> None:
    third = replace(spec, chunk_tokens=128)
    await _build(ledger, other)
    await _build(ledger, third)
    await switch(other.generation, spec.generation)
    states = {one.id: one.state for one in await ledger.generations()}
    assert states == {spec.generation: "rollback", other.generation: "serving", third.generation: "building"}


async def test_no_job_that_fills_it_waits_after_the_switch(
    ledger: Ledger,
    engine: AsyncEngine,
    accept: Accept,
    show: Show,
    spec: IndexSpec,
    other: IndexSpec,
    lease_one: LeaseOne,
    written: Write,
    switch: Switch,
) -> None:
    """An ordinary one did its work, or it would be taken to hold the generation up."""
    await accept("a")
    await show()
    await _build(ledger, other)
    (lease,) = await ledger.lease_backfill("b", 30, 1)
    await ledger.release([lease.job], BROKEN)
    await ledger.join_generation(other.generation, 60.0)
    await accept("a", "two")
    await ledger.flip([await written(await lease_one(), other.generation)])
    await switch(other.generation, spec.generation)
    async with engine.connect() as connection:
        left = text("SELECT count(*) FROM jobs WHERE generation IS NOT NULL AND state = 'queued'")
        assert await connection.scalar(left) == 0


async def test_a_job_leased_before_the_switch_does_not_undo_it(
    ledger: Ledger,
    accept: Accept,
    show: Show,
    spec: IndexSpec,
    other: IndexSpec,
    fill: Fill,
    switch: Switch,
    written: Write,
    shown: Shown,
) -> None:
    """It fills a generation that ordinary jobs write by now."""
    await accept("a")
    await show()
    await _build(ledger, other)
    late = [await written(lease) for lease in await ledger.lease_backfill("stalls", 0.0, 1)]
    await fill()
    (now,) = (await shown(other)).values()
    await switch(other.generation, spec.generation)
    await ledger.flip(late)
    assert await shown(other) == {"a": now}


async def test_a_generation_that_joins_is_written_by_every_job_until_its_time_is_up(
    ledger: Ledger,
    accept: Accept,
    show: Show,
    spec: IndexSpec,
    other: IndexSpec,
    lease_one: LeaseOne,
    written: Write,
    shown: Shown,
    fill: Fill,
    status: Status,
) -> None:
    await _build(ledger, other)
    await ledger.join_generation(other.generation, 60.0)
    assert await ledger.serving() == {spec.generation, other.generation}
    await accept("a")
    done = await written(await lease_one())
    assert await ledger.flip([done]) == {done.job.id: "generations_changed"}
    both = replace(done, chunks={**done.chunks, other.generation: 5})
    await ledger.join_generation(other.generation, 0.0)
    assert await ledger.flip([both]) == {done.job.id: "flipped"}
    assert await shown(other) == {"a": done.revision}
    await accept("b")
    await show()
    assert (await status()).behind == 1
    assert await fill() == {"b": "flipped"}


async def test_a_backfill_that_ends_late_does_not_replace_what_an_ordinary_job_wrote_there(
    ledger: Ledger,
    accept: Accept,
    show: Show,
    other: IndexSpec,
    lease_one: LeaseOne,
    written: Write,
    shown: Shown,
) -> None:
    await accept("a")
    await show()
    await _build(ledger, other)
    (lease,) = await ledger.lease_backfill("b", 30, 1)
    late = await written(lease)
    await ledger.join_generation(other.generation, 60.0)
    await accept("a", "two")
    done = await written(await lease_one(), other.generation)
    assert await ledger.flip([done]) == {done.job.id: "flipped"}
    assert await ledger.flip([late]) == {late.job.id: "superseded"}
    assert await shown(other) == {"a": done.revision}


async def test_a_generation_that_no_release_may_come_back_to_is_removed_with_its_rows(
    ledger: Ledger,
    accept: Accept,
    show: Show,
    spec: IndexSpec,
    other: IndexSpec,
    fill: Fill,
    switch: Switch,
    shown: Shown,
    store: MemoryStore,
) -> None:
    third = replace(spec, chunk_tokens=128)
    await accept("a")
    await show()
    for new, old in ((other, spec), (third, other)):
        await store.prepare(new.generation, new)
        await _build(ledger, new)
        await fill()
        await switch(new.generation, old.generation)
    assert await ledger.serving() == {other.generation, third.generation}
    kept = await shown(other), await shown(third)
    sweeper = Sweeper(ledger, store, lease=0, call_deadline=0)
    await sweeper.sweep()
    assert {one.id for one in await ledger.generations()} == {other.generation, third.generation}
    assert await shown(spec) == {}
    assert (await shown(other), await shown(third)) == kept
    with pytest.raises(StoreUnavailable):
        await store.read(spec.generation, "acme", ["1-0"])


async def test_a_generation_in_which_something_is_still_shown_is_not_removed(
    ledger: Ledger,
    engine: AsyncEngine,
    accept: Accept,
    show: Show,
    other: IndexSpec,
    fill: Fill,
    shown: Shown,
    store: MemoryStore,
) -> None:
    for name in ("a", "b"):
        await accept(name)
        await show()
    await _build(ledger, other)
    await fill()
    await ledger.discard_generation(other.generation)
    sweeper = Sweeper(ledger, store, lease=0, call_deadline=0)
    async with engine.connect() as busy:
        await busy.execute(text("SELECT FROM documents WHERE id = 'b' FOR UPDATE"))
        await sweeper.sweep()
        assert (await shown(other)).keys() == {"b"}
        assert await ledger.generation(other.generation)
    await sweeper.sweep()
    assert await shown(other) == {}
    assert await ledger.generation(other.generation) is None


async def test_a_sweeper_that_was_held_up_hides_nothing_in_a_generation_that_is_built_again(
    ledger: Ledger,
    engine: AsyncEngine,
    accept: Accept,
    show: Show,
    other: IndexSpec,
    fill: Fill,
    shown: Shown,
    store: MemoryStore,
) -> None:
    """It had heard that the generation is retired, and another sweeper removed it meanwhile."""
    heard, held_up = asyncio.Event(), asyncio.Event()

    class HeldUp(Ledger):
        async def clear(self, generation: str) -> int:
            heard.set()
            await held_up.wait()
            return await super().clear(generation)

    await accept("a")
    await show()
    await _build(ledger, other)
    await fill()
    await ledger.discard_generation(other.generation)
    late = Sweeper(HeldUp(engine), store, lease=0, call_deadline=0)
    sweeping = asyncio.create_task(late.sweep())
    await heard.wait()
    await Sweeper(ledger, store, lease=0, call_deadline=0).sweep()
    await _build(ledger, other)
    await fill()
    held_up.set()
    await sweeping
    assert (await shown(other)).keys() == {"a"}


async def test_what_fills_a_generation_that_was_given_up_is_not_shown_there(
    ledger: Ledger, accept: Accept, show: Show, other: IndexSpec, written: Write, shown: Shown
) -> None:
    await accept("a")
    await show()
    await _build(ledger, other)
    (lease,) = await ledger.lease_backfill("b", 30, 10)
    done = await written(lease)
    await ledger.discard_generation(other.generation)
    assert await ledger.flip([done]) == {lease.job.id: "superseded"}
    assert await shown(other) == {}


async def test_what_fills_a_generation_waits_for_a_change_of_its_document(
    ledger: Ledger,
    engine: AsyncEngine,
    accept: Accept,
    show: Show,
    other: IndexSpec,
    written: Write,
    somebody_waits: SomebodyWaits,
) -> None:
    """Or it would show the text of the version before under the number of the new one."""
    await accept("a")
    await show()
    await _build(ledger, other)
    (lease,) = await ledger.lease_backfill("b", 30, 10)
    done = await written(lease)
    async with engine.connect() as changing:
        await changing.execute(text("SELECT FROM documents FOR UPDATE"))
        filling = asyncio.create_task(ledger.flip([done]))
        await somebody_waits()
    assert await filling == {lease.job.id: "flipped"}


async def test_a_generation_is_removed_when_a_store_that_was_away_is_back(
    ledger: Ledger, accept: Accept, show: Show, other: IndexSpec, store: MemoryStore
) -> None:
    class Away(MemoryStore):
        async def drop(self, generation: str) -> None:
            raise StoreUnavailable("away")

    await accept("a")
    await show()
    await _build(ledger, other)
    await ledger.discard_generation(other.generation)
    with pytest.raises(StoreUnavailable):
        await Sweeper(ledger, Away(), lease=0, call_deadline=0).sweep()
    with pytest.raises(Conflict, match="being removed"):
        await _build(ledger, other)
    assert await ledger.lease_backfill("b", 30, 10) == []
    await Sweeper(ledger, store, lease=0, call_deadline=0).sweep()
    await _build(ledger, other)
    assert len(await ledger.lease_backfill("b", 30, 10)) == 1


async def test_one_that_takes_traffic_is_not_given_up(ledger: Ledger, spec: IndexSpec) -> None:
    with pytest.raises(Conflict, match="serving"):
        await ledger.discard_generation(spec.generation)


async def test_rows_of_a_backfill_that_was_overtaken_are_swept_and_no_others(
    ledger: Ledger,
    accept: Accept,
    show: Show,
    spec: IndexSpec,
    other: IndexSpec,
    written: Write,
    fill: Fill,
    shown: Shown,
    engine: AsyncEngine,
) -> None:
    await accept("a", "one")
    await show()
    await _build(ledger, other)
    (lease,) = await ledger.lease_backfill("b", 30, 1)
    late = await written(lease)
    await accept("a", "two")
    await show()
    await ledger.flip([late])
    await fill()
    again, final = await ledger.due(0.0)
    gone = {*again, *final}
    assert late.revision in gone
    assert not gone & {*(await shown(spec)).values(), *(await shown(other)).values()}


async def test_who_looks_at_a_few_documents_looks_at_the_newest_too(
    ledger: Ledger, accept: Accept, show: Show, spec: IndexSpec
) -> None:
    """A store that was restored from a backup lacks that one, and has most of the others."""
    assert await ledger.some(spec.generation, 2) == []
    shown = {}
    for name in ("a", "b", "c", "d", "e", "f"):
        await accept(name)
        _, shown[name] = await show()
    seen = [await ledger.some(spec.generation, 2) for _ in range(30)]
    assert all(shown["f"] in {one.revision for one in found} for found in seen)
    assert {len(found) for found in seen} == {2}
    assert {one.revision for found in seen for one in found} > {shown["f"]}
