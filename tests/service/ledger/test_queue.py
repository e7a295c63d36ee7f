"""Jobs are leased to one worker at a time, fairly between tenants, and lost by nobody's death."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ingestion.errors import Conflict, NotFound
from ingestion.ledger import Ledger
from ingestion.queue import MAX_ATTEMPTS, MAX_LOSSES, SUSPECT_LOSSES
from ingestion.types import Job, JobError, Lease
from ingestion.written import Flip, Written

Accept = Callable[..., Awaitable[Job]]
LeaseOne = Callable[..., Awaitable[Lease]]
Write = Callable[[Lease], Awaitable[Written]]
Show = Callable[[], Awaitable[tuple[Flip, int]]]

EXPIRED = 0.0
DOWN = JobError(code="store_unavailable", message="Milvus is down.")


async def _pass(engine: AsyncEngine, sql: str) -> None:
    """Let time pass for the ledger, by moving what it compares with now."""
    async with engine.begin() as connection:
        await connection.execute(text(sql))


async def test_a_job_is_leased_to_one_worker_only(ledger: Ledger, accept: Accept) -> None:
    for n in range(30):
        await accept(f"page-{n}")
    batches = await asyncio.gather(*(ledger.lease(f"w{n}", 30, 8) for n in range(6)))
    ids = [lease.job.id for batch in batches for lease in batch]
    assert len(ids) == len(set(ids))
    assert len(ids) + len(await ledger.lease("last", 30, 50)) == 30


async def test_a_lease_that_ran_out_goes_to_another_under_a_higher_fence(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne
) -> None:
    await accept("handbook")
    first = await lease_one(seconds=EXPIRED)
    second = await lease_one()
    assert second.job.id == first.job.id
    assert second.job.fence > first.job.fence
    assert await ledger.lease("w", 30, 10) == []


async def test_a_holder_of_an_old_fence_can_change_nothing(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne, written: Write
) -> None:
    await accept("handbook")
    zombie = await written(await lease_one("zombie", EXPIRED))
    current = await lease_one("current")
    assert await ledger.heartbeat([(zombie.job.id, zombie.job.fence)], 30) == set()
    assert await ledger.begin([zombie.job]) == {}
    await ledger.progress("index", [(zombie.job, 7, 7)])
    await ledger.release([zombie.job])
    await ledger.fail(zombie.job, DOWN)
    await ledger.quarantine(zombie.job, DOWN)
    assert await ledger.flip([zombie]) == {zombie.job.id: "lost"}
    now = await ledger.job("acme", zombie.job.id)
    assert (now.state, now.stage, now.done, now.fence) == ("running", "parse", 0, current.job.fence)


async def test_two_workers_never_both_succeed_in_one_job(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne, written: Write
) -> None:
    await accept("handbook")
    one = await written(await lease_one("one", EXPIRED))
    two = await written(await lease_one("two"))
    outcomes = await asyncio.gather(*(ledger.flip([each]) for each in (one, two, one, two)))
    assert [outcome[one.job.id] for outcome in outcomes] == ["lost", "flipped", "lost", "flipped"]


async def test_a_heartbeat_keeps_the_lease_from_others(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne
) -> None:
    await accept("handbook")
    lease = await lease_one(seconds=EXPIRED)
    assert await ledger.heartbeat([(lease.job.id, lease.job.fence)], 30) == {lease.job.id}
    assert await ledger.lease("other", 30, 10) == []


async def test_tenants_take_turns(ledger: Ledger, accept: Accept) -> None:
    for n in range(20):
        await accept(f"page-{n}", tenant="large")
    for n in range(3):
        await accept(f"page-{n}", tenant="small")
    batch = await ledger.lease("w", 30, 6)
    assert Counter(lease.job.tenant for lease in batch) == {"large": 3, "small": 3}


async def test_a_tenant_s_jobs_are_leased_in_the_order_of_acceptance(ledger: Ledger, accept: Accept) -> None:
    jobs = [await accept(name) for name in ("c", "a", "b")]
    leased = [(await ledger.lease("w", 30, 1))[0].job.id for _ in jobs]
    assert leased == [job.id for job in jobs]


async def test_large_documents_are_leased_in_smaller_batches(ledger: Ledger, accept: Accept) -> None:
    for n in range(3):
        await accept(f"page-{n}", "x" * 100)
    assert len(await ledger.lease("w", 30, 10, max_bytes=250)) == 2
    assert len(await ledger.lease("w", 30, 10, max_bytes=1)) == 1


async def test_a_document_that_keeps_losing_its_workers_is_quarantined(
    ledger: Ledger, accept: Accept
) -> None:
    job = await accept("killer")
    for _ in range(MAX_LOSSES):
        (lease,) = await ledger.lease("w", EXPIRED, 10)
        assert lease.job.id == job.id
    assert await ledger.lease("w", 30, 10) == []
    after = await ledger.job("acme", job.id)
    assert after.state == "quarantined"
    assert after.error is not None
    assert after.error.code == "crashed"


async def test_a_document_suspected_of_killing_workers_is_tried_alone(ledger: Ledger, accept: Accept) -> None:
    for n in range(4):
        await accept(f"page-{n}")
    for _ in range(SUSPECT_LOSSES + 1):
        assert len(await ledger.lease("w", EXPIRED, 10)) == 4
    assert len(await ledger.lease("w", EXPIRED, 10)) == 1


async def test_an_error_is_tried_again_later_and_fails_after_five_attempts(
    ledger: Ledger, engine: AsyncEngine, accept: Accept, lease_one: LeaseOne
) -> None:
    job = await accept("handbook")
    problem = JobError(code="internal", message="ValueError")
    for attempt in range(1, MAX_ATTEMPTS + 1):
        lease = await lease_one()
        assert await ledger.fail(lease.job, problem) == (attempt == MAX_ATTEMPTS)
        assert await ledger.lease("w", 30, 10) == []
        await _pass(engine, "UPDATE jobs SET run_after = now()")
    after = await ledger.job("acme", job.id)
    assert (after.state, after.attempts, after.error) == ("failed", MAX_ATTEMPTS, problem)
    assert after.finished_at is not None


async def test_an_outage_is_no_attempt(ledger: Ledger, accept: Accept, lease_one: LeaseOne) -> None:
    job = await accept("handbook")
    for _ in range(MAX_ATTEMPTS * 2):
        await ledger.release([(await lease_one()).job], DOWN)
    waiting = await ledger.job("acme", job.id)
    assert (waiting.state, waiting.attempts, waiting.error) == ("queued", 0, DOWN)


async def test_a_released_job_waits_as_long_as_it_was_told(
    ledger: Ledger, engine: AsyncEngine, accept: Accept, lease_one: LeaseOne
) -> None:
    await accept("handbook")
    await ledger.release([(await lease_one()).job], DOWN, delay=60)
    assert await ledger.lease("w", 30, 10) == []
    await _pass(engine, "UPDATE jobs SET run_after = run_after - interval '60 seconds'")
    assert len(await ledger.lease("w", 30, 10)) == 1


async def test_a_quarantined_job_says_why_and_where(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne
) -> None:
    job = await accept("handbook")
    problem = JobError(code="damaged", message="The page cannot be read.", part="page 7")
    await ledger.quarantine((await lease_one()).job, problem)
    after = await ledger.job("acme", job.id)
    assert (after.state, after.error) == ("quarantined", problem)


async def test_progress_is_readable_while_a_job_runs(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne
) -> None:
    job = await accept("handbook")
    lease = await lease_one()
    await ledger.progress("embed", [(lease.job, 3, 12)])
    now = await ledger.job("acme", job.id)
    assert (now.state, now.stage, now.done, now.total) == ("running", "embed", 3, 12)
    assert now.started_at is not None


async def test_a_queued_job_can_be_cancelled(ledger: Ledger, accept: Accept) -> None:
    job = await accept("handbook")
    assert (await ledger.cancel("acme", job.id)).state == "cancelled"
    assert await ledger.lease("w", 30, 10) == []


async def test_a_running_job_that_is_cancelled_never_shows(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne, written: Write
) -> None:
    job = await accept("handbook")
    done = await written(await lease_one())
    assert (await ledger.cancel("acme", job.id)).state == "cancelled"
    assert await ledger.heartbeat([(done.job.id, done.job.fence)], 30) == set()
    assert await ledger.flip([done]) == {job.id: "lost"}


async def test_an_ended_job_cannot_be_cancelled(ledger: Ledger, accept: Accept, show: Show) -> None:
    job = await accept("handbook")
    await show()
    with pytest.raises(Conflict, match="succeeded"):
        await ledger.cancel("acme", job.id)


async def test_a_quarantined_job_can_be_tried_again(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne, show: Show
) -> None:
    job = await accept("handbook")
    await ledger.quarantine((await lease_one()).job, DOWN)
    again = await ledger.retry("acme", job.id)
    assert (again.state, again.error, again.attempts) == ("queued", None, 0)
    assert (await show())[0] == "flipped"


async def test_a_job_of_an_older_version_cannot_be_tried_again(ledger: Ledger, accept: Accept) -> None:
    older = await accept("handbook", "one")
    await accept("handbook", "two")
    with pytest.raises(Conflict, match="newer version"):
        await ledger.retry("acme", older.id)


async def test_a_job_of_a_deleted_document_cannot_be_tried_again(ledger: Ledger, accept: Accept) -> None:
    job = await accept("handbook")
    await ledger.delete("acme", None, "handbook")
    with pytest.raises(Conflict, match="deleted"):
        await ledger.retry("acme", job.id)


async def test_a_job_says_how_many_are_ahead_of_it(ledger: Ledger, accept: Accept) -> None:
    first, second, third = [await accept(name) for name in ("a", "b", "c")]
    other = await accept("a", tenant="other")
    assert (await ledger.job("acme", first.id)).position == 0
    assert (await ledger.job("acme", second.id)).position == 2
    assert (await ledger.job("acme", third.id)).position == 3
    assert (await ledger.job("other", other.id)).position == 0


async def test_an_estimate_is_given_once_jobs_have_finished(
    ledger: Ledger, accept: Accept, show: Show
) -> None:
    await accept("a")
    waiting = [await accept(name) for name in ("b", "c")]
    assert (await ledger.job("acme", waiting[0].id)).eta_seconds is None
    await show()
    etas = [(await ledger.job("acme", job.id)).eta_seconds for job in waiting]
    assert etas[0] is not None
    assert etas[1] is not None
    assert 0 < etas[0] < etas[1]


@pytest.mark.parametrize("job_id", ["nonsense", "00000000-0000-0000-0000-000000000000", "\0"])
async def test_an_unknown_job_is_not_found(ledger: Ledger, job_id: str) -> None:
    for ask in (ledger.job, ledger.cancel, ledger.retry):
        with pytest.raises(NotFound):
            await ask("acme", job_id)


async def test_another_tenant_s_job_is_not_found(ledger: Ledger, accept: Accept) -> None:
    job = await accept("handbook")
    for ask in (ledger.job, ledger.cancel, ledger.retry):
        with pytest.raises(NotFound):
            await ask("other", job.id)
    assert await ledger.jobs("other", state=None, limit=10) == []


async def test_jobs_are_listed_newest_first_and_by_state(ledger: Ledger, accept: Accept, show: Show) -> None:
    first, second = [await accept(name) for name in ("a", "b")]
    await show()
    assert [job.id for job in await ledger.jobs("acme", state=None, limit=10)] == [second.id, first.id]
    assert [job.id for job in await ledger.jobs("acme", state="queued", limit=10)] == [second.id]
    assert await ledger.queue_depth() == {"queued": 1, "running": 0}
