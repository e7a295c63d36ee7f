"""SQL about jobs at work: leasing, holding, ending.

A job is leased under a fence that rises with every lease. Whoever changes a running job first locks it,
in the order of ids, by its fence: a holder of an older one finds nothing to lock. A lease that ran out
counts as a loss (the worker died), an error that was raised as an attempt; outages count as neither.
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
from ingestion.jobs import COLUMNS, job_of, loads
from ingestion.types import Job, JobError, JobState, Lease, Stage

MAX_ATTEMPTS = 5
MAX_LOSSES = 20
SUSPECT_LOSSES = 3
"""From here on a job is leased alone, so that one that kills its workers takes no others with it."""
FIRST_RETRY = 1.0

_SOURCE = (
    "d.newest_version, d.deleted, d.collection, d.title, d.filename, d.media_type, d.size, "
    "d.content_hash, d.metadata, d.groups"
)
_JOB = ", ".join(f"j.{name}" for name in COLUMNS)
# A generation is filled with what readers see in the one that serves.
_SEEN = """
    s.version AS newest_version, s.version IS NULL AS deleted, s.collection, s.title, s.filename,
    s.media_type, coalesce(s.size, 0) AS size, s.content_hash, s.metadata, s.groups
    FROM jobs j LEFT JOIN visibility s
      ON s.tenant = j.tenant AND s.document_id = j.document_id AND s.generation = :serving
"""

_EXPIRED = text(
    f"""
    SELECT {_JOB}, {_SOURCE} FROM jobs j JOIN documents d ON d.tenant = j.tenant AND d.id = j.document_id
    WHERE j.state = 'running' AND j.lease_until < now() AND j.generation IS NULL
    ORDER BY j.losses >= {SUSPECT_LOSSES}, j.lease_until LIMIT :limit FOR UPDATE OF j SKIP LOCKED
    """
)
_EXPIRED_BACKFILL = text(
    f"""
    SELECT {_JOB}, {_SEEN} WHERE j.state = 'running' AND j.lease_until < now() AND j.generation = :generation
    ORDER BY j.losses >= {SUSPECT_LOSSES}, j.lease_until LIMIT :limit FOR UPDATE OF j SKIP LOCKED
    """
)
_QUEUED_BACKFILL = text(
    f"""
    SELECT {_JOB}, {_SEEN} WHERE j.state = 'queued' AND j.run_after <= now() AND j.generation = :generation
    ORDER BY j.seq LIMIT :limit FOR UPDATE OF j SKIP LOCKED
    """
)
# Tenants take turns: every tenant's first job comes before any tenant's second. The recursion steps from
# tenant to tenant over the index; `reach` is how far others may have locked the head of a queue.
_QUEUED = text(
    f"""
    WITH RECURSIVE tenants AS (
        (SELECT tenant FROM jobs WHERE state = 'queued' AND generation IS NULL ORDER BY tenant LIMIT 1)
        UNION ALL
        SELECT (SELECT n.tenant FROM jobs n
                WHERE n.state = 'queued' AND n.generation IS NULL AND n.tenant > t.tenant
                ORDER BY n.tenant LIMIT 1)
        FROM tenants t WHERE t.tenant IS NOT NULL
    ), turns AS MATERIALIZED (
        SELECT c.id, row_number() OVER (PARTITION BY t.tenant ORDER BY c.priority, c.seq) AS turn
        FROM tenants t CROSS JOIN LATERAL (
            SELECT q.id, q.priority, q.seq FROM jobs q
            WHERE q.state = 'queued' AND q.generation IS NULL AND q.tenant = t.tenant
              AND q.run_after <= now()
            ORDER BY q.priority, q.seq LIMIT :reach
        ) c
    )
    SELECT {_JOB}, {_SOURCE} FROM turns
    JOIN jobs j ON j.id = turns.id
    JOIN documents d ON d.tenant = j.tenant AND d.id = j.document_id
    WHERE j.state = 'queued' ORDER BY j.priority, turns.turn, j.seq LIMIT :limit
    FOR UPDATE OF j SKIP LOCKED
    """
)
_TAKE = text(
    """
    UPDATE jobs SET losses = losses + CASE state WHEN 'running' THEN 1 ELSE 0 END,
        state = 'running', stage = 'parse', done = 0, total = 0, fence = fence + 1, worker = :worker,
        lease_until = now() + make_interval(secs => :seconds), started_at = coalesce(started_at, now())
    WHERE id = ANY(CAST(:ids AS uuid[])) RETURNING id, fence, losses, started_at
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
    FROM held WHERE jobs.id = held.id RETURNING jobs.id
    """
)
_PROGRESS = text(
    f"""
    WITH held AS ({_HOLD})
    UPDATE jobs SET stage = :stage, done = p.done, total = p.total
    FROM held JOIN unnest(CAST(:ids AS uuid[]), CAST(:done AS int[]), CAST(:total AS int[]))
      AS p(id, done, total) ON p.id = held.id
    WHERE jobs.id = held.id
    """
)
_HELD = text(_HOLD)
_QUEUE_AGAIN = text(
    """
    UPDATE jobs SET state = 'queued', stage = 'waiting', attempts = attempts + :attempts,
        error = CAST(:error AS jsonb), run_after = now() + make_interval(secs => :delay),
        lease_until = NULL, worker = NULL
    WHERE id = ANY(CAST(:ids AS uuid[]))
    """
)
_END = text(
    """
    UPDATE jobs SET state = :state, stage = 'done', attempts = attempts + :attempts,
        error = CAST(:error AS jsonb), lease_until = NULL, worker = NULL, finished_at = now()
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
    """Take up to `limit` jobs, fewer if their documents exceed `max_bytes` together (but at least one)."""
    rows = await _expired(connection, _EXPIRED, {"limit": limit})
    room = limit - len(rows)
    if room > 0 and not _suspect(rows):
        rows += await connection.execute(_QUEUED, {"limit": room, "reach": 4 * limit})
    return await _take(connection, rows, worker, seconds, max_bytes)


