"""Jobs are leased to one worker at a time, fairly between tenants, and lost by nobody's death."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ingestion import visibility
from ingestion.documents import Accepted
from ingestion.errors import Conflict, NotFound
from ingestion.estimates import FIRST_LATENCY
from ingestion.leases import Leases
from ingestion.ledger import Ledger
from ingestion.queue import (
    LONG_AT_ONCE,
    MAX_ATTEMPTS,
    MAX_LOSSES,
    OLDEST_EVERY,
    SUSPECT_LOSSES,
    retry_delay,
)
from ingestion.types import Attempt, Job, JobError, JobQuery, Lease
from ingestion.written import Flip, Written

Accept = Callable[..., Awaitable[Job]]
LeaseOne = Callable[..., Awaitable[Lease]]
Write = Callable[[Lease], Awaitable[Written]]
Show = Callable[[], Awaitable[tuple[Flip, int]]]
SomebodyWaits = Callable[[], Awaitable[None]]

EXPIRED = 0.0
ABOUT = {"host": "here", "pid": 7, "version": "1", "lease": 15.0, "fresh": True, "stopping": False}
DOWN = JobError(code="store_unavailable", message="Milvus is down.")


class Silent:
    def finished(self, attempt: Attempt) -> None:
        pass


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


async def test_putting_many_documents_and_cancelling_their_jobs_never_wait_for_each_other(
    ledger: Ledger, engine: AsyncEngine, accept: Accept, somebody_waits: SomebodyWaits
) -> None:
    """Both lock several jobs: in the order of their ids, which is not that of their acceptance."""
    jobs = {name: await accept(name) for name in ("0001", "0002")}
    while min(jobs, key=lambda name: jobs[name].id) in ("0001", "0002"):
        name = f"{len(jobs) + 1:04}"
        jobs[name] = await accept(name)
    accepted = [
        Accepted(
            id=name,
            collection="default",
            title=None,
            filename=None,
            media_type="text/plain",
            size=1,
            content_hash=64 * "0",
            metadata={},
            groups=frozenset(),
        )
        for name in jobs
    ]
    async with engine.begin() as connection:
        second = {"id": jobs["0002"].id}
        await connection.execute(text("SELECT FROM jobs WHERE id = :id FOR UPDATE"), second)
        putting = asyncio.create_task(ledger.put("acme", accepted))
        await somebody_waits()
        cancelling = asyncio.create_task(ledger.cancel_jobs("acme", JobQuery()))
        await asyncio.sleep(0.2)
    assert len(await putting) == len(jobs)
    assert await cancelling in (0, len(jobs))


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
    assert await ledger.heartbeat([(lease.job.id, lease.job.fence)], 30) == {(lease.job.id, lease.job.fence)}
    assert await ledger.lease("other", 30, 10) == []


async def test_a_worker_that_leases_its_lapsed_job_again_does_not_keep_the_old_attempt(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne
) -> None:
    await accept("handbook")
    old, new = await lease_one("w", EXPIRED), await lease_one("w")
    leases = Leases(30, Silent())
    leases.take([old, new], time.monotonic())
    renewed = await ledger.heartbeat(leases.keys(), 30)
    leases.renew(leases.keys(), renewed, time.monotonic())
    assert (leases.holds(old), leases.holds(new)) == (False, True)


async def test_tenants_take_turns(ledger: Ledger, accept: Accept) -> None:
    for n in range(20):
        await accept(f"page-{n}", tenant="large")
    for n in range(3):
        await accept(f"page-{n}", tenant="small")
    batch = await ledger.lease("w", 30, 6)
    assert Counter(lease.job.tenant for lease in batch) == {"large": 3, "small": 3}


async def _order(ledger: Ledger, jobs: int) -> list[str]:
    """The tenants of the jobs that are leased, one after the other."""
    leased = [(await ledger.lease("w", 30, 1))[0].job for _ in range(jobs)]
    return [job.tenant for job in leased]


async def test_tenants_share_the_workers_by_work_and_not_by_the_number_of_documents(
    ledger: Ledger, accept: Accept
) -> None:
    for n in range(6):
        await accept(f"book-{n}", "x" * 100_000, tenant="books")
    for n in range(60):
        await accept(f"note-{n}", "x" * 500, tenant="notes")
    order = await _order(ledger, 63)
    assert order[0] == "books"
    assert order.index("books", 1) == 61, "a book costs as much as all the notes"


async def test_a_tenant_that_comes_later_neither_waits_for_all_nor_gets_all(
    ledger: Ledger, accept: Accept
) -> None:
    for n in range(30):
        await accept(f"page-{n}", tenant="early")
    assert await _order(ledger, 10) == ["early"] * 10
    for n in range(10):
        await accept(f"page-{n}", tenant="late")
    assert Counter(await _order(ledger, 10)) == {"early": 5, "late": 5}


async def test_a_tenant_that_had_much_is_not_held_to_it_for_good(
    ledger: Ledger, engine: AsyncEngine, accept: Accept
) -> None:
    await accept("book", "x" * 1_000_000, tenant="books")
    await _order(ledger, 1)
    await _pass(engine, "UPDATE shares SET at = at - interval '2 hours'")
    for n in range(4):
        await accept(f"page-{n}", tenant="books")
        await accept(f"page-{n}", tenant="notes")
    assert Counter(await _order(ledger, 4)) == {"books": 2, "notes": 2}


async def test_long_documents_leave_a_lane_to_the_others(ledger: Ledger, accept: Accept) -> None:
    for n in range(4):
        await accept(f"book-{n}", "x" * 1_000_000)
    note = await accept("note")
    leased = [(await ledger.lease("w", 30, 1))[0].job for _ in range(LONG_AT_ONCE + 1)]
    assert leased[-1].id == note.id
    assert await ledger.lease("w", 30, 1) == []
    assert len(await ledger.lease("another", 30, 1)) == 1


async def test_a_higher_priority_goes_before_its_own_tenant_s_others_only(
    ledger: Ledger, accept: Accept
) -> None:
    for n in range(4):
        await accept(f"page-{n}", tenant="other")
    await accept("low", priority=-5)
    await accept("normal")
    await accept("high", priority=5)
    leased = [(await ledger.lease("w", 30, 1))[0].job for _ in range(6)]
    assert [job.document_id for job in leased if job.tenant == "acme"] == ["high", "normal", "low"]
    assert Counter(job.tenant for job in leased) == {"acme": 3, "other": 3}
    assert leased[-1].priority in (0, -5)


async def test_a_low_priority_gets_on_while_higher_ones_keep_coming(ledger: Ledger, accept: Accept) -> None:
    low = await accept("low", priority=-10)
    leased: list[str] = []
    for n in range(OLDEST_EVERY):
        await accept(f"high-{n}", priority=10)
        await accept(f"more-{n}", priority=10)
        leased.append((await ledger.lease("w", 30, 1))[0].job.id)
    assert leased.count(low.id) == 1
    assert low.id not in leased[:4]


async def test_what_costs_much_is_leased_in_smaller_batches(
    ledger: Ledger, engine: AsyncEngine, accept: Accept
) -> None:
    for n in range(12):
        await accept(f"page-{n}", "x" * 1_000)
    batch = await ledger.lease("w", 30, 4)
    assert len(batch) == 4
    await ledger.release([lease.job for lease in batch])
    # The store or the embedder became slow: what ended last took ten seconds each.
    for n in range(4):
        await accept(f"slow-{n}", "x" * 1_000, tenant="zz")
    await _pass(
        engine,
        "UPDATE jobs SET state = 'succeeded', work = 10, leased_at = now(), finished_at = now() "
        "WHERE document_id LIKE 'slow-%'",
    )
    assert len(await ledger.lease("w", 30, 4)) == 2


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


async def test_a_document_that_is_suspected_takes_no_new_ones_along(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne
) -> None:
    suspected = await accept("page")
    for _ in range(SUSPECT_LOSSES + 1):
        await lease_one(seconds=EXPIRED)
    await accept("new")
    assert [lease.job.id for lease in await ledger.lease("w", 30, 10)] == [suspected.id]


async def test_a_job_that_is_cancelled_while_its_worker_gives_it_back_stays_so(
    ledger: Ledger, engine: AsyncEngine, accept: Accept, lease_one: LeaseOne, somebody_waits: SomebodyWaits
) -> None:
    job = await accept("page")
    lease = await lease_one()
    async with engine.connect() as other:
        await other.execute(text("UPDATE jobs SET state = 'cancelled', stage = 'done', finished_at = now()"))
        told = [
            asyncio.create_task(ledger.release([lease.job])),
            asyncio.create_task(ledger.fail(lease.job, DOWN)),
        ]
        await somebody_waits()
        await other.commit()
    await asyncio.gather(*told)
    assert (await ledger.job("acme", job.id)).state == "cancelled"


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


def test_tries_again_come_later_every_time_and_not_all_at_once() -> None:
    for attempts in range(MAX_ATTEMPTS):
        delays = {retry_delay(attempts) for _ in range(50)}
        assert len(delays) > 40
        assert all(0.5 * 2**attempts <= delay <= 1.5 * 2**attempts for delay in delays)


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


@pytest.fixture
async def worker(ledger: Ledger) -> str:
    """A worker that told of itself."""
    await ledger.present("here/7", ABOUT)
    return "here/7"


async def test_an_estimate_is_given_once_jobs_have_finished(
    ledger: Ledger, accept: Accept, show: Show, worker: str
) -> None:
    await accept("a")
    waiting = [await accept(name) for name in ("b", "c")]
    assert (await ledger.job("acme", waiting[0].id)).eta_seconds is None
    await show()
    etas = [(await ledger.job("acme", job.id)).eta_seconds for job in waiting]
    assert etas[0] is not None
    assert etas[1] is not None
    assert 0 < etas[0] < etas[1]


async def test_nothing_is_promised_while_nobody_works_or_nothing_may_begin(
    ledger: Ledger, accept: Accept, show: Show, worker: str
) -> None:
    await accept("a")
    job = await accept("b")
    await show()
    assert (await ledger.job("acme", job.id)).eta_seconds is not None
    await ledger.pause(None, "paused", "", "me")
    assert (await ledger.job("acme", job.id)).eta_seconds is None
    await ledger.resume(None)
    await ledger.leave(worker)
    assert (await ledger.job("acme", job.id)).eta_seconds is None
    assert (await ledger.queue("acme")).eta_seconds is None


async def test_an_estimate_follows_what_each_type_has_cost_and_how_much_got_done(
    ledger: Ledger, engine: AsyncEngine, accept: Accept, worker: str
) -> None:
    """A document costs something, and each byte; of two types differently."""
    for n in range(10):
        for size in (500, 100_000):
            await accept(f"text-{n}-{size}", "x" * size)
            await accept(f"pdf-{n}-{size}", "x" * size, media_type="application/pdf")
    await _done(
        engine, "CASE media_type WHEN 'text/plain' THEN 0.02 + 2e-5 * size ELSE 0.1 + 4e-6 * size END"
    )
    pdf = await accept("pdf", "x" * 200_000, media_type="application/pdf")
    page = await accept("page", "x" * 200_000)
    etas = [(await ledger.job("acme", job.id)).eta_seconds for job in (pdf, page)]
    in_a_second = (10 * 2 * (0.02 + 0.1) + 10 * 100_500 * 2.4e-5) / 21
    assert etas[0] == pytest.approx(FIRST_LATENCY + 0.9 / in_a_second, rel=0.1)
    assert etas[1] == pytest.approx(FIRST_LATENCY + (0.9 + 4.02) / in_a_second, rel=0.1)
    assert (await ledger.queue("acme")).eta_seconds == etas[1]


async def _done(engine: AsyncEngine, work: str) -> None:
    """All jobs ended now, in the last 21 seconds, and took so much work."""
    await _pass(
        engine,
        f"""
        UPDATE jobs SET state = 'succeeded', worker = 'here/7', created_at = now() - interval '1 hour',
            run_after = now() - interval '1 hour', leased_at = now() - interval '21 seconds',
            finished_at = now(), work = {work}
        """,
    )


@pytest.mark.parametrize(
    ("work", "plain", "pdf"),
    [
        pytest.param("0.02", (10, 60), (1, 15), id="fast"),
        pytest.param("0.2", (10, 150), (1, 30), id="slow"),
        pytest.param("0.02 + size * 2e-5", (10, 70), (1, 15), id="by size"),
    ],
)
async def test_tiny_documents_say_little_of_what_a_large_one_takes(
    ledger: Ledger,
    engine: AsyncEngine,
    accept: Accept,
    worker: str,
    work: str,
    plain: tuple[float, float],
    pdf: tuple[float, float],
) -> None:
    """By the bytes alone, 3 MB of text would take from five minutes to an hour."""
    for n in range(30):
        await accept(f"note-{n}", "x" * (150 + 5 * n))
    await _done(engine, work)
    costs = []
    for media_type in ("text/plain", "application/pdf"):
        await accept(f"large {media_type}", "x" * 3_000_000, media_type=media_type)
        [lease] = await ledger.lease("here/7", 60.0, 1)
        costs.append(await _work(engine, lease.job.id))
    assert plain[0] < costs[0] < plain[1]
    assert pdf[0] < costs[1] < pdf[1]


async def test_one_large_document_corrects_what_large_ones_are_taken_to_cost(
    ledger: Ledger, engine: AsyncEngine, accept: Accept, worker: str
) -> None:
    for n in range(30):
        await accept(f"note-{n}", "x" * 200)
    await accept("book", "x" * 3_000_000, media_type="application/pdf")
    await _done(engine, "CASE media_type WHEN 'text/plain' THEN 0.02 ELSE 90 END")
    costs = []
    for name, size, media_type in (("book-2", 2_000_000, "application/pdf"), ("note", 200, "text/plain")):
        await accept(name, "x" * size, media_type=media_type)
        [lease] = await ledger.lease("here/7", 60.0, 1)
        costs.append(await _work(engine, lease.job.id))
    assert costs[0] == pytest.approx(60, rel=0.25)
    assert costs[1] == pytest.approx(0.02, rel=0.5)


async def test_a_long_document_s_estimate_follows_what_it_got_done(
    ledger: Ledger, engine: AsyncEngine, accept: Accept, worker: str
) -> None:
    """The bytes of a PDF that is all text promise far too little."""
    for n in range(30):
        await accept(f"note-{n}", "x" * 200)
    await _done(engine, "0.02")
    job = await accept("manual", "x" * 3_000_000, media_type="application/pdf")
    await ledger.lease("here/7", 60.0, 1)
    promised = (await ledger.job("acme", job.id)).eta_seconds
    await _pass(
        engine,
        "UPDATE jobs SET stage = 'embed', done = 1800, total = 20000, moved_at = now(), "
        f"leased_at = now() - interval '100 seconds' WHERE id = '{job.id}'",
    )
    told = (await ledger.job("acme", job.id)).eta_seconds
    assert promised is not None
    assert told is not None
    assert promised < 200
    assert 600 < told < 800


async def _work(engine: AsyncEngine, job_id: str) -> float:
    async with engine.connect() as connection:
        found = await connection.scalar(text("SELECT work FROM jobs WHERE id = :id"), {"id": job_id})
    return float(found)


async def test_more_hosts_do_more(ledger: Ledger, accept: Accept, show: Show, worker: str) -> None:
    await accept("a")
    job = await accept("b", "x" * 1_000_000)
    await show()
    one = (await ledger.job("acme", job.id)).eta_seconds
    await ledger.present("there/7", {**ABOUT, "host": "there"})
    two = (await ledger.job("acme", job.id)).eta_seconds
    assert one is not None
    assert two is not None
    assert one / two == pytest.approx(2.0, rel=0.2)


async def test_a_tenant_s_place_is_after_as_much_work_of_every_other(ledger: Ledger, accept: Accept) -> None:
    for n in range(20):
        await accept(f"note-{n}", "x" * 488, tenant="notes")
    first, second = [await accept(f"book-{n}", "x" * 9_488, tenant="books") for n in range(2)]
    assert (await ledger.job("books", first.id)).position == 0
    assert (await ledger.job("books", second.id)).position == 1 + 10


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
    assert await ledger.jobs("other", limit=10) == []


async def test_jobs_are_listed_newest_first_and_by_state(ledger: Ledger, accept: Accept, show: Show) -> None:
    first, second = [await accept(name) for name in ("a", "b")]
    await show()
    assert [job.id for job in await ledger.jobs("acme", limit=10)] == [second.id, first.id]
    queued = JobQuery(states=("queued",))
    assert [job.id for job in await ledger.jobs("acme", queued, limit=10)] == [second.id]
    assert [job.id for job in await ledger.jobs("acme", limit=10, before=second.id)] == [first.id]
    since = JobQuery(since=second.created_at, states=("queued",))
    assert [job.id for job in await ledger.jobs("acme", since, limit=10)] == [second.id]
    later = JobQuery(since=second.created_at + timedelta(microseconds=1), states=("queued",))
    assert await ledger.jobs("acme", later, limit=10) == []


async def test_jobs_are_counted_listed_and_tried_again_by_reason(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne
) -> None:
    scan = JobError(code="needs_ocr", message="A scan.")
    for n in range(3):
        await accept(f"scan-{n}", collection="scans")
        await ledger.quarantine((await lease_one()).job, scan)
    await accept("broken")
    await ledger.quarantine((await lease_one()).job, JobError(code="damaged", message="Broken."))
    tallies = await ledger.tally("acme")
    assert {(one.state, one.reason): one.jobs for one in tallies} == {
        ("quarantined", "needs_ocr"): 3,
        ("quarantined", "damaged"): 1,
    }
    scans = JobQuery(states=("quarantined",), reason="needs_ocr", collection="scans")
    assert len(await ledger.jobs("acme", scans, limit=10)) == 3
    assert await ledger.jobs("other", scans, limit=10) == []
    assert await ledger.retry_jobs("acme", scans) == 3
    assert await ledger.retry_jobs("acme", scans) == 0
    assert (await ledger.queue("acme")).queued == 3


async def test_of_many_only_those_that_still_count_are_tried_again(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne
) -> None:
    for name in ("replaced", "deleted", "kept"):
        await accept(name)
        await ledger.quarantine((await lease_one()).job, DOWN)
    await accept("replaced", "two")
    await ledger.delete("acme", None, "deleted")
    assert await ledger.retry_jobs("acme", JobQuery(states=("quarantined",))) == 1


async def test_all_that_waits_and_runs_in_a_collection_can_be_cancelled(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne, written: Write
) -> None:
    await accept("a", collection="scans")
    running = await written(await lease_one())
    await accept("b", collection="scans")
    other = await accept("c")
    assert await ledger.cancel_jobs("acme", JobQuery(collection="scans")) == 2
    assert await ledger.flip([running]) == {running.job.id: "lost"}
    assert (await ledger.job("acme", other.id)).state == "queued"


async def test_what_has_ended_or_ends_meanwhile_is_not_cancelled_with_many(
    ledger: Ledger,
    engine: AsyncEngine,
    accept: Accept,
    lease_one: LeaseOne,
    written: Write,
    show: Show,
    somebody_waits: SomebodyWaits,
) -> None:
    ended = await accept("ended")
    await show()
    ending = await accept("ending")
    done = await written(await lease_one())
    waiting = await accept("waiting")
    async with engine.begin() as connection:
        await visibility.flip(connection, [done])
        cancelling = asyncio.create_task(ledger.cancel_jobs("acme", JobQuery()))
        await somebody_waits()
    assert await cancelling == 1
    states = [(await ledger.job("acme", job.id)).state for job in (ended, ending, waiting)]
    assert states == ["succeeded", "succeeded", "cancelled"]
    assert (await ledger.document("acme", None, "ending")).visible
    assert await ledger.cancel_jobs("acme", JobQuery()) == 0


async def test_a_caller_of_some_groups_changes_no_other_groups_jobs(ledger: Ledger, accept: Accept) -> None:
    await accept("secret", groups=frozenset({"board"}))
    await accept("open")
    staff = JobQuery(groups=frozenset({"staff"}))
    assert [job.document_id for job in await ledger.jobs("acme", staff, limit=10)] == ["open"]
    assert await ledger.cancel_jobs("acme", staff) == 1


@pytest.mark.parametrize("everybody", [True, False])
async def test_a_paused_queue_takes_documents_and_begins_none(
    ledger: Ledger, accept: Accept, everybody: bool
) -> None:
    await accept("before")
    held = await ledger.lease("w", EXPIRED, 1)
    await ledger.pause(None if everybody else "acme", "paused", "the disk is swapped", "me")
    await accept("after")
    await accept("elsewhere", tenant="other")
    leased = {lease.job.tenant for lease in await ledger.lease("w", 30, 10)}
    assert leased == (set() if everybody else {"other"})
    now = await ledger.queue("acme")
    assert (now.state, now.queued, now.running) == ("paused", 1, 1)
    assert now.pauses[0].reason == "the disk is swapped"
    await ledger.resume(None if everybody else "acme")
    assert {lease.job.document_id for lease in await ledger.lease("w", 30, 10)} >= {"before", "after"}
    assert held


async def test_a_queue_that_drains_says_when_nothing_runs_any_more(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne, written: Write
) -> None:
    await accept("a")
    done = await written(await lease_one())
    await accept("b")
    await ledger.pause(None, "draining", "", "me")
    assert (await ledger.queue(None)).state == "draining"
    assert await ledger.flip([done]) == {done.job.id: "flipped"}
    now = await ledger.queue(None)
    assert (now.state, now.queued) == ("drained", 1)


async def test_a_job_that_is_slow_is_told_from_one_whose_worker_is_lost(
    ledger: Ledger, engine: AsyncEngine, accept: Accept, lease_one: LeaseOne
) -> None:
    job = await accept("handbook")
    lease = await lease_one()
    assert (await ledger.job("acme", job.id)).pulse == "working"
    await ledger.parts([(lease.job, "page 12 of 400")])
    assert (await ledger.job("acme", job.id)).part == "page 12 of 400"
    await _pass(engine, "UPDATE jobs SET moved_at = moved_at - interval '10 minutes'")
    assert (await ledger.job("acme", job.id)).pulse == "slow"
    await ledger.progress("embed", [(lease.job, 1, 2)])
    now = await ledger.job("acme", job.id)
    assert (now.pulse, now.part) == ("working", None)
    await _pass(engine, "UPDATE jobs SET lease_until = now() - interval '1 second'")
    assert (await ledger.job("acme", job.id)).pulse == "lost"


async def test_workers_are_listed_with_what_they_hold_and_whether_they_are_heard_of(
    ledger: Ledger, engine: AsyncEngine, accept: Accept, worker: str
) -> None:
    await ledger.present("there/8", {**ABOUT, "host": "there", "pid": 8})
    await accept("handbook")
    await ledger.lease(worker, 30, 1)
    here, there = await ledger.workers()
    assert (here.state, here.jobs, there.state) == ("working", {"parse": 1}, "idle")
    await _pass(engine, "UPDATE workers SET beat_at = beat_at - interval '1 minute' WHERE pid = 8")
    assert [one.state for one in await ledger.workers()] == ["working", "lost"]
    assert (await ledger.operation()).workers == {"working": 1, "lost": 1}
    assert (await ledger.queue(None)).workers == 1
    await ledger.present(worker, {**ABOUT, "stopping": True})
    assert (await ledger.workers())[0].state == "stopping"
    assert (await ledger.queue(None)).workers == 0
    # Another has long taken its place: it is told of, and no alarm any more.
    await _pass(engine, "UPDATE workers SET beat_at = beat_at - interval '1 hour' WHERE pid = 8")
    assert [one.state for one in await ledger.workers()] == ["stopping", "lost"]
    assert (await ledger.operation()).workers == {"working": 1, "lost": 0}


async def test_an_operator_sees_what_waits_how_long_and_what_went_wrong(
    ledger: Ledger, engine: AsyncEngine, accept: Accept, lease_one: LeaseOne
) -> None:
    await accept("broken")
    await ledger.quarantine((await lease_one()).job, DOWN)
    await accept("waiting")
    await _pass(engine, "UPDATE jobs SET run_after = run_after - interval '90 seconds'")
    now = await ledger.operation()
    assert now.jobs == {"queued": 1, "running": 0, "failed": 0, "quarantined": 1}
    assert now.oldest_seconds == pytest.approx(90, abs=20)
    assert not now.paused


async def test_what_waits_again_is_counted_by_its_reason_and_has_waited_since_it_was_tried(
    ledger: Ledger, engine: AsyncEngine, accept: Accept, lease_one: LeaseOne
) -> None:
    await accept("tried")
    await ledger.release([(await lease_one()).job], DOWN, delay=5)
    await _pass(engine, "UPDATE jobs SET started_at = started_at - interval '90 seconds'")
    await accept("fresh")
    of_all, own, others = await ledger.operation(), await ledger.queue("acme"), await ledger.queue("globex")
    for now in (of_all, own):
        assert now.held_up == {"store_unavailable": 1}
        assert now.oldest_seconds == pytest.approx(90, abs=20)
    assert (of_all.jobs["queued"], own.queued) == (2, 2)
    assert (others.queued, others.held_up, others.oldest_seconds) == (0, {}, None)
    while batch := await ledger.lease("w", 30, 8):
        await ledger.quarantine(batch[0].job, DOWN)
        await _pass(engine, "UPDATE jobs SET run_after = now() - interval '1 second'")
    assert (await ledger.operation()).held_up == {}
