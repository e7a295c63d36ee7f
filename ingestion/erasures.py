"""SQL about erasures: what is to be gone from every store, and what of it is left in the ledger.

The documents of an erasure are buried like deleted ones, in bounded transactions that note them here; so it
goes on where it was, whoever is killed. What the ledger itself knows of them goes last, and with it the note.
"""

# SQL is put together from this file's constants only; every value is bound.
# ruff: noqa: S608

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ingestion import files
from ingestion.errors import Conflict
from ingestion.jobs import loads
from ingestion.receipts import reference
from ingestion.revisions import NOBODY
from ingestion.types import Document, Erasure, ErasureScope, Outcome

STALE = 60.0
"""Whoever chooses the documents and was not heard of for so many seconds will not go on."""

_BEGIN = text("INSERT INTO erasures (id, tenant, scope, who) VALUES (:id, :tenant, :scope, :who) RETURNING *")
_HANDED_IN = text("SELECT id FROM documents WHERE tenant = :tenant AND id = ANY(CAST(:ids AS text[]))")
_ADD = text(
    """
    INSERT INTO erased (erasure, document_id, tenant, version, words)
    SELECT CAST(:id AS uuid), w.document_id, :tenant, w.version, w.words
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS w(document_id text, version bigint, words text[])
    ON CONFLICT (erasure, document_id) DO UPDATE SET version = excluded.version, words = excluded.words
    RETURNING document_id, xmax = 0 AS fresh
    """
)
# Deleted before: what is left of them is to go as well. One may be handed in again before it is chosen.
_ADD_DELETED = text(
    """
    INSERT INTO erased (erasure, document_id, tenant, version, words)
    SELECT CAST(:id AS uuid), d.id, d.tenant, d.newest_version, '{}' FROM documents d
    WHERE d.tenant = :tenant AND d.deleted
      AND (CAST(:collections AS text[]) = '{}' OR d.collection = ANY(CAST(:collections AS text[])))
      AND (CAST(:only AS text[]) = '{}' OR d.id = ANY(CAST(:only AS text[])))
    ON CONFLICT DO NOTHING RETURNING document_id
    """
)
_TOUCH = text(
    "UPDATE erasures SET touched_at = now(), documents = documents + :documents "
    "WHERE id = :id AND state = 'selecting' RETURNING id"
)
_READY = text("UPDATE erasures SET state = 'erasing' WHERE id = :id AND state = 'selecting' RETURNING *")
_NEXT = text(
    """
    SELECT * FROM erasures WHERE state = 'erasing'
      OR (state = 'selecting' AND touched_at < now() - make_interval(secs => :stale))
    ORDER BY asked_at LIMIT 1
    """
)
_ONE = text("SELECT * FROM erasures WHERE tenant = :tenant AND id = :id")
_LISTED = text("SELECT * FROM erasures WHERE tenant = :tenant ORDER BY asked_at DESC LIMIT :limit")
_FINISHED = text("SELECT id FROM erasures WHERE state = 'finished'")
_TOLD = text(
    "UPDATE erasures SET stores = stores || CAST(:stores AS jsonb), touched_at = now() WHERE id = :id"
)
_FINISH = text("UPDATE erasures SET state = 'finished', finished_at = now() WHERE id = :id RETURNING *")
_PAGE = text(
    """
    SELECT e.document_id, e.version, e.words, ARRAY(
        SELECT r.revision FROM revisions r WHERE r.tenant = e.tenant AND r.document_id = e.document_id
          AND r.version <= e.version ORDER BY r.revision
    ) AS revisions
    FROM erased e WHERE e.erasure = :id AND e.document_id > :after ORDER BY e.document_id LIMIT :limit
    """
)
_UNSWEPT = text(
    """
    SELECT count(*) FROM erased e JOIN revisions r ON r.tenant = e.tenant AND r.document_id = e.document_id
      AND r.version <= e.version AND r.state <> 'swept' WHERE e.erasure = :id
    """
)
_REVISIONS = text(
    """
    SELECT count(*) FROM erased e JOIN revisions r ON r.tenant = e.tenant AND r.document_id = e.document_id
      AND r.version <= e.version WHERE e.erasure = :id
    """
)
_FILES = """
    SELECT v.tenant, v.content_hash FROM erased e
    JOIN versions v ON v.tenant = e.tenant AND v.document_id = e.document_id AND v.version <= e.version
    WHERE e.erasure = :id AND v.content_hash IS NOT NULL
"""
_LOOSE = text(
    f"""
    SELECT f.tenant, f.content_hash FROM loose_files f
    WHERE NOT f.gone AND (f.tenant, f.content_hash) IN ({_FILES})
    ORDER BY f.content_hash FOR UPDATE
    """
)
_ALL_FILES = text(f"SELECT count(DISTINCT content_hash) FROM ({_FILES}) AS f")

