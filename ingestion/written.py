"""SQL about revisions whose rows are written, on their way to be seen: what every flip locks and ends.

Documents are locked in the order of their ids, then jobs and revisions, then the set of generations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ingestion.revisions import abandon
from ingestion.types import Job

Flip = Literal["flipped", "superseded", "lost", "generations_changed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A revision whose rows are in the store: `chunks` is their number in each generation. `characters` were
    embedded for it in `seconds`; reading and writing it took `handling` more. `reused` vectors were at
    hand. `called` is the title that its passages go by."""

    job: Job
    revision: int
    chunks: Mapping[str, int]
    characters: int = 0
    seconds: float = 0.0
    handling: float = 0.0
    reused: int = 0
    called: str | None = None


_LOCK_DOCUMENTS = text(
    """
    SELECT d.tenant, d.id, d.newest_version, d.deleted FROM documents d
    JOIN (SELECT DISTINCT * FROM unnest(CAST(:tenants AS text[]), CAST(:documents AS text[]))
          AS w(tenant, document_id)) AS t ON d.tenant = t.tenant AND d.id = t.document_id
    ORDER BY d.tenant, d.id FOR UPDATE OF d
    """
)
_LOCK_JOBS = text(
    """
    SELECT j.id, j.fence, j.state, r.state AS revision_state FROM jobs j
    JOIN unnest(CAST(:ids AS uuid[]), CAST(:revisions AS bigint[])) AS w(id, revision) ON j.id = w.id
    JOIN revisions r ON r.revision = w.revision AND r.job_id = j.id
    ORDER BY j.id FOR UPDATE OF j, r
    """
)
_VISIBLE = text("UPDATE revisions SET state = 'visible' WHERE revision = ANY(CAST(:revisions AS bigint[]))")
_SUCCEED = text(
    """
    UPDATE jobs SET state = 'succeeded', stage = 'done', done = w.chunks, total = w.chunks, error = NULL,
        lease_until = NULL, part = NULL, finished_at = now(),
        work = CASE WHEN w.work > 0 THEN w.work ELSE jobs.work END, reused = w.reused
    FROM unnest(CAST(:ids AS uuid[]), CAST(:chunks AS int[]), CAST(:work AS double precision[]),
                CAST(:reused AS int[]))
      AS w(id, chunks, work, reused) WHERE jobs.id = w.id
    """
)
_REUSED = text("UPDATE generations SET reused = reused + :reused WHERE id = :id")


async def lock_documents(
    connection: AsyncConnection, written: Sequence[Written]
) -> dict[tuple[str, str], Row[Any]]:
    rows = await connection.execute(_LOCK_DOCUMENTS, places(written))
    return {(row.tenant, row.id): row for row in rows}


async def lock_jobs(connection: AsyncConnection, written: Sequence[Written]) -> dict[str, Row[Any]]:
    values = {"ids": [one.job.id for one in written], "revisions": [one.revision for one in written]}
    return {str(row.id): row for row in await connection.execute(_LOCK_JOBS, values)}


def held(written: Written, job: Row[Any] | None) -> Literal["lost", "flipped"] | None:
    """How it ended already, None if its worker still holds the job."""
    if job is None or job.fence != written.job.fence:
        return "lost"
    if job.state == "succeeded" and job.revision_state != "writing":
        return "flipped"  # An earlier call committed and its answer was lost.
    if job.state != "running" or job.revision_state != "writing":
        return "lost"
    return None


async def succeed(connection: AsyncConnection, shown: Sequence[Written]) -> None:
    """End the jobs of revisions that are visible now."""
    ids, chunks = [one.job.id for one in shown], [max(one.chunks.values()) for one in shown]
    await connection.execute(_VISIBLE, {"revisions": [one.revision for one in shown]})
    work = [one.seconds + one.handling for one in shown]
    reused = [one.reused for one in shown]
    await connection.execute(_SUCCEED, {"ids": ids, "chunks": chunks, "work": work, "reused": reused})
    if any(reused):
        await connection.execute(_REUSED, {"reused": sum(reused), "id": min(shown[0].chunks)})
    await abandon(connection, ids)


def places(written: Sequence[Written]) -> dict[str, list[Any]]:
    return {
        "tenants": [one.job.tenant for one in written],
        "documents": [one.job.document_id for one in written],
    }
