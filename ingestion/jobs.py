"""SQL about jobs as their owner sees them: reading, cancelling, trying again, one or many.

A queued job's position and every job's estimate are worked out when it is read (`estimates`).
"""

# SQL is put together from this file's constants only; every value is bound.
# ruff: noqa: S608

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ingestion import estimates, revisions
from ingestion.errors import Conflict, NotFound
from ingestion.rules import breaches_of
from ingestion.types import Job, JobError, JobQuery, JobState, Tally

MANY = 10_000
"""Jobs that are changed in one transaction."""
SLOW = 60
"""A job that does not get on for so many seconds, and for several times what it should take, is slow."""
SLOW_TIMES = 5

COLUMNS = (
    *("id", "tenant", "document_id", "version", "state", "stage", "done", "total", "attempts", "losses"),
    *("fence", "error", "traceparent", "created_at", "started_at", "finished_at", "generation"),
    *("priority", "size", "media_type", "worker", "part", "leased_at", "moved_at", "reused"),
    "warnings",
)
_PULSE = f"""
    CASE WHEN j.state <> 'running' THEN NULL WHEN j.lease_until < now() THEN 'lost'
         WHEN j.moved_at < now() - make_interval(secs => greatest({SLOW}, {SLOW_TIMES} * j.work)) THEN 'slow'
         ELSE 'working' END AS pulse
"""
_LIST = ", ".join([*(f"j.{name}" for name in COLUMNS), _PULSE])

# Jobs that fill a generation are no owner's.
_OWNED = "j.tenant = :tenant AND j.generation IS NULL"
_MEANT = f"""
    {_OWNED} AND (CAST(:states AS text[]) = '{{}}' OR j.state = ANY(CAST(:states AS text[])))
    AND (CAST(:ids AS uuid[]) = '{{}}' OR j.id = ANY(CAST(:ids AS uuid[])))
    AND (CAST(:reason AS text) IS NULL
         OR j.error IS NOT NULL AND j.error ->> 'code' = CAST(:reason AS text))
    AND (CAST(:since AS timestamptz) IS NULL
         OR coalesce(j.finished_at, j.created_at) >= CAST(:since AS timestamptz))
    AND (CAST(:collection AS text) IS NULL AND CAST(:groups AS text[]) IS NULL OR EXISTS (
        SELECT FROM documents d WHERE d.tenant = j.tenant AND d.id = j.document_id
          AND (CAST(:collection AS text) IS NULL OR d.collection = CAST(:collection AS text))
          AND (CAST(:groups AS text[]) IS NULL OR d.groups = '{{}}' OR d.groups && CAST(:groups AS text[]))))
"""
_ONE = text(f"SELECT {_LIST} FROM jobs j WHERE {_OWNED} AND j.id = :id")
_MANY = text(f"SELECT {_LIST} FROM jobs j WHERE {_OWNED} AND j.id = ANY(CAST(:ids AS uuid[])) ORDER BY j.seq")
_NEWEST = text(
    f"""
    SELECT {_LIST} FROM jobs j
    WHERE {_MEANT} AND (CAST(:before AS uuid) IS NULL
        OR j.seq < (SELECT b.seq FROM jobs b WHERE b.id = CAST(:before AS uuid) AND b.tenant = :tenant))
    ORDER BY j.seq DESC LIMIT :limit
    """
)
_TALLY = text(
    f"""
    SELECT j.state, CASE WHEN j.state <> 'succeeded' THEN j.error ->> 'code' END AS reason, count(*) AS jobs
    FROM jobs j WHERE {_MEANT} GROUP BY 1, 2 ORDER BY 1, 3 DESC, 2
    """
)
# Of all of a tenant's jobs, those without an error, which are nearly all, are counted by an index alone.
_TALLY_ALL = text(
    """
    SELECT state, reason, CAST(sum(jobs) AS bigint) AS jobs FROM (
        SELECT state, NULL AS reason, count(*) AS jobs FROM jobs
        WHERE tenant = :tenant AND state = ANY(CAST(:states AS text[])) AND generation IS NULL
          AND error IS NULL GROUP BY 1
        UNION ALL
        SELECT state, CASE WHEN state <> 'succeeded' THEN error ->> 'code' END, count(*) FROM jobs
        WHERE tenant = :tenant AND state = ANY(CAST(:states AS text[])) AND generation IS NULL
          AND error IS NOT NULL GROUP BY 1, 2
    ) AS counted GROUP BY 1, 2 ORDER BY 1, 3 DESC, 2
    """
)
_LOCKED = text(f"SELECT {_LIST} FROM jobs j WHERE {_OWNED} AND j.id = :id FOR UPDATE")
_DOCUMENT = text(
    "SELECT newest_version, deleted FROM documents WHERE tenant = :tenant AND id = :id FOR UPDATE"
)
_CANCEL = """
    UPDATE jobs j SET state = 'cancelled', stage = 'done', fence = j.fence + 1, lease_until = NULL,
        worker = NULL, part = NULL, error = NULL, finished_at = now()
"""
_RETRY = """
    UPDATE jobs j SET state = 'queued', stage = 'waiting', done = 0, total = 0, attempts = 0, losses = 0,
        error = NULL, run_after = now(), started_at = NULL, finished_at = NULL, leased_at = NULL,
        moved_at = NULL, worker = NULL, part = NULL
"""
_CANCEL_ONE = text(f"{_CANCEL} WHERE j.id = :id RETURNING {_LIST}")
_RETRY_ONE = text(f"{_RETRY} WHERE j.id = :id RETURNING {_LIST}")
# Locked in the order of ids, as whoever changes running jobs does.
_CANCEL_MANY = text(
    f"""
    WITH meant AS (SELECT j.id FROM jobs j WHERE {_MEANT} AND j.state IN ('queued', 'running')
                   ORDER BY j.id LIMIT {MANY} FOR UPDATE OF j)
    {_CANCEL} FROM meant WHERE j.id = meant.id RETURNING j.id
    """
)
# Locked in the order of documents, as a new version locks them: none can be accepted in between.
_RETRY_MANY = text(
    f"""
    WITH meant AS MATERIALIZED (
        SELECT j.id FROM jobs j JOIN documents e ON e.tenant = j.tenant AND e.id = j.document_id
        WHERE {_MEANT} AND j.state IN ('failed', 'quarantined', 'cancelled')
          AND NOT e.deleted AND e.newest_version = j.version
        ORDER BY e.tenant, e.id LIMIT {MANY} FOR UPDATE OF e, j
    )
    {_RETRY} FROM meant WHERE j.id = meant.id RETURNING j.id
    """
)


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
        priority=-row.priority,
        size=row.size,
        media_type=row.media_type,
        worker=row.worker,
        part=row.part,
        leased_at=row.leased_at,
        moved_at=row.moved_at,
        reused=row.reused,
        warnings=breaches_of(loads(row.warnings)),
        pulse=getattr(row, "pulse", None),
    )
    return replace(job, **changes) if changes else job