_BATCH = text("SELECT document_id FROM erased WHERE erasure = :id ORDER BY document_id LIMIT :limit")
_THESE = "e.erasure = :id AND e.document_id = ANY(CAST(:ids AS text[]))"
_OLD = f"{_THESE} AND t.tenant = e.tenant AND t.document_id = e.document_id AND t.version <= e.version"
# A document that was handed in again stays, in what is newer than its deletion.
_FORGET = tuple(
    text(statement)
    for statement in (
        f"DELETE FROM idempotency i USING jobs t, erased e WHERE {_OLD} AND i.tenant = t.tenant "
        "AND t.id = ANY(i.job_ids)",
        f"DELETE FROM loose_files f USING versions t, erased e WHERE {_OLD} AND f.tenant = t.tenant "
        "AND f.content_hash = t.content_hash AND f.gone",
        f"DELETE FROM jobs t USING erased e WHERE {_OLD}",
        # A writer may just have said that it was held up: what it wrote is swept yet, under no document's id.
        f"UPDATE revisions t SET document_id = '{NOBODY}' FROM erased e WHERE {_OLD} AND t.state = 'retired'",
        f"DELETE FROM revisions t USING erased e WHERE {_OLD}",
        f"DELETE FROM versions t USING erased e WHERE {_OLD}",
        f"DELETE FROM documents d USING erased e WHERE {_THESE} AND d.tenant = e.tenant "
        "AND d.id = e.document_id AND d.deleted AND d.newest_version <= e.version",
        f"DELETE FROM erased e WHERE {_THESE}",
    )
)
_ALL = text(
    "SELECT id FROM documents WHERE tenant = :tenant AND id > :after AND updated_at <= :before "
    "ORDER BY id LIMIT :limit"
)
# A receipt that an older ledger does not know: what it was about is being erased again.
_KNOW = text(
    """
    INSERT INTO erasures (id, tenant, scope, who, state, documents, asked_at, finished_at)
    VALUES (:id, :tenant, :scope, :who, 'finished', :documents, :asked_at, :finished_at)
    ON CONFLICT DO NOTHING
    """
)
# Their rows are removed like those of a retired revision; the document that they are said to be of is none.
_RETIRE = text(
    """
    INSERT INTO revisions (revision, tenant, document_id, version, job_id, fence, state, retired_at, look_at)
    SELECT w.revision, :tenant, :nobody, 0, gen_random_uuid(), 0, 'retired', now(), now()
    FROM unnest(CAST(:revisions AS bigint[])) AS w(revision)
    """
)
# Numbers of revisions that rows in the store may have and that no document that is known has.
_ORPHANS = text(
    """
    SELECT w.revision FROM unnest(CAST(:revisions AS bigint[])) AS w(revision)
    WHERE NOT EXISTS (SELECT FROM revisions r WHERE r.revision = w.revision)
    """
)
_PASS = text(
    """
    SELECT setval(CAST(CAST(:sequence AS text) AS regclass), greatest(CAST(:number AS bigint), (
        SELECT last_value FROM pg_sequences WHERE sequencename = CAST(:sequence AS text)
          AND schemaname = current_schema())))
    """
)
_FORGET_RULES = text(
    """
    DELETE FROM collection_rules r WHERE r.tenant = :tenant
      AND NOT EXISTS (SELECT FROM collections c WHERE c.tenant = r.tenant AND c.name = r.collection)
    """
)
# Waits for the puts under way and keeps others out: what one puts into a collection cannot be seen yet.
_CLOSE_DOCUMENTS = text("LOCK TABLE documents IN SHARE MODE")
_FORGET_COLLECTIONS = text(
    """
    DELETE FROM collections c WHERE c.tenant = :tenant AND (c.deleted OR CAST(:whole AS boolean))
      AND NOT EXISTS (SELECT FROM documents d WHERE d.tenant = c.tenant AND d.collection = c.name)
    """
)


