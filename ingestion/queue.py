"""SQL about jobs at work: leasing, holding, ending.

A job is leased under a fence that rises with every lease. Whoever changes a running job first locks it,
in the order of ids, by its fence: a holder of an older one finds nothing to lock. A lease that ran out
counts as a loss (the worker died), an error that was raised as an attempt; outages count as neither.

Tenants share the workers by work, in seconds (start-time fair queueing): the work of each begins where what
it had ends, and whose begins first is leased first. Within a tenant priorities decide, but for every
`OLDEST_EVERY`-th job, which is the oldest: low ones get on, too.
"""

# SQL is put together from this file's constants only; every value is bound.
# ruff: noqa: S608

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ingestion import generations, revisions
from ingestion.estimates import COST, COSTS, FLOOR, HAD, OPEN, RATES, TAG, WAITING
from ingestion.jobs import COLUMNS, job_of, loads
from ingestion.types import Job, JobError, JobState, Lease, Stage

MAX_ATTEMPTS = 5
MAX_LOSSES = 20
SUSPECT_LOSSES = 3
"""From here on a job is leased alone, so that one that kills its workers takes no others with it."""
FIRST_RETRY = 1.0
OLDEST_EVERY = 8
LEASE_WORK = 20.0
"""Jobs that are leased together take no longer together, in seconds of work, unless one alone does. The more
a byte has cost lately, the fewer are leased at once."""
LONG_WORK = 5.0
LONG_AT_ONCE = 2
"""A worker holds no more jobs that take so long, to have a lane left for the others."""

_SOURCE = (
    "d.newest_version, d.deleted, d.collection, d.title, d.filename, d.media_type, d.size, "
    "d.content_hash, d.metadata, d.groups"
)
# What the job was accepted with is what its document has now, or the job is stale.
_JOB = ", ".join(f"j.{name}" for name in COLUMNS if name not in ("size", "media_type"))
# A generation is filled with what readers see, or saw (`generations.KEPT`).
_SEEN = """
    s.version AS newest_version, s.version IS NULL AS deleted, s.collection, s.title, s.filename,
    s.media_type, coalesce(s.size, 0) AS size, s.content_hash, s.metadata, s.groups
    FROM jobs j LEFT JOIN visibility s
      ON s.tenant = j.tenant AND s.document_id = j.document_id AND s.generation = :source
"""