async def lease_backfill(
    connection: AsyncConnection, worker: str, seconds: float, limit: int, max_bytes: int
) -> list[Lease]:
    """The same of jobs that fill a generation, all of them the same one."""
    states = await generations.states(connection)
    serving = next((one for one, state in states.items() if state == "serving"), None)
    building = generations.being_built(states)
    # One that makes no progress must not keep the others waiting.
    random.shuffle(building)
    for generation in building:
        values = {"generation": generation, "serving": serving}
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
    taken = await connection.execute(_TAKE, {"ids": _ids(chosen), "worker": worker, "seconds": seconds})
    changes = {change.id: change for change in taken}
    return [_lease_of(row, changes[row.id]) for row in chosen]


def _within(rows: Sequence[Row[Any]], max_bytes: int) -> list[Row[Any]]:
    chosen: list[Row[Any]] = []
    size = 0
    for row in rows:
        size += row.size
        if chosen and size > max_bytes:
            break
        chosen.append(row)
    return chosen


def _lease_of(row: Row[Any], change: Row[Any]) -> Lease:
    job = job_of(
        row, state="running", stage="parse", fence=change.fence, started_at=change.started_at, done=0, total=0
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


async def heartbeat(connection: AsyncConnection, held: Sequence[tuple[str, int]], seconds: float) -> set[str]:
    """Extend these leases; the ids of those that still hold."""
    renewed = await connection.scalars(_HEARTBEAT, {**_pairs(held), "seconds": seconds})
    return {str(job_id) for job_id in renewed}


async def progress(connection: AsyncConnection, stage: Stage, counts: Sequence[tuple[Job, int, int]]) -> None:
    """Record (job, done, total) of jobs that still hold."""
    held = _pairs((job.id, job.fence) for job, _, _ in counts)
    done, total = [done for _, done, _ in counts], [total for _, _, total in counts]
    await connection.execute(_PROGRESS, {**held, "stage": stage, "done": done, "total": total})


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
        await _queue_again(connection, held, error, FIRST_RETRY * 2**job.attempts, attempts=1)
    return last


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
