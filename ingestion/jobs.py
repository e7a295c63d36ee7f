"""SQL about jobs as their owner sees them: reading, cancelling, trying again.

A queued job's position and every job's estimate are worked out when it is read.
"""

# SQL is put together from this file's constants only; every value is bound.
# ruff: noqa: S608

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ingestion import revisions
from ingestion.errors import Conflict, NotFound
from ingestion.types import Job, JobError, JobState

COLUMNS = (
    *("id", "tenant", "document_id", "version", "state", "stage", "done", "total", "attempts", "losses"),
    *("fence", "error", "traceparent", "created_at", "started_at", "finished_at", "generation"),
)
_LIST = ", ".join(COLUMNS)

# Jobs that fill a generation are no owner's.
_OWNED = "tenant = :tenant AND generation IS NULL"
_ONE = text(f"SELECT {_LIST} FROM jobs WHERE {_OWNED} AND id = :id")
_MANY = text(f"SELECT {_LIST} FROM jobs WHERE {_OWNED} AND id = ANY(CAST(:ids AS uuid[])) ORDER BY seq")
_NEWEST = text(f"SELECT {_LIST} FROM jobs WHERE {_OWNED} ORDER BY seq DESC LIMIT :limit")
_NEWEST_IN = text(
    f"SELECT {_LIST} FROM jobs WHERE {_OWNED} AND state = :state ORDER BY seq DESC LIMIT :limit"
)
_LOCKED = text(f"SELECT {_LIST} FROM jobs WHERE {_OWNED} AND id = :id FOR UPDATE")
_DOCUMENT = text(
    "SELECT newest_version, deleted FROM documents WHERE tenant = :tenant AND id = :id FOR UPDATE"
)
_CANCEL = text(
    f"""
    UPDATE jobs SET state = 'cancelled', stage = 'done', fence = fence + 1, lease_until = NULL,
        worker = NULL, error = NULL, finished_at = now()
    WHERE id = :id RETURNING {_LIST}
    """
)
_RETRY = text(
    f"""
    UPDATE jobs SET state = 'queued', stage = 'waiting', done = 0, total = 0, attempts = 0, losses = 0,
        error = NULL, run_after = now(), started_at = NULL, finished_at = NULL
    WHERE id = :id RETURNING {_LIST}
    """
)
_DEPTH = text(
    "SELECT state, count(*) AS jobs FROM jobs "
    "WHERE state IN ('queued', 'running') AND generation IS NULL GROUP BY state"
)
_PLACES = text(
    f"""
    SELECT id, place FROM (
        SELECT id, row_number() OVER (ORDER BY priority, seq) - 1 AS place
        FROM jobs WHERE state = 'queued' AND {_OWNED}
    ) AS queue WHERE id = ANY(CAST(:ids AS uuid[]))
    """
)
_WAITING = text(
    "SELECT tenant, count(*) AS jobs FROM jobs WHERE state = 'queued' AND generation IS NULL GROUP BY tenant"
)
# Jobs a second over those that succeeded lately.
_RATE = text(
    """
    SELECT count(*) / nullif(extract(epoch FROM max(finished_at) - min(started_at)), 0) AS rate
    FROM (SELECT started_at, finished_at FROM jobs
          WHERE state = 'succeeded' AND generation IS NULL AND finished_at > now() - interval '5 minutes'
          ORDER BY finished_at DESC LIMIT 200) AS recent
    """
)
_RUNNING = text("SELECT count(*) FROM jobs WHERE state = 'running' AND generation IS NULL")