_EXPIRED = text(
    f"""
    SELECT {_JOB}, {_SOURCE}, j.work AS cost
    FROM jobs j JOIN documents d ON d.tenant = j.tenant AND d.id = j.document_id
    WHERE j.state = 'running' AND j.lease_until < now() AND j.generation IS NULL
      AND {OPEN.format(tenant="j.tenant")}
    ORDER BY j.losses >= {SUSPECT_LOSSES}, j.lease_until LIMIT :limit FOR UPDATE OF j SKIP LOCKED
    """
)
_EXPIRED_BACKFILL = text(
    f"""
    SELECT {_JOB}, CAST(0 AS double precision) AS cost, {_SEEN}
    WHERE j.state = 'running' AND j.lease_until < now() AND j.generation = :generation
      AND {OPEN.format(tenant="NULL")}
    ORDER BY j.losses >= {SUSPECT_LOSSES}, j.lease_until LIMIT :limit FOR UPDATE OF j SKIP LOCKED
    """
)
_QUEUED_BACKFILL = text(
    f"""
    SELECT {_JOB}, CAST(0 AS double precision) AS cost, {_SEEN}
    WHERE j.state = 'queued' AND j.run_after <= now() AND j.generation = :generation
      AND {OPEN.format(tenant="NULL")}
    ORDER BY j.seq LIMIT :limit FOR UPDATE OF j SKIP LOCKED
    """
)
# The recursion steps from tenant to tenant over the index; `reach` is how far others may have locked the head
# of a queue. Of each tenant's next jobs, `place` is their order and `tag` where the work of each begins.
_QUEUED = text(
    f"""
    WITH RECURSIVE tenants AS (
        (SELECT tenant FROM jobs WHERE state = 'queued' AND generation IS NULL ORDER BY tenant LIMIT 1)
        UNION ALL
        SELECT (SELECT n.tenant FROM jobs n
                WHERE n.state = 'queued' AND n.generation IS NULL AND n.tenant > t.tenant
                ORDER BY n.tenant LIMIT 1)
        FROM tenants t WHERE t.tenant IS NOT NULL
    ), {RATES}, next AS (
        SELECT c.* FROM tenants t CROSS JOIN LATERAL (
            (SELECT q.id, q.tenant, q.priority, q.seq, q.size, q.media_type FROM jobs q
             WHERE {WAITING} AND q.tenant = t.tenant AND q.run_after <= now()
             ORDER BY q.priority, q.seq LIMIT :reach)
            UNION
            (SELECT q.id, q.tenant, q.priority, q.seq, q.size, q.media_type FROM jobs q
             WHERE {WAITING} AND q.tenant = t.tenant AND q.run_after <= now()
             ORDER BY q.seq LIMIT :oldest)
        ) c WHERE t.tenant IS NOT NULL AND {OPEN.format(tenant="t.tenant")}
    ), costs AS (
        SELECT q.*, {COST} AS cost, (
            SELECT count(*) FROM jobs h WHERE h.state = 'running' AND h.worker = :worker AND h.work > :long
        ) AS held FROM next q {COSTS}
    ), ordered AS (
        SELECT c.*, {TAG} AS tag, least(
            row_number() OVER (PARTITION BY c.tenant ORDER BY c.priority, c.seq),
            row_number() OVER (PARTITION BY c.tenant ORDER BY c.seq) * {OLDEST_EVERY}
              - coalesce(s.taken, 0) % {OLDEST_EVERY} - 0.5
        ) AS place
        FROM costs c LEFT JOIN shares s ON s.tenant = c.tenant CROSS JOIN {FLOOR}
        WHERE c.cost <= :long OR c.held < :long_at_once
    ), turns AS MATERIALIZED (
        SELECT id, seq, cost, place,
               tag - cost + sum(cost) OVER (PARTITION BY tenant ORDER BY place, seq) AS tag
        FROM ordered
    )
    SELECT {_JOB}, {_SOURCE}, turns.cost, turns.tag FROM turns
    JOIN jobs j ON j.id = turns.id
    JOIN documents d ON d.tenant = j.tenant AND d.id = j.document_id
    WHERE j.id = ANY (ARRAY(SELECT id FROM turns ORDER BY tag, place, seq LIMIT :reach))
      AND j.state = 'queued'
    ORDER BY turns.tag, turns.place, j.seq LIMIT :limit
    FOR UPDATE OF j SKIP LOCKED
    """
)
_TAKE = text(
    """
    UPDATE jobs SET losses = losses + CASE state WHEN 'running' THEN 1 ELSE 0 END,
        state = 'running', stage = 'parse', done = 0, total = 0, fence = fence + 1, worker = :worker,
        lease_until = now() + make_interval(secs => :seconds), started_at = coalesce(started_at, now()),
        leased_at = now(), moved_at = now(), part = NULL, work = taken.work
    FROM unnest(CAST(:ids AS uuid[]), CAST(:work AS double precision[])) AS taken(id, work)
    WHERE jobs.id = taken.id RETURNING jobs.id, fence, losses, started_at, leased_at
    """
)
_CHARGE = text(
    f"""
    INSERT INTO shares AS s (tenant, start, finish, taken, at)
    SELECT tenant, max(tag), min(tag) + sum(work), count(*), now()
    FROM unnest(CAST(:tenants AS text[]), CAST(:tags AS double precision[]),
                CAST(:work AS double precision[])) AS t(tenant, tag, work)
    GROUP BY tenant ORDER BY tenant
    ON CONFLICT (tenant) DO UPDATE SET start = greatest(s.start, excluded.start),
        finish = greatest({HAD}, excluded.finish), taken = s.taken + excluded.taken, at = now()
    """
)
_HOLD = """
    SELECT j.id FROM jobs j
    JOIN unnest(CAST(:ids AS uuid[]), CAST(:fences AS bigint[])) AS h(id, fence)
      ON j.id = h.id AND j.fence = h.fence
    WHERE j.state = 'running' ORDER BY j.id FOR UPDATE OF j
"""
_HEARTBEAT = text(
    f"""
    WITH held AS ({_HOLD})
    UPDATE jobs SET lease_until = now() + make_interval(secs => :seconds)
    FROM held WHERE jobs.id = held.id RETURNING jobs.id, fence
    """
)
_PROGRESS = text(
    f"""
    WITH held AS ({_HOLD})
    UPDATE jobs SET stage = :stage, done = p.done, total = p.total, part = NULL, moved_at = now()
    FROM held JOIN unnest(CAST(:ids AS uuid[]), CAST(:done AS int[]), CAST(:total AS int[]))
      AS p(id, done, total) ON p.id = held.id
    WHERE jobs.id = held.id
    """
)
_READING = text(
    f"""
    WITH held AS ({_HOLD})
    UPDATE jobs SET part = p.part, moved_at = now()
    FROM held JOIN unnest(CAST(:ids AS uuid[]), CAST(:parts AS text[])) AS p(id, part) ON p.id = held.id
    WHERE jobs.id = held.id AND stage = 'parse'
    """
)
_HELD = text(_HOLD)
_QUEUE_AGAIN = text(
    """
    UPDATE jobs SET state = 'queued', stage = 'waiting', attempts = attempts + :attempts,
        error = CAST(:error AS jsonb), run_after = now() + make_interval(secs => :delay),
        lease_until = NULL, worker = NULL, part = NULL
    WHERE id = ANY(CAST(:ids AS uuid[]))
    """
)
_END = text(
    """
    UPDATE jobs SET state = :state, stage = 'done', attempts = attempts + :attempts,
        error = CAST(:error AS jsonb), lease_until = NULL, part = NULL, finished_at = now()
    WHERE id = ANY(CAST(:ids AS uuid[]))
    """
)