async def one(connection: AsyncConnection, tenant: str, job_id: str) -> Job:
    row = (await connection.execute(_ONE, _key(tenant, job_id))).one_or_none()
    if row is None:
        raise NotFound("job", job_id)
    return (await estimates.estimated(connection, tenant, [job_of(row)]))[0]


async def many(connection: AsyncConnection, tenant: str, ids: Sequence[str]) -> list[Job]:
    """These jobs, in the order they were accepted."""
    rows = await connection.execute(_MANY, {"tenant": tenant, "ids": ids})
    return await estimates.estimated(connection, tenant, [job_of(row) for row in rows])


async def newest(
    connection: AsyncConnection, tenant: str, query: JobQuery, before: str | None, limit: int
) -> list[Job]:
    """Jobs that are meant, the newest first; those accepted before the job `before`, if one is named."""
    page = {"before": _key(tenant, before)["id"] if before else None, "limit": limit}
    rows = await connection.execute(_NEWEST, {**_meant(tenant, query), **page})
    return await estimates.estimated(connection, tenant, [job_of(row) for row in rows])


async def tally(connection: AsyncConnection, tenant: str, query: JobQuery) -> list[Tally]:
    """How many there are in each state, by the reason."""
    if query == JobQuery(states=query.states):
        states = {"tenant": tenant, "states": list(query.states or get_args(JobState))}
        rows = await connection.execute(_TALLY_ALL, states)
    else:
        rows = await connection.execute(_TALLY, _meant(tenant, query))
    return [Tally(state=row.state, reason=row.reason, jobs=row.jobs) for row in rows]


async def cancel_many(connection: AsyncConnection, tenant: str, query: JobQuery) -> int:
    """End up to `MANY` of these that are not finished; how many that were."""
    ids = [str(one) for one in await connection.scalars(_CANCEL_MANY, _meant(tenant, query))]
    if ids:
        await revisions.abandon(connection, ids)
    return len(ids)


async def retry_many(connection: AsyncConnection, tenant: str, query: JobQuery) -> int:
    """Queue up to `MANY` of these again that have ended without success and whose document has no newer
    version; how many that were."""
    return len((await connection.scalars(_RETRY_MANY, _meant(tenant, query))).all())


def _meant(tenant: str, query: JobQuery) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "states": list(query.states),
        "ids": list(query.ids),
        "reason": query.reason,
        "since": query.since,
        "collection": query.collection,
        "groups": None if query.groups is None else sorted(query.groups),
    }


async def cancel(connection: AsyncConnection, tenant: str, job_id: str) -> Job:
    """End a job that is not finished. A running one's fence rises, so that its worker can do no more."""
    row = await _locked(connection, tenant, job_id)
    if row.state not in ("queued", "running"):
        raise Conflict(f"The job is {row.state}; only a queued or running job can be cancelled.")
    cancelled = (await connection.execute(_CANCEL_ONE, {"id": row.id})).one()
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
    return job_of((await connection.execute(_RETRY_ONE, {"id": row.id})).one())


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