def loads(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def job_of(row: Row[Any], **changes: Any) -> Job:
    error = loads(row.error)
    job = Job(
        id=str(row.id),
        tenant=row.tenant,
        document_id=row.document_id,
        version=row.version,
        state=row.state,
        stage=row.stage,
        done=row.done,
        total=row.total,
        attempts=row.attempts,
        fence=row.fence,
        error=JobError(**error) if error else None,
        traceparent=row.traceparent,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        generation=row.generation,
    )
    return replace(job, **changes)


async def one(connection: AsyncConnection, tenant: str, job_id: str) -> Job:
    row = (await connection.execute(_ONE, _key(tenant, job_id))).one_or_none()
    if row is None:
        raise NotFound("job", job_id)
    return (await _estimated(connection, tenant, [job_of(row)]))[0]


async def many(connection: AsyncConnection, tenant: str, ids: Sequence[str]) -> list[Job]:
    """These jobs, in the order they were accepted."""
    rows = await connection.execute(_MANY, {"tenant": tenant, "ids": ids})
    return await _estimated(connection, tenant, [job_of(row) for row in rows])


async def newest(connection: AsyncConnection, tenant: str, state: JobState | None, limit: int) -> list[Job]:
    query = _NEWEST if state is None else _NEWEST_IN
    values = {"tenant": tenant, "limit": limit} | ({} if state is None else {"state": state})
    return await _estimated(
        connection, tenant, [job_of(row) for row in await connection.execute(query, values)]
    )


async def depth(connection: AsyncConnection) -> dict[JobState, int]:
    found: dict[JobState, int] = {"queued": 0, "running": 0}
    return found | {row.state: row.jobs for row in await connection.execute(_DEPTH)}


async def cancel(connection: AsyncConnection, tenant: str, job_id: str) -> Job:
    """End a job that is not finished. A running one's fence rises, so that its worker can do no more."""
    row = await _locked(connection, tenant, job_id)
    if row.state not in ("queued", "running"):
        raise Conflict(f"The job is {row.state}; only a queued or running job can be cancelled.")
    cancelled = (await connection.execute(_CANCEL, {"id": row.id})).one()
    await revisions.abandon(connection, [job_id])
    return job_of(cancelled)


async def retry(connection: AsyncConnection, tenant: str, job_id: str) -> Job:
    """Queue an ended job again, if nothing newer was accepted for its document."""
    job = await one(connection, tenant, job_id)
    document = (await connection.execute(_DOCUMENT, {"tenant": tenant, "id": job.document_id})).one()
    row = await _locked(connection, tenant, job_id)
    if row.state not in ("failed", "quarantined", "cancelled"):
        raise Conflict(f"The job is {row.state}; only a failed, quarantined or cancelled one can be retried.")
    if document.deleted or document.newest_version != row.version:
        raise Conflict("The document was deleted or has a newer version; there is nothing to retry.")
    return job_of((await connection.execute(_RETRY, {"id": row.id})).one())


async def _locked(connection: AsyncConnection, tenant: str, job_id: str) -> Row[Any]:
    row = (await connection.execute(_LOCKED, _key(tenant, job_id))).one_or_none()
    if row is None:
        raise NotFound("job", job_id)
    return row


def _key(tenant: str, job_id: str) -> dict[str, str]:
    try:
        return {"tenant": tenant, "id": str(UUID(job_id))}
    except ValueError:
        raise NotFound("job", job_id) from None


async def _estimated(connection: AsyncConnection, tenant: str, jobs: Sequence[Job]) -> list[Job]:
    waiting = [job.id for job in jobs if job.state == "queued"]
    if not waiting and all(job.state != "running" for job in jobs):
        return list(jobs)
    ahead = await _ahead(connection, tenant, waiting) if waiting else {}
    rate = await connection.scalar(_RATE)
    running = await connection.scalar(_RUNNING) or 0

    def estimate(job: Job) -> Job:
        if job.state not in ("queued", "running"):
            return job
        position = ahead.get(job.id)
        eta = ((position or 0) + max(running, 1)) / float(rate) if rate else None
        return replace(job, position=position, eta_seconds=eta)

    return [estimate(job) for job in jobs]


async def _ahead(connection: AsyncConnection, tenant: str, ids: Sequence[str]) -> dict[str, int]:
    """Tenants take turns, so ahead of a tenant's n-th job are at most n of any other's."""
    places = await connection.execute(_PLACES, {"tenant": tenant, "ids": ids})
    others = [row.jobs for row in await connection.execute(_WAITING) if row.tenant != tenant]
    return {str(row.id): row.place + sum(min(jobs, row.place) for jobs in others) for row in places}
