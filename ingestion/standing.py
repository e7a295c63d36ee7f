"""SQL about how the queue stands: for a tenant that waits, and for who operates it."""

# SQL is put together from this file's constants only; every value is bound.
# ruff: noqa: S608

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from ingestion import estimates, pauses
from ingestion.jobs import loads
from ingestion.types import Operation, Queue

_AWAKE = "beat_at > now() - make_interval(secs => lease)"
_THEIRS = "generation IS NULL AND (CAST(:tenant AS text) IS NULL OR tenant = CAST(:tenant AS text))"
# By what kept them from their end, if they were tried already: the delay until the next try is no new wait.
_WAITING = """
    SELECT sum(jobs) AS queued, coalesce(sum(bytes), 0) AS bytes, max(waited) AS oldest,
           jsonb_object_agg(code, jobs) FILTER (WHERE code IS NOT NULL) AS held_up
    FROM (SELECT error ->> 'code' AS code, count(*) AS jobs, sum(size) AS bytes,
                 extract(epoch FROM now() - min(coalesce(started_at, run_after))) AS waited
          FROM jobs WHERE state = 'queued' AND {theirs} GROUP BY 1) AS each
"""
# What waits and what runs are asked for apart, each of an index of its own: what has ended is not looked at.
_STANDING = text(
    f"""
    SELECT coalesce(waits.queued, 0) AS queued, waits.bytes, waits.oldest, waits.held_up,
        (SELECT count(*) FROM jobs WHERE state = 'running' AND {_THEIRS}) AS running,
        (SELECT count(*) FROM workers WHERE {_AWAKE} AND NOT stopping) AS workers,
        (SELECT count(*) / nullif(extract(epoch FROM now() - min(leased_at)), 0) FROM jobs
         WHERE state = 'succeeded' AND {_THEIRS} AND finished_at > now() - interval '1 minute') AS rate
    FROM ({_WAITING.format(theirs=_THEIRS)}) AS waits
    """
)
_ROOM = text(
    """
    SELECT count(*) AS jobs, coalesce(sum(size), 0) AS bytes FROM (
        SELECT size FROM jobs WHERE state = 'queued' AND generation IS NULL AND tenant = :tenant LIMIT :limit
    ) AS waiting
    """
)
_OPERATION = text(
    f"""
    SELECT
        (SELECT jsonb_object_agg(state, jobs) FROM (
            SELECT 'running' AS state, count(*) AS jobs FROM jobs
            WHERE state = 'running' AND generation IS NULL
            UNION ALL
            SELECT state, count(*) FROM jobs
            WHERE state IN ('failed', 'quarantined') AND generation IS NULL GROUP BY state) AS s) AS jobs,
        coalesce(waits.queued, 0) AS queued, waits.oldest, waits.held_up,
        (SELECT count(*) FROM workers WHERE {_AWAKE}) AS awake,
        (SELECT count(*) FROM workers
         WHERE NOT {_AWAKE} AND beat_at > now() - interval '1 hour') AS lost,
        EXISTS (SELECT FROM pauses WHERE tenant = '*') AS paused
    FROM ({_WAITING.format(theirs="generation IS NULL")}) AS waits
    """
)


async def queue(connection: AsyncConnection, tenant: str | None) -> Queue:
    """What waits and runs of a tenant, or of all (None)."""
    row = (await connection.execute(_STANDING, {"tenant": tenant})).one()
    return Queue(
        queued=int(row.queued),
        queued_bytes=int(row.bytes),
        running=row.running,
        oldest_seconds=None if row.oldest is None else max(0.0, float(row.oldest)),
        held_up=loads(row.held_up) or {},
        rate=None if row.rate is None else float(row.rate),
        eta_seconds=await _until_done(connection, tenant) if row.queued or row.running else 0.0,
        workers=row.workers,
        pauses=await pauses.of(connection, tenant),
    )


async def _until_done(connection: AsyncConnection, tenant: str | None) -> float | None:
    pace = await estimates.pace(connection, tenant or pauses.EVERYBODY)
    waiting = await estimates.lines(connection)
    if tenant is None:
        return pace.until(sum(line.work for line in waiting.values()))
    own = waiting.pop(tenant, None)
    if own is None:
        return pace.until(0.0)
    _, ahead = estimates.elsewhere(list(waiting.values()), own.tag + own.work)
    return pace.until(ahead + own.work)


async def waiting(connection: AsyncConnection, tenant: str, limit: int) -> tuple[int, int]:
    """How many jobs of a tenant wait, counted up to `limit`, and the bytes of these."""
    row = (await connection.execute(_ROOM, {"tenant": tenant, "limit": limit})).one()
    return row.jobs, int(row.bytes)


async def operation(connection: AsyncConnection) -> Operation:
    """What an operator watches."""
    row = (await connection.execute(_OPERATION)).one()
    return Operation(
        jobs={"queued": int(row.queued), "running": 0, "failed": 0, "quarantined": 0, **loads(row.jobs)},
        oldest_seconds=max(0.0, float(row.oldest or 0.0)),
        held_up=loads(row.held_up) or {},
        workers={"working": row.awake, "lost": row.lost},
        paused=row.paused,
    )
