"""SQL about what may be seen: the flip that shows a revision, the check that readers make, the epoch.

A flip holds the document's row, its job, its revision and the set of generations; every other writer of
visibility holds the document's row too, so a document is never seen in two revisions of a generation.
"""

# SQL is put together from this file's constants only; every value is bound.
# ruff: noqa: S608

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ingestion import generations, queue
from ingestion.revisions import abandon
from ingestion.types import Job
from retrieval.types import Filter

Flip = Literal["flipped", "superseded", "lost", "generations_changed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A revision whose `chunks` rows are in the store, in each of these generations."""

    job: Job
    revision: int
    chunks: int
    generations: frozenset[str]


_THESE = "unnest(CAST(:tenants AS text[]), CAST(:documents AS text[])) AS t(tenant, document_id)"

_LOCK_DOCUMENTS = text(
    f"""
    SELECT d.tenant, d.id, d.newest_version, d.deleted FROM documents d
    JOIN (SELECT DISTINCT * FROM {_THESE}) AS t ON d.tenant = t.tenant AND d.id = t.document_id
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
_SHOWN_IN = text(
    "SELECT DISTINCT v.tenant, v.collection AS name FROM visibility v "
    f"JOIN {_THESE} USING (tenant, document_id)"
)
_SHOW = text(
    """
    INSERT INTO visibility (tenant, document_id, generation, revision, collection, groups)
    SELECT d.tenant, d.id, g.id, w.revision, d.collection, d.groups
    FROM unnest(CAST(:tenants AS text[]), CAST(:documents AS text[]), CAST(:revisions AS bigint[]))
      AS w(tenant, document_id, revision)
    JOIN documents d ON d.tenant = w.tenant AND d.id = w.document_id
    CROSS JOIN unnest(CAST(:generations AS text[])) AS g(id)
    ON CONFLICT (tenant, document_id, generation) DO UPDATE
    SET revision = excluded.revision, collection = excluded.collection, groups = excluded.groups
    RETURNING tenant, collection AS name
    """
)
_VISIBLE = text(
    """
    UPDATE revisions SET state = 'visible', chunks = w.chunks
    FROM unnest(CAST(:revisions AS bigint[]), CAST(:chunks AS int[])) AS w(revision, chunks)
    WHERE revisions.revision = w.revision
    """
)
_SUCCEED = text(
    """
    UPDATE jobs SET state = 'succeeded', stage = 'done', done = w.chunks, total = w.chunks, error = NULL,
        lease_until = NULL, worker = NULL, finished_at = now()
    FROM unnest(CAST(:ids AS uuid[]), CAST(:chunks AS int[])) AS w(id, chunks) WHERE jobs.id = w.id
    """
)
_RETIRE = text(
    f"""
    UPDATE revisions SET state = 'retired', retired_at = now(), look_at = now()
    FROM (SELECT DISTINCT * FROM {_THESE}) AS t
    WHERE revisions.tenant = t.tenant AND revisions.document_id = t.document_id AND state = 'visible'
      AND NOT EXISTS (SELECT FROM visibility v WHERE v.revision = revisions.revision)
    """
)
_HIDE = text(
    "DELETE FROM visibility WHERE tenant = :tenant AND document_id = :id RETURNING tenant, collection AS name"
)
_RETIRE_ALL = text(
    "UPDATE revisions SET state = 'retired', retired_at = now(), look_at = now() "
    "WHERE tenant = :tenant AND document_id = :id AND state IN ('writing', 'visible')"
)
_RAISE = text(
    """
    UPDATE collections SET epoch = epoch + 1
    FROM (SELECT c.tenant, c.name FROM collections c
          JOIN unnest(CAST(:tenants AS text[]), CAST(:names AS text[])) AS n(tenant, name)
            ON c.tenant = n.tenant AND c.name = n.name
          ORDER BY c.tenant, c.name FOR UPDATE OF c) AS changed
    WHERE collections.tenant = changed.tenant AND collections.name = changed.name
    """
)
_CHECK = text(
    """
    SELECT v.revision
    FROM unnest(CAST(:documents AS text[]), CAST(:revisions AS bigint[])) AS c(document_id, revision)
    JOIN visibility v ON v.tenant = :tenant AND v.document_id = c.document_id
      AND v.generation = :generation AND v.revision = c.revision
    WHERE (CAST(:groups AS text[]) IS NULL OR v.groups = '{}' OR v.groups && CAST(:groups AS text[]))
      AND (CAST(:collections AS text[]) = '{}' OR v.collection = ANY(CAST(:collections AS text[])))
      AND (CAST(:only AS text[]) = '{}' OR v.document_id = ANY(CAST(:only AS text[])))
    """
)
_CONTENTS = text(
    """
    SELECT v.document_id, v.revision, r.chunks FROM visibility v JOIN revisions r USING (revision)
    WHERE v.tenant = :tenant AND v.generation = :generation
      AND (CAST(:groups AS text[]) IS NULL OR v.groups = '{}' OR v.groups && CAST(:groups AS text[]))
      AND (CAST(:collections AS text[]) = '{}' OR v.collection = ANY(CAST(:collections AS text[])))
      AND (CAST(:only AS text[]) = '{}' OR v.document_id = ANY(CAST(:only AS text[])))
    ORDER BY v.document_id LIMIT :limit
    """
)
_EPOCHS = text(
    """
    SELECT name, epoch FROM collections
    WHERE tenant = :tenant
      AND (CAST(:names AS text[]) = '{}' OR name = ANY(CAST(:names AS text[]))) ORDER BY name
    """
)


async def flip(connection: AsyncConnection, written: Sequence[Written]) -> dict[str, Flip]:
    """Show each of these revisions if its fence holds, its version is the newest accepted, its document
    is not deleted and every serving generation was written. The outcome of each, by job id."""
    documents = await _lock_documents(connection, written)
    jobs = await _lock_jobs(connection, written)
    serving = await generations.lock_serving(connection)
    outcomes: dict[str, Flip] = {}
    shown: dict[tuple[str, str], Written] = {}
    for one in written:
        place = (one.job.tenant, one.job.document_id)
        outcome = _judge(one, jobs.get(one.job.id), documents[place], serving)
        if outcome == "flipped" and shown.setdefault(place, one) is not one:
            outcome = "superseded"
        outcomes[one.job.id] = outcome
    fresh = [one for one in shown.values() if jobs[one.job.id].state == "running"]
    if fresh:
        await _show(connection, fresh, serving)
    superseded = sorted(job_id for job_id, outcome in outcomes.items() if outcome == "superseded")
    await queue.end(connection, superseded, "cancelled", queue.SUPERSEDED)
    return outcomes


def _judge(written: Written, job: Row[Any] | None, document: Row[Any], serving: frozenset[str]) -> Flip:
    if job is None or job.fence != written.job.fence:
        return "lost"
    if job.state == "succeeded" and job.revision_state != "writing":
        return "flipped"  # An earlier call committed and its answer was lost.
    if job.state != "running" or job.revision_state != "writing":
        return "lost"
    if document.deleted or document.newest_version != written.job.version:
        return "superseded"
    return "flipped" if serving and serving <= written.generations else "generations_changed"


async def _lock_documents(
    connection: AsyncConnection, written: Sequence[Written]
) -> dict[tuple[str, str], Row[Any]]:
    rows = await connection.execute(_LOCK_DOCUMENTS, _places(written))
    return {(row.tenant, row.id): row for row in rows}


async def _lock_jobs(connection: AsyncConnection, written: Sequence[Written]) -> dict[str, Row[Any]]:
    values = {"ids": [one.job.id for one in written], "revisions": [one.revision for one in written]}
    return {str(row.id): row for row in await connection.execute(_LOCK_JOBS, values)}


async def _show(connection: AsyncConnection, fresh: Sequence[Written], serving: frozenset[str]) -> None:
    places, revisions = _places(fresh), [one.revision for one in fresh]
    changed = _names(await connection.execute(_SHOWN_IN, places))
    shown = {**places, "revisions": revisions, "generations": sorted(serving)}
    changed |= _names(await connection.execute(_SHOW, shown))
    chunks, ids = [one.chunks for one in fresh], [one.job.id for one in fresh]
    await connection.execute(_VISIBLE, {"revisions": revisions, "chunks": chunks})
    await connection.execute(_RETIRE, places)
    await connection.execute(_SUCCEED, {"ids": ids, "chunks": chunks})
    await abandon(connection, ids)
    await _raise_epochs(connection, changed)


async def hide(connection: AsyncConnection, tenant: str, document_id: str, collection: str) -> None:
    """Show no revision of a document (locked by the caller) to anybody."""
    key = {"tenant": tenant, "id": document_id}
    changed = _names(await connection.execute(_HIDE, key))
    await connection.execute(_RETIRE_ALL, key)
    await _raise_epochs(connection, changed | {(tenant, collection)})


async def visible(
    connection: AsyncConnection, generation: str, where: Filter, candidates: Collection[tuple[str, int]]
) -> frozenset[int]:
    values = {
        **_reach(generation, where),
        "documents": [document_id for document_id, _ in candidates],
        "revisions": [revision for _, revision in candidates],
    }
    return frozenset(await connection.scalars(_CHECK, values))


async def contents(
    connection: AsyncConnection, generation: str, where: Filter, limit: int
) -> list[tuple[str, int, int]]:
    rows = await connection.execute(_CONTENTS, {**_reach(generation, where), "limit": limit})
    return [(row.document_id, row.revision, row.chunks) for row in rows]


def _reach(generation: str, where: Filter) -> dict[str, Any]:
    return {
        "tenant": where.tenant,
        "generation": generation,
        "groups": None if where.groups is None else sorted(where.groups),
        "collections": list(where.collections),
        "only": list(where.document_ids),
    }


async def epoch(connection: AsyncConnection, where: Filter) -> str:
    rows = await connection.execute(_EPOCHS, {"tenant": where.tenant, "names": list(where.collections)})
    body = json.dumps([[row.name, row.epoch] for row in rows])
    return hashlib.sha256(body.encode()).hexdigest()[:32]


async def _raise_epochs(connection: AsyncConnection, changed: Collection[tuple[str, str]]) -> None:
    names = {"tenants": [tenant for tenant, _ in changed], "names": [name for _, name in changed]}
    await connection.execute(_RAISE, names)


def _names(rows: Iterable[Row[Any]]) -> set[tuple[str, str]]:
    return {(row.tenant, row.name) for row in rows}


def _places(written: Sequence[Written]) -> dict[str, list[str]]:
    return {
        "tenants": [one.job.tenant for one in written],
        "documents": [one.job.document_id for one in written],
    }