async def known(connection: AsyncConnection, tenant: str, ids: Collection[str]) -> set[str]:
    """Those of these documents that were handed in, deleted ones too, and not erased since."""
    return set(await connection.scalars(_HANDED_IN, {"tenant": tenant, "ids": list(ids)}))


async def begin(
    connection: AsyncConnection, erasure_id: str, tenant: str, scope: ErasureScope, who: str
) -> Erasure:
    values = {"id": erasure_id, "tenant": tenant, "scope": scope, "who": who}
    return _erasure((await connection.execute(_BEGIN, values)).one())


async def add(connection: AsyncConnection, erasure: Erasure, buried: Sequence[Document]) -> None:
    """Note documents that were buried in this transaction, and what was said about them. Raises `Conflict`
    when the erasure is not being chosen any more."""
    rows = [{"document_id": one.id, "version": one.version, "words": words_of(one)} for one in buried]
    added = await connection.execute(
        _ADD, {"id": erasure.id, "tenant": erasure.tenant, "rows": json.dumps(rows, allow_nan=False)}
    )
    fresh = sum(row.fresh for row in added)
    await _added(connection, erasure, [one.id for one in buried], fresh)


async def add_deleted(
    connection: AsyncConnection, erasure: Erasure, collections: Sequence[str], ids: Sequence[str]
) -> None:
    """Note documents that were deleted before."""
    values = {"tenant": erasure.tenant, "collections": list(collections), "only": list(ids)}
    found = list(await connection.scalars(_ADD_DELETED, {"id": erasure.id, **values}))
    await _added(connection, erasure, found, len(found))


async def _added(connection: AsyncConnection, erasure: Erasure, ids: Sequence[str], fresh: int) -> None:
    """`fresh` of these were not among its documents before."""
    await files.loosen_all(connection, erasure.tenant, ids)
    if await connection.scalar(_TOUCH, {"id": erasure.id, "documents": fresh}) is None:
        raise Conflict(
            f"Choosing the documents of the erasure {erasure.id} took too long: it was taken on with those "
            "that were chosen before. Ask for another one of the rest."
        )


async def chosen(connection: AsyncConnection, erasure: Erasure) -> None:
    """All its documents are noted."""
    await connection.execute(_READY, {"id": erasure.id})


async def following(connection: AsyncConnection) -> Erasure | None:
    """The next one to work on."""
    row = (await connection.execute(_NEXT, {"stale": STALE})).one_or_none()
    return _erasure(row) if row else None


async def one(connection: AsyncConnection, tenant: str, erasure_id: str) -> Erasure | None:
    row = (await connection.execute(_ONE, {"tenant": tenant, "id": erasure_id})).one_or_none()
    return _erasure(row) if row else None


async def listed(connection: AsyncConnection, tenant: str, limit: int) -> list[Erasure]:
    rows = await connection.execute(_LISTED, {"tenant": tenant, "limit": limit})
    return [_erasure(row) for row in rows]


async def finished(connection: AsyncConnection) -> set[str]:
    """The ids of all that were finished."""
    return {str(found) for found in await connection.scalars(_FINISHED)}


async def told(connection: AsyncConnection, erasure: Erasure, store: str, outcome: Outcome) -> None:
    """Record how far a store is."""
    at = outcome.at.isoformat() if outcome.at else None
    said = {"state": outcome.state, "removed": outcome.removed, "detail": outcome.detail, "at": at}
    stores = {store: said}
    await connection.execute(_TOLD, {"id": erasure.id, "stores": json.dumps(stores)})


async def finish(connection: AsyncConnection, erasure: Erasure) -> Erasure:
    return _erasure((await connection.execute(_FINISH, {"id": erasure.id})).one())


async def page(connection: AsyncConnection, erasure: Erasure, after: str, limit: int) -> list[Target]:
    """Documents of the erasure whose ids come after this one."""
    rows = await connection.execute(_PAGE, {"id": erasure.id, "after": after, "limit": limit})
    return [Target(r.document_id, r.version, tuple(r.words), tuple(r.revisions)) for r in rows]


async def unswept(connection: AsyncConnection, erasure: Erasure) -> tuple[int, int]:
    """How many of its revisions may still have rows in the store, of how many."""
    values = {"id": erasure.id}
    left, all_ = await connection.scalar(_UNSWEPT, values), await connection.scalar(_REVISIONS, values)
    return int(left or 0), int(all_ or 0)


