"""Whatever the order in which jobs finish, the newest accepted version or delete is what readers see."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace

import pytest

from ingestion.errors import NotFound
from ingestion.ledger import Ledger
from ingestion.reads import Reads
from ingestion.types import Job, JobError, Lease
from ingestion.written import Flip, Written
from retrieval.types import Filter, IndexSpec

Accept = Callable[..., Awaitable[Job]]
LeaseOne = Callable[..., Awaitable[Lease]]
Write = Callable[[Lease], Awaitable[Written]]
Show = Callable[[], Awaitable[tuple[Flip, int]]]
Switch = Callable[[str, str], Awaitable[None]]

ACME = Filter(tenant="acme", groups=None)


@pytest.fixture
def seen(ledger: Ledger, reads: Reads, spec: IndexSpec) -> Callable[..., Awaitable[frozenset[int]]]:
    async def seen(document_id: str, revisions: Collection[int], where: Filter = ACME) -> frozenset[int]:
        return await reads.visible(spec.generation, where, [(document_id, n) for n in revisions])

    return seen


Seen = Callable[..., Awaitable[frozenset[int]]]


async def test_a_document_is_seen_once_its_job_succeeded(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne, written: Write, seen: Seen
) -> None:
    job = await accept("handbook")
    done = await written(await lease_one())
    assert await seen("handbook", [done.revision]) == frozenset()
    assert await ledger.flip([done]) == {job.id: "flipped"}
    assert await seen("handbook", [done.revision]) == {done.revision}
    after = await ledger.job("acme", job.id)
    assert (after.state, after.stage, after.done, after.total) == ("succeeded", "done", 3, 3)
    document = await ledger.document("acme", None, "handbook")
    assert (document.visible, document.chunks) == (True, 3)


async def test_an_older_version_that_finishes_last_does_not_show(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne, written: Write, seen: Seen
) -> None:
    first = await accept("handbook", "one")
    older = await written(await lease_one())
    await accept("handbook", "two")
    newer = await written(await lease_one())
    assert (await ledger.flip([newer]))[newer.job.id] == "flipped"
    assert (await ledger.flip([older]))[older.job.id] == "superseded"
    assert await seen("handbook", [older.revision, newer.revision]) == {newer.revision}
    after = await ledger.job("acme", first.id)
    assert after.state == "cancelled"
    assert after.error is not None
    assert after.error.code == "superseded"


async def test_an_older_version_never_shows_even_while_the_newer_is_waiting(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne, written: Write, seen: Seen
) -> None:
    await accept("handbook", "one")
    older = await written(await lease_one())
    await accept("handbook", "two")
    assert (await ledger.flip([older]))[older.job.id] == "superseded"
    assert await seen("handbook", [older.revision]) == frozenset()


async def test_the_older_revision_stays_visible_until_the_newer_one_is(
    ledger: Ledger, accept: Accept, show: Show, lease_one: LeaseOne, written: Write, seen: Seen
) -> None:
    await accept("handbook", "one")
    _, first = await show()
    await accept("handbook", "two")
    newer = await written(await lease_one())
    assert await seen("handbook", [first, newer.revision]) == {first}
    await ledger.flip([newer])
    assert await seen("handbook", [first, newer.revision]) == {newer.revision}


async def test_a_queued_older_version_is_cancelled_as_superseded(ledger: Ledger, accept: Accept) -> None:
    older = await accept("handbook", "one")
    await accept("handbook", "two")
    after = await ledger.job("acme", older.id)
    assert after.state == "cancelled"
    assert after.error is not None
    assert after.error.code == "superseded"


async def test_a_delete_overtaken_by_a_running_put_stays_deleted(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne, written: Write, seen: Seen
) -> None:
    job = await accept("handbook")
    late = await written(await lease_one())
    await ledger.delete("acme", None, "handbook")
    assert (await ledger.flip([late]))[job.id] == "lost"
    assert await seen("handbook", [late.revision]) == frozenset()
    with pytest.raises(NotFound):
        await ledger.document("acme", None, "handbook")
    assert (await ledger.job("acme", job.id)).state == "cancelled"


async def test_a_delete_with_a_put_still_queued_stays_deleted(ledger: Ledger, accept: Accept) -> None:
    await accept("handbook")
    await ledger.delete("acme", None, "handbook")
    assert await ledger.lease("w", 30, 10) == []
    with pytest.raises(NotFound):
        await ledger.document("acme", None, "handbook")


async def test_a_deleted_document_is_hidden_at_once(
    ledger: Ledger, accept: Accept, show: Show, seen: Seen
) -> None:
    await accept("handbook")
    _, revision = await show()
    deleted = await ledger.delete("acme", None, "handbook")
    assert await seen("handbook", [revision]) == frozenset()
    assert not deleted.visible
    with pytest.raises(NotFound):
        await ledger.delete("acme", None, "handbook")


async def test_a_document_re_created_after_its_delete_shows_the_new_one_only(
    ledger: Ledger, accept: Accept, show: Show, seen: Seen
) -> None:
    await accept("handbook", "one")
    _, first = await show()
    deleted = await ledger.delete("acme", None, "handbook")
    job = await accept("handbook", "two")
    assert job.version > deleted.version
    outcome, second = await show()
    assert outcome == "flipped"
    assert second > first
    assert await seen("handbook", [first, second]) == {second}


async def test_versions_rise_in_the_order_of_acceptance_however_many_come_at_once(
    ledger: Ledger, accept: Accept
) -> None:
    jobs = await asyncio.gather(*(accept("handbook", f"text {n}") for n in range(12)))
    newest = max(jobs, key=lambda job: job.version)
    assert (await ledger.document("acme", None, "handbook")).version == newest.version
    (lease,) = await ledger.lease("w", 30, 50)
    assert lease.job.id == newest.id
    assert (await ledger.queue(None)).queued == 0


async def test_a_generation_that_takes_over_during_the_work_sends_the_job_back(
    ledger: Ledger,
    reads: Reads,
    accept: Accept,
    lease_one: LeaseOne,
    written: Write,
    spec: IndexSpec,
    seen: Seen,
    switch: Switch,
) -> None:
    job = await accept("handbook")
    done = await written(await lease_one())
    other = _changed(spec)
    await ledger.build_generation(other, "hashing")
    await switch(other.generation, spec.generation)
    assert await ledger.flip([done]) == {job.id: "generations_changed"}
    assert await seen("handbook", [done.revision]) == frozenset()
    both = replace(done, chunks={**done.chunks, other.generation: 5})
    assert await ledger.flip([both]) == {job.id: "flipped"}
    for generation in (spec.generation, other.generation):
        assert await reads.visible(generation, ACME, [("handbook", done.revision)]) == {done.revision}


async def test_a_generation_begun_beside_flips_misses_no_document(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne, written: Write, spec: IndexSpec
) -> None:
    """Whichever comes first: a document is there when the jobs are queued, or its flip leaves one."""
    jobs = [await accept(f"page-{n}") for n in range(20)]
    done = [await written(await lease_one()) for _ in jobs]
    other = _changed(spec)
    flips = [asyncio.create_task(ledger.flip([one])) for one in done]
    await asyncio.gather(ledger.build_generation(other, "hashing"), *flips)
    assert all(outcome == "flipped" for flip in flips for outcome in flip.result().values())
    followers = {lease.job.document_id for lease in await ledger.lease_backfill("w", 30, 50)}
    assert followers == {job.document_id for job in jobs}


async def test_a_generation_of_another_version_of_the_product_takes_the_place_of_all_others(
    ledger: Ledger,
    reads: Reads,
    accept: Accept,
    show: Show,
    spec: IndexSpec,
    lease_one: LeaseOne,
    written: Write,
) -> None:
    await accept("handbook")
    await show()
    other = _changed(spec)
    before = await reads.epoch(ACME)
    await ledger.ensure_generation(other, "hashing")
    await ledger.ensure_generation(other, "hashing")
    assert await ledger.serving() == {other.generation}
    assert await reads.epoch(ACME) != before
    assert (await ledger.document("acme", None, "handbook")).status == "queued"
    lease = await lease_one()
    assert await ledger.lease("w", 30, 10) == []
    revision = (await ledger.begin([lease.job]))[lease.job.id]
    done = Written(job=lease.job, revision=revision, chunks={other.generation: 3})
    assert await ledger.flip([done]) == {lease.job.id: "flipped"}
    assert await reads.visible(other.generation, ACME, [("handbook", revision)]) == {revision}


async def test_what_waits_or_failed_or_was_deleted_gets_no_second_job_from_such_a_generation(
    ledger: Ledger, accept: Accept, show: Show, spec: IndexSpec, lease_one: LeaseOne
) -> None:
    for name in ("shown", "gone"):
        await accept(name)
        await show()
    await ledger.delete("acme", None, "gone")
    await accept("damaged")
    await ledger.quarantine((await lease_one()).job, JobError(code="damaged", message="It is."))
    await accept("waiting")
    other = _changed(spec)
    await asyncio.gather(*(ledger.ensure_generation(other, "hashing") for _ in range(3)))
    leases = await ledger.lease("w", 30, 10)
    assert sorted(lease.job.document_id for lease in leases) == ["shown", "waiting"]


async def test_one_failing_flip_of_a_batch_blocks_no_other(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne, written: Write
) -> None:
    for name in ("a", "b", "c"):
        await accept(name)
    first, second, third = [await written(await lease_one()) for _ in range(3)]
    await accept("a", "newer")
    await ledger.delete("acme", None, "b")
    outcomes = await ledger.flip([first, second, third])
    assert [outcomes[one.job.id] for one in (first, second, third)] == ["superseded", "lost", "flipped"]


async def test_a_flip_asked_again_after_a_lost_answer_says_flipped(
    ledger: Ledger, reads: Reads, accept: Accept, lease_one: LeaseOne, written: Write
) -> None:
    await accept("handbook")
    done = await written(await lease_one())
    await ledger.flip([done])
    epoch = await reads.epoch(ACME)
    assert await ledger.flip([done]) == {done.job.id: "flipped"}
    assert await reads.epoch(ACME) == epoch


async def test_flips_puts_and_deletes_of_the_same_documents_never_block_each_other_for_good(
    ledger: Ledger, accept: Accept, written: Write
) -> None:
    names = [f"page-{n}" for n in range(12)]
    for name in names:
        await accept(name)
    leases = await ledger.lease("w", 30, 50)
    done = [await written(lease) for lease in leases]

    async def delete(name: str) -> None:
        await ledger.delete("acme", None, name)

    results = await asyncio.gather(
        ledger.flip(done[:8]),
        ledger.flip(list(reversed(done[4:]))),
        ledger.heartbeat([(lease.job.id, lease.job.fence) for lease in reversed(leases)], 30),
        *(accept(name, "newer") for name in reversed(names[::2])),
        *(delete(name) for name in names[::3]),
    )
    assert len(results) == 3 + 6 + 4
    again = [lease.job.document_id for lease in await ledger.lease("w", 30, 50)]
    assert len(set(again)) == len(again)


def _changed(spec: IndexSpec) -> IndexSpec:
    return replace(spec, parser="2")
