"""SQL about revisions: numbers that are recorded before the first row is written, and what becomes of them.

A revision is `writing` until a flip makes it `visible` or it is `retired`; retired ones are looked at by
the sweeper at once and once more when no stalled writer can be left, and are `swept` then. A writer that
stood still for even longer says so, and its revision is looked at once more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from ingestion.types import Job

NOBODY = "!"
"""Begins what is no document's id."""

_BEGIN = text(
    """
    INSERT INTO revisions (revision, tenant, document_id, version, job_id, fence, state)
    SELECT nextval('revision_numbers'), j.tenant, j.document_id, j.version, j.id, j.fence, 'writing'
    FROM jobs j JOIN unnest(CAST(:ids AS uuid[]), CAST(:fences AS bigint[])) AS h(id, fence)
      ON j.id = h.id AND j.fence = h.fence
    WHERE j.state = 'running' RETURNING job_id, revision
    """
)
_ABANDON = text(
    "UPDATE revisions SET state = 'retired', retired_at = now(), look_at = now() "
    "WHERE job_id = ANY(CAST(:job_ids AS uuid[])) AND state = 'writing'"
)
_RETIRE_UNSEEN = text(
    """
    UPDATE revisions SET state = 'retired', retired_at = now(), look_at = now()
    FROM (SELECT DISTINCT * FROM unnest(CAST(:tenants AS text[]), CAST(:documents AS text[]))
          AS w(tenant, document_id)) AS t
    WHERE revisions.tenant = t.tenant AND revisions.document_id = t.document_id AND state = 'visible'
      AND NOT EXISTS (SELECT FROM visibility v WHERE v.revision = revisions.revision)
    """
)
# Locked ones are skipped: a flip is deciding about them.
_EXPIRE = text(
    """
    WITH lost AS (
        SELECT r.revision FROM revisions r LEFT JOIN jobs j ON j.id = r.job_id
        WHERE r.state = 'writing' AND NOT coalesce(
            j.state = 'running' AND j.fence = r.fence AND j.lease_until >= now(), false)
        LIMIT :limit FOR UPDATE OF r SKIP LOCKED
    )
    UPDATE revisions SET state = 'retired', retired_at = now(), look_at = now()
    FROM lost WHERE revisions.revision = lost.revision
    """
)
_DUE = text(
    """
    SELECT revision, retired_at + make_interval(secs => :window) < now() AS final
    FROM revisions WHERE state = 'retired' AND look_at <= now() ORDER BY look_at LIMIT :limit
    """
)
_LOOKED = text(
    """
    UPDATE revisions SET look_at = retired_at + make_interval(secs => :window)
    WHERE revision = ANY(CAST(:revisions AS bigint[])) AND state = 'retired'
    """
)
# A document that was erased is not known any more, nor what was written of it.
_SWEEP_AGAIN = text(
    """
    INSERT INTO revisions (revision, tenant, document_id, version, job_id, fence, state, retired_at, look_at)
    SELECT w.revision, w.tenant, :nobody, 0, gen_random_uuid(), 0, 'retired', now(), now()
    FROM unnest(CAST(:revisions AS bigint[]), CAST(:tenants AS text[])) AS w(revision, tenant)
    ORDER BY w.revision
    ON CONFLICT (revision) DO UPDATE SET state = 'retired', retired_at = now(), look_at = now()
    WHERE revisions.state IN ('retired', 'swept')
    """
)
# One whose writer told meanwhile that it wrote late is looked at again.
_SWEPT = text(
    "UPDATE revisions SET state = 'swept', look_at = NULL WHERE revision = ANY(CAST(:revisions AS bigint[])) "
    "AND state = 'retired' AND retired_at + make_interval(secs => :window) < now()"
)


async def begin(connection: AsyncConnection, jobs: Sequence[Job]) -> dict[str, int]:
    """A new revision for each of these jobs that still holds, by job id."""
    held = {"ids": [job.id for job in jobs], "fences": [job.fence for job in jobs]}
    return {str(row.job_id): row.revision for row in await connection.execute(_BEGIN, held)}


async def abandon(connection: AsyncConnection, job_ids: Sequence[str]) -> None:
    """Retire what these jobs (locked by the caller) wrote and did not make visible."""
    await connection.execute(_ABANDON, {"job_ids": job_ids})


async def retire_unseen(connection: AsyncConnection, places: Mapping[str, Sequence[str]]) -> None:
    """Retire the revisions of these documents (locked by the caller) that no generation shows any more."""
    await connection.execute(_RETIRE_UNSEEN, dict(places))


async def expire(connection: AsyncConnection, limit: int) -> None:
    """Retire what is being written under no lease any more."""
    await connection.execute(_EXPIRE, {"limit": limit})


async def sweep_again(connection: AsyncConnection, written: Mapping[int, str]) -> None:
    """Have rows of these revisions, given with their tenants, removed once more unless readers see them."""
    values = {"revisions": list(written), "tenants": list(written.values()), "nobody": NOBODY}
    await connection.execute(_SWEEP_AGAIN, values)


async def due(connection: AsyncConnection, window: float, limit: int) -> tuple[list[int], list[int]]:
    """Retired revisions to look at now: those to be looked at again, and those for the last time."""
    rows = (await connection.execute(_DUE, {"window": window, "limit": limit})).all()
    return [row.revision for row in rows if not row.final], [row.revision for row in rows if row.final]


async def looked(connection: AsyncConnection, seen: Sequence[int], window: float) -> None:
    await connection.execute(_LOOKED, {"revisions": seen, "window": window})


async def swept(connection: AsyncConnection, gone: Sequence[int], window: float) -> None:
    await connection.execute(_SWEPT, {"revisions": gone, "window": window})