SUPERSEDED = JobError(code="superseded", message="A newer version of the document was accepted.")
_CRASHED = JobError(
    code="crashed",
    message=f"The worker was lost {MAX_LOSSES} times while it read this document; it is not tried again.",
)


async def lease(
    connection: AsyncConnection, worker: str, seconds: float, limit: int, max_bytes: int
) -> list[Lease]:
    """Take up to `limit` jobs, fewer if their documents exceed `max_bytes` together, or the work that is
    leased at once (but at least one)."""
    rows = await _expired(connection, _EXPIRED, {"limit": limit})
    room = limit - len(rows)
    fresh: Sequence[Row[Any]] = []
    if room > 0 and not _suspect(rows):
        reach = {"limit": room, "reach": 4 * limit, "oldest": 1 + limit // OLDEST_EVERY}
        long = {"worker": worker, "long": LONG_WORK, "long_at_once": LONG_AT_ONCE}
        fresh = (await connection.execute(_QUEUED, {**reach, **long})).all()
    leases = await _take(connection, [*rows, *fresh], worker, seconds, max_bytes)
    taken = {lease.job.id for lease in leases}
    await _charge(connection, [row for row in fresh if str(row.id) in taken])
    return leases


async def _charge(connection: AsyncConnection, rows: Sequence[Row[Any]]) -> None:
    """Note what tenants have had. The last lock of a lease: whoever waits for it waits for nobody else."""
    if rows:
        values = {"tenants": [row.tenant for row in rows], "tags": [row.tag for row in rows]}
        await connection.execute(_CHARGE, {**values, "work": [row.cost for row in rows]})


async def lease_backfill(
    connection: AsyncConnection, worker: str, seconds: float, limit: int, max_bytes: int
) -> list[Lease]:
    """The same of jobs that fill a generation, all of them the same one."""
    states = await generations.states(connection)
    serving = next((one for one, state in states.items() if state == "serving"), None)
    filled = list(states)
    # One that makes no progress must not keep the others waiting.
    random.shuffle(filled)
    for generation in filled:
        source = generations.KEPT if states[generation] in generations.TRAFFIC else serving
        values = {"generation": generation, "source": source}
        rows = await _expired(connection, _EXPIRED_BACKFILL, {**values, "limit": limit})
        room = limit - len(rows)
        if room > 0 and not _suspect(rows):
            rows += await connection.execute(_QUEUED_BACKFILL, {**values, "limit": room})
        taken = await _take(connection, rows, worker, seconds, max_bytes)
        if taken:
            return taken
    return []


async def _expired(
    connection: AsyncConnection, query: TextClause, values: Mapping[str, Any]
) -> list[Row[Any]]:
    """Jobs whose worker was lost; one under suspicion comes alone."""
    rows = list(await connection.execute(query, values))
    healthy = [row for row in rows if not _suspect([row])]
    return healthy or rows[:1]


def _suspect(rows: Sequence[Row[Any]]) -> bool:
    return any(row.losses >= SUSPECT_LOSSES for row in rows)


async def _take(
    connection: AsyncConnection, rows: Sequence[Row[Any]], worker: str, seconds: float, max_bytes: int
) -> list[Lease]:
    crashed = [row for row in rows if row.losses + 1 >= MAX_LOSSES and row.state == "running"]
    stale = [row for row in rows if row.deleted or row.newest_version != row.version]
    await end(connection, _ids(stale), "cancelled", SUPERSEDED)
    await end(connection, _ids(row for row in crashed if row not in stale), "quarantined", _CRASHED)
    chosen = _within([row for row in rows if row not in stale and row not in crashed], max_bytes)
    if not chosen:
        return []
    work = [float(row.cost) for row in chosen]
    values = {"ids": _ids(chosen), "work": work, "worker": worker, "seconds": seconds}
    taken = await connection.execute(_TAKE, values)
    changes = {change.id: change for change in taken}
    return [_lease_of(row, changes[row.id]) for row in chosen]


def _within(rows: Sequence[Row[Any]], max_bytes: int) -> list[Row[Any]]:
    chosen: list[Row[Any]] = []
    size, work = 0, 0.0
    for row in rows:
        size += row.size
        work += row.cost
        if chosen and (size > max_bytes or work > LEASE_WORK):
            break
        chosen.append(row)
    return chosen


def _lease_of(row: Row[Any], change: Row[Any]) -> Lease:
    job = job_of(
        row,
        state="running",
        stage="parse",
        fence=change.fence,
        started_at=change.started_at,
        leased_at=change.leased_at,
        done=0,
        total=0,
    )
    return Lease(
        job=job,
        collection=row.collection,
        title=row.title,
        filename=row.filename,
        media_type=row.media_type,
        content_hash=row.content_hash,
        metadata=loads(row.metadata),
        groups=frozenset(row.groups),
    )


async def heartbeat(
    connection: AsyncConnection, held: Sequence[tuple[str, int]], seconds: float
) -> set[tuple[str, int]]:
    """Extend these leases; those that still hold."""
    renewed = await connection.execute(_HEARTBEAT, {**_pairs(held), "seconds": seconds})
    return {(str(row.id), row.fence) for row in renewed}


async def progress(connection: AsyncConnection, stage: Stage, counts: Sequence[tuple[Job, int, int]]) -> None:
    """Record (job, done, total) of jobs that still hold."""
    held = _pairs((job.id, job.fence) for job, _, _ in counts)
    done, total = [done for _, done, _ in counts], [total for _, _, total in counts]
    await connection.execute(_PROGRESS, {**held, "stage": stage, "done": done, "total": total})


async def reading(connection: AsyncConnection, parts: Sequence[tuple[Job, str]]) -> None:
    """Record which part of its document the reader of each of these jobs has reached."""
    held = _pairs((job.id, job.fence) for job, _ in parts)
    await connection.execute(_READING, {**held, "parts": [part for _, part in parts]})


async def release(
    connection: AsyncConnection, jobs: Iterable[Job], error: JobError | None, delay: float
) -> None:
    """Put jobs back into the queue, through no fault of theirs."""
    held = await _hold(connection, jobs)
    await _queue_again(connection, held, error, delay, attempts=0)


async def fail(connection: AsyncConnection, job: Job, error: JobError) -> bool:
    """Count an attempt that raised; True if it was the last one, else it is tried again later."""
    held = await _hold(connection, [job])
    last = job.attempts + 1 >= MAX_ATTEMPTS
    if last:
        await end(connection, held, "failed", error, attempts=1)
    else:
        await _queue_again(connection, held, error, retry_delay(job.attempts), attempts=1)
    return last


def retry_delay(attempts: int) -> float:
    """Seconds until the next try after so many: doubled every time, and jittered, so that jobs that failed
    together do not come back together."""
    return FIRST_RETRY * 2.0**attempts * random.uniform(0.5, 1.5)  # noqa: S311  (no secret)


async def quarantine(connection: AsyncConnection, job: Job, error: JobError) -> None:
    await end(connection, await _hold(connection, [job]), "quarantined", error)


async def end(
    connection: AsyncConnection,
    ids: Sequence[str],
    state: JobState,
    error: JobError | None = None,
    attempts: int = 0,
) -> None:
    """End jobs that the caller has locked; what they wrote and nobody sees is left to the sweeper."""
    if ids:
        values = {"ids": ids, "state": state, "error": error_json(error), "attempts": attempts}
        await connection.execute(_END, values)
        await revisions.abandon(connection, ids)


async def supersede(connection: AsyncConnection, outcomes: Mapping[str, str]) -> None:
    """End those of these jobs (locked by the caller) whose outcome is that something newer was accepted."""
    superseded = sorted(job_id for job_id, outcome in outcomes.items() if outcome == "superseded")
    await end(connection, superseded, "cancelled", SUPERSEDED)


async def _queue_again(
    connection: AsyncConnection, ids: Sequence[str], error: JobError | None, delay: float, attempts: int
) -> None:
    if ids:
        values = {"ids": ids, "error": error_json(error), "delay": delay, "attempts": attempts}
        await connection.execute(_QUEUE_AGAIN, values)
        await revisions.abandon(connection, ids)


async def _hold(connection: AsyncConnection, jobs: Iterable[Job]) -> list[str]:
    held = await connection.scalars(_HELD, _pairs((job.id, job.fence) for job in jobs))
    return [str(job_id) for job_id in held]


def error_json(error: JobError | None) -> str | None:
    if error is None:
        return None
    return json.dumps({"code": error.code, "message": error.message, "part": error.part})


def _pairs(held: Iterable[tuple[str, int]]) -> dict[str, Any]:
    pairs = list(held)
    return {"ids": [job_id for job_id, _ in pairs], "fences": [fence for _, fence in pairs]}


def _ids(rows: Iterable[Row[Any]]) -> list[str]:
    return [str(row.id) for row in rows]