async def loose(connection: AsyncConnection, erasure: Erasure) -> list[files.File]:
    """Its files that are loose, kept as they are until the transaction ends."""
    rows = await connection.execute(_LOOSE, {"id": erasure.id})
    return [(row.tenant, row.content_hash) for row in rows]


async def count_files(connection: AsyncConnection, erasure: Erasure) -> int:
    return int(await connection.scalar(_ALL_FILES, {"id": erasure.id}) or 0)


async def forget(connection: AsyncConnection, erasure: Erasure, limit: int) -> int:
    """Take what is known of some of its documents out of the ledger; how many that were."""
    ids = list(await connection.scalars(_BATCH, {"id": erasure.id, "limit": limit}))
    for statement in _FORGET if ids else ():
        await connection.execute(statement, {"id": erasure.id, "ids": ids})
    return len(ids)


async def forget_collections(connection: AsyncConnection, erasure: Erasure) -> None:
    """Collections that hold nothing any more, and were deleted or are the tenant's that is erased."""
    tenant = erasure.tenant
    whole = erasure.scope == "tenant"
    await connection.execute(_CLOSE_DOCUMENTS)
    await connection.execute(_FORGET_COLLECTIONS, {"tenant": tenant, "whole": whole})
    await connection.execute(_FORGET_RULES, {"tenant": tenant})


async def matching(
    connection: AsyncConnection, tenant: str, wanted: Collection[str], salt: str, before: datetime
) -> list[str]:
    """The tenant's documents, deleted or not, as they were before, whose salted ids are among these."""
    found: list[str] = []
    after, more = "", True
    while more:
        values = {"tenant": tenant, "after": after, "before": before, "limit": 5_000}
        ids = list(await connection.scalars(_ALL, values))
        found += [one for one in ids if reference(salt, tenant, one) in wanted]
        after, more = (ids[-1], True) if ids else (after, False)
    return found


async def add_orphans(connection: AsyncConnection, erasure: Erasure, revisions: Sequence[int]) -> None:
    """Have rows of these revisions, which no document has, removed from the store."""
    nobody = f"{NOBODY}{erasure.id}"
    values = {"tenant": erasure.tenant, "nobody": nobody, "revisions": list(revisions)}
    await connection.execute(_RETIRE, values)
    rows = json.dumps([{"document_id": nobody, "version": 0, "words": []}])
    await connection.execute(_ADD, {"id": erasure.id, "tenant": erasure.tenant, "rows": rows})


async def know(connection: AsyncConnection, body: Mapping[str, Any]) -> None:
    """Take down a receipt of before the ledger was restored."""
    said = {name: body[name] for name in ("id", "tenant", "scope", "who")}
    times = {name: datetime.fromisoformat(body[name]) for name in ("asked_at", "finished_at")}
    await connection.execute(_KNOW, {**said, **times, "documents": body["count"]})


async def orphans(connection: AsyncConnection, revisions: Sequence[int]) -> list[int]:
    """Those of these revisions that the ledger does not know."""
    return list(await connection.scalars(_ORPHANS, {"revisions": list(revisions)}))


async def outnumber(connection: AsyncConnection, version: int, revision: int) -> None:
    """Let no number be given out again that was given out before the ledger was restored."""
    for sequence, number in (("version_numbers", version), ("revision_numbers", revision)):
        await connection.execute(_PASS, {"sequence": sequence, "number": max(1, number)})


def words_of(document: Document) -> list[str]:
    """What was said about a document, in the words that may stand in a log."""
    said = [document.title, document.filename or ""]
    for value in document.metadata.values():
        said += value if isinstance(value, list) else [value] if isinstance(value, str) else []
    return sorted(set(said) - {""})


@dataclass(frozen=True, slots=True)
class Target:
    """A document that is being erased, and the revisions in which it was written."""

    document_id: str
    version: int
    words: tuple[str, ...]
    revisions: tuple[int, ...]


def _erasure(row: Row[Any]) -> Erasure:
    stores: Mapping[str, Any] = loads(row.stores)
    return Erasure(
        id=str(row.id),
        tenant=row.tenant,
        scope=row.scope,
        who=row.who,
        state=row.state,
        documents=row.documents,
        stores={name: _outcome(told) for name, told in stores.items()},
        asked_at=row.asked_at,
        finished_at=row.finished_at,
    )


def _outcome(told: Mapping[str, Any]) -> Outcome:
    at = datetime.fromisoformat(told["at"]) if told["at"] else None
    return Outcome(told["state"], told["removed"], told["detail"], at)
