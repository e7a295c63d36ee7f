"""SQL about what may be seen: the flip that shows a revision, what hides it, the epoch. What readers ask is
in `reads`.

A flip holds the document's row, its job, its revision and the set of generations; every other writer of
visibility holds the document's row too, so a document is never seen in two revisions of a generation.
Generations being built hold what their readers will see of the same version, or nothing: a flip empties
the document's place there and leaves a job to fill it again.
"""

# SQL is put together from this file's constants only; every value is bound.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ingestion import backfill, epochs, generations, queue
from ingestion.revisions import retire_unseen
from ingestion.types import GenerationState
from ingestion.written import Flip, Written, held, lock_documents, lock_jobs, places, succeed

_THESE = "unnest(CAST(:tenants AS text[]), CAST(:documents AS text[])) AS t(tenant, document_id)"

_SHOWN_IN = text(
    "SELECT DISTINCT v.tenant, v.collection AS name FROM visibility v "
    f"JOIN {_THESE} USING (tenant, document_id)"
)
# One row is one document in one generation, with its number of rows there.
_SHOW = text(
    """
    INSERT INTO visibility (tenant, document_id, generation, revision, version, chunks, collection, groups,
                            title, called, filename, media_type, size, content_hash, metadata)
    SELECT d.tenant, d.id, w.generation, w.revision, d.newest_version, w.chunks, d.collection, d.groups,
           d.title, w.called, d.filename, d.media_type, d.size, d.content_hash, d.metadata
    FROM unnest(CAST(:tenants AS text[]), CAST(:documents AS text[]), CAST(:revisions AS bigint[]),
                CAST(:generations AS text[]), CAST(:chunks AS int[]), CAST(:called AS text[]))
      AS w(tenant, document_id, revision, generation, chunks, called)
    JOIN documents d ON d.tenant = w.tenant AND d.id = w.document_id
    ON CONFLICT (tenant, document_id, generation) DO UPDATE
    SET revision = excluded.revision, version = excluded.version, chunks = excluded.chunks,
        collection = excluded.collection, groups = excluded.groups, title = excluded.title,
        called = excluded.called, filename = excluded.filename, media_type = excluded.media_type,
        size = excluded.size, content_hash = excluded.content_hash, metadata = excluded.metadata
    RETURNING tenant, collection AS name
    """
)
_HIDE = text(
    "DELETE FROM visibility WHERE tenant = :tenant AND document_id = ANY(CAST(:ids AS text[])) "
    "RETURNING tenant, collection AS name"
)
_RETIRE_ALL = text(
    "UPDATE revisions SET state = 'retired', retired_at = now(), look_at = now() "
    "WHERE tenant = :tenant AND document_id = ANY(CAST(:ids AS text[])) AND state IN ('writing', 'visible')"
)


async def flip(connection: AsyncConnection, written: Sequence[Written]) -> dict[str, Flip]:
    """Show each of these revisions if its fence holds, its version is the newest accepted, its document
    is not deleted and every generation that all jobs write was written. The outcome of each, by job id."""
    documents = await lock_documents(connection, written)
    jobs = await lock_jobs(connection, written)
    states = await generations.lock_states(connection)
    serving = generations.written_by_all(states)
    outcomes: dict[str, Flip] = {}
    shown: dict[tuple[str, str], Written] = {}
    for one in written:
        place = (one.job.tenant, one.job.document_id)
        outcome = _judge(one, jobs.get(one.job.id), documents.get(place), serving)
        if outcome == "flipped" and shown.setdefault(place, one) is not one:
            outcome = "superseded"
        outcomes[one.job.id] = outcome
    fresh = [one for one in shown.values() if jobs[one.job.id].state == "running"]
    if fresh:
        await _show(connection, fresh, states)
    await queue.supersede(connection, outcomes)
    return outcomes


def _judge(
    written: Written, job: Row[Any] | None, document: Row[Any] | None, serving: frozenset[str]
) -> Flip:
    ended = held(written, job)
    if ended:
        return ended
    # One that was erased is not known any more, nor is its job.
    if document is None or document.deleted or document.newest_version != written.job.version:
        return "superseded"
    return "flipped" if serving and serving <= written.chunks.keys() else "generations_changed"


async def _show(
    connection: AsyncConnection, fresh: Sequence[Written], states: Mapping[str, GenerationState]
) -> None:
    """Show them in every generation that was written; those being built that were not must follow."""
    these = places(fresh)
    changed = _names(await connection.execute(_SHOWN_IN, these))
    changed |= _names(await connection.execute(_SHOW, _rows(fresh, states)))
    for generation in generations.being_built(states):
        await backfill.follow(connection, [one for one in fresh if generation not in one.chunks], generation)
    await succeed(connection, fresh)
    await retire_unseen(connection, these)
    await epochs.rise(connection, changed)


def _rows(fresh: Sequence[Written], known: Collection[str]) -> dict[str, list[Any]]:
    rows = [(one, generation) for one in fresh for generation in sorted(one.chunks) if generation in known]
    return {
        **places([one for one, _ in rows]),
        "revisions": [one.revision for one, _ in rows],
        "generations": [generation for _, generation in rows],
        "chunks": [one.chunks[generation] for one, generation in rows],
        "called": [one.called for one, _ in rows],
    }


async def hide(
    connection: AsyncConnection, tenant: str, ids: Sequence[str], collections: Collection[str]
) -> None:
    """Show no revision of these documents (locked by the caller), of these collections, to anybody."""
    these = {"tenant": tenant, "ids": ids}
    changed = _names(await connection.execute(_HIDE, these))
    await connection.execute(_RETIRE_ALL, these)
    await epochs.rise(connection, changed | {(tenant, name) for name in collections})


def _names(rows: Iterable[Row[Any]]) -> set[tuple[str, str]]:
    return {(row.tenant, row.name) for row in rows}
