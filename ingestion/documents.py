"""SQL about documents: accepting versions, deleting, reading what the ledger knows of them.

Whoever changes a document locks its row first, documents in the order of their ids; version numbers are
drawn under that lock, so the order of numbers is the order of acceptance.
"""

# SQL is put together from this file's constants only; every value is bound.
# ruff: noqa: S608

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ingestion import files, rulebook, visibility
from ingestion.errors import Changed, IdempotencyConflict, NotFound, Taken
from ingestion.jobs import COLUMNS, job_of, loads, many
from ingestion.queue import SUPERSEDED, error_json
from ingestion.rules import breaches_of
from ingestion.types import Collection, Document, Expected, Job, JobError
from retrieval.conditions import holds
from retrieval.types import Filter, Metadata

# An epoch begins where none of an erased collection of the same name was.
_COLLECTIONS = text(
    """
    INSERT INTO collections (tenant, name, epoch)
    SELECT :tenant, name, CAST(extract(epoch FROM now()) * 1000 AS bigint)
    FROM unnest(CAST(:names AS text[])) AS n(name) ORDER BY name
    ON CONFLICT DO NOTHING
    """
)
_REOPEN = text(
    "UPDATE collections SET deleted = false "
    "WHERE tenant = :tenant AND name = ANY(CAST(:names AS text[])) AND deleted"
)
# Locks as it goes, in the order of ids; the version of a document that exists is drawn under its lock. One
# that these groups may not change stays, and does not come back.
_PUT = text(
    """
    INSERT INTO documents (tenant, id, collection, newest_version, title, filename, media_type, size,
                           content_hash, metadata, groups)
    SELECT :tenant, r.id, r.collection, nextval('version_numbers'), r.title, r.filename, r.media_type,
           r.size, r.content_hash, r.metadata, r.groups
    FROM (SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
        id text, collection text, title text, filename text, media_type text, size bigint,
        content_hash text, metadata jsonb, groups text[]) ORDER BY id COLLATE "C") AS r
    ON CONFLICT (tenant, id) DO UPDATE SET
        newest_version = nextval('version_numbers'), collection = excluded.collection,
        title = excluded.title, filename = excluded.filename, media_type = excluded.media_type,
        size = excluded.size, content_hash = excluded.content_hash, metadata = excluded.metadata,
        groups = excluded.groups, updated_at = now(), deleted = false, warnings = '[]',
        created_at = CASE WHEN documents.deleted THEN now() ELSE documents.created_at END
    WHERE documents.deleted OR NOT CAST(:absent AS boolean) AND (CAST(:groups AS text[]) IS NULL
       OR documents.groups = '{}' OR documents.groups && CAST(:groups AS text[]))
    RETURNING id, newest_version
    """
)
_VERSIONS = text(
    """
    INSERT INTO versions (version, tenant, document_id, content_hash, size)
    SELECT newest_version, tenant, id, content_hash, size FROM documents
    WHERE tenant = :tenant AND id = ANY(CAST(:ids AS text[]))
    """
)
_SUPERSEDE = text(
    """
    WITH older AS MATERIALIZED (
        SELECT id FROM jobs WHERE tenant = :tenant AND document_id = ANY(CAST(:ids AS text[]))
          AND state = 'queued' AND generation IS NULL
        ORDER BY id FOR UPDATE
    )
    UPDATE jobs SET state = 'cancelled', stage = 'done', error = CAST(:error AS jsonb), finished_at = now()
    FROM older WHERE jobs.id = older.id
    """
)
_JOBS = text(
    f"""
    INSERT INTO jobs (id, tenant, document_id, version, traceparent, priority, size, media_type)
    SELECT n.job_id, :tenant, n.id, n.version, CAST(:traceparent AS text), n.priority, n.size, n.media_type
    FROM unnest(CAST(:job_ids AS uuid[]), CAST(:ids AS text[]), CAST(:versions AS bigint[]),
                CAST(:priorities AS int[]), CAST(:sizes AS bigint[]), CAST(:media_types AS text[]))
      WITH ORDINALITY AS n(job_id, id, version, priority, size, media_type, place) ORDER BY n.place
    RETURNING {", ".join(COLUMNS)}
    """
)
_CLAIM = text(
    """
    INSERT INTO idempotency (tenant, key, request_hash, job_ids)
    VALUES (:tenant, :key, :request_hash, CAST(:job_ids AS uuid[])) ON CONFLICT DO NOTHING RETURNING key
    """
)
_CLAIMED = text("SELECT request_hash, job_ids FROM idempotency WHERE tenant = :tenant AND key = :key")
_FORGET = text("DELETE FROM idempotency WHERE created_at < now() - make_interval(secs => :age)")

_MAY_READ = "(CAST(:groups AS text[]) IS NULL OR d.groups = '{}' OR d.groups && CAST(:groups AS text[]))"
_LOCK = text(
    f"SELECT d.* FROM documents d WHERE d.tenant = :tenant AND d.id = ANY(CAST(:ids AS text[])) "
    f"AND NOT d.deleted AND {_MAY_READ} ORDER BY d.id FOR UPDATE"
)
# What the caller said about the document goes with it; hashes stay, in `versions`.
_BURY = text(
    """
    UPDATE documents SET deleted = true, newest_version = nextval('version_numbers'), title = NULL,
        filename = NULL, metadata = '{}', content_hash = '', size = 0, updated_at = now(),
        warnings = '[]'
    WHERE tenant = :tenant AND id = ANY(CAST(:ids AS text[])) RETURNING id, newest_version, updated_at
    """
)
_BURIED = text(
    "INSERT INTO versions (version, tenant, document_id, deleted) SELECT newest_version, tenant, id, true "
    "FROM documents WHERE tenant = :tenant AND id = ANY(CAST(:ids AS text[]))"
)
_JOBS_OF = text(
    "SELECT id FROM jobs WHERE tenant = :tenant AND document_id = ANY(CAST(:ids AS text[])) "
    "AND state IN ('queued', 'running') ORDER BY id FOR UPDATE"
)
_END_JOBS = text(
    """
    UPDATE jobs SET state = 'cancelled', stage = 'done', fence = fence + 1, lease_until = NULL,
        worker = NULL, error = CAST(:error AS jsonb), finished_at = now()
    WHERE id = ANY(CAST(:job_ids AS uuid[]))
    """
)
_READ = f"""
    SELECT d.*, shown.chunks, shown.called, newest.state AS status, newest.error
    FROM documents d LEFT JOIN LATERAL (
        SELECT v.chunks, v.called FROM visibility v
        JOIN generations g ON g.id = v.generation AND g.state = 'serving'
        WHERE v.tenant = d.tenant AND v.document_id = d.id ORDER BY v.revision DESC LIMIT 1
    ) AS shown ON true LEFT JOIN LATERAL (
        SELECT j.state, j.error FROM jobs j
        WHERE j.tenant = d.tenant AND j.document_id = d.id AND j.version = d.newest_version
          AND j.generation IS NULL ORDER BY j.seq DESC LIMIT 1
    ) AS newest ON true
    WHERE d.tenant = :tenant AND NOT d.deleted AND {_MAY_READ}
"""
_GET = text(f"{_READ} AND d.id = :id")
_OF_COLLECTION = "AND d.collection = :collection"
# Looks through the tenant's documents up to those that it finds; what a document is called is of many words.
_NAMED = """AND NOT EXISTS (
    SELECT FROM unnest(CAST(:words AS text[])) AS word
    WHERE position(lower(word) IN lower(concat_ws(' ', d.title, shown.called, d.filename, d.id))) = 0)"""


def _page(*conditions: str) -> TextClause:
    return text(f"{_READ} {' '.join(conditions)} AND d.id > :after ORDER BY d.id LIMIT :limit")


_PAGES = {
    (False, False): _page(),
    (True, False): _page(_OF_COLLECTION),
    (False, True): _page(_NAMED),
    (True, True): _page(_OF_COLLECTION, _NAMED),
}
"""By whether a collection is named, and words."""
# Of each collection, or else of all: the documents of a small one are found without a look at the others.
_MATCHING = text(
    f"""
    SELECT d.id, d.collection, d.metadata FROM documents d
    WHERE d.tenant = :tenant AND NOT d.deleted AND {_MAY_READ} AND d.id > :after
      AND (CAST(:only AS text[]) = '{{}}' OR d.id = ANY(CAST(:only AS text[])))
    ORDER BY d.id LIMIT :limit
    """
)
_MATCHING_IN = text(
    f"""
    SELECT m.* FROM (SELECT DISTINCT unnest(CAST(:collections AS text[])) AS name) AS c
    CROSS JOIN LATERAL (
        SELECT d.id, d.collection, d.metadata FROM documents d
        WHERE d.tenant = :tenant AND d.collection = c.name AND NOT d.deleted AND {_MAY_READ}
          AND d.id > :after AND (CAST(:only AS text[]) = '{{}}' OR d.id = ANY(CAST(:only AS text[])))
        ORDER BY d.id LIMIT :limit
    ) AS m
    ORDER BY m.id LIMIT :limit
    """
)
_CLOSE = text(
    """
    UPDATE collections c SET deleted = true, epoch = epoch + 1 WHERE c.tenant = :tenant AND c.name = :name
      AND NOT EXISTS (SELECT FROM documents d WHERE d.tenant = c.tenant AND d.collection = c.name
                      AND NOT d.deleted)
    """
)
# One may have been filled while it was closed.
_OPEN = (
    "(NOT c.deleted OR EXISTS (SELECT FROM documents o WHERE o.tenant = c.tenant "
    "AND o.collection = c.name AND NOT o.deleted))"
)
# A collection of which a key may read nothing does not exist for it; one that is empty does.
_SHOWN = (
    f"({_OPEN} AND (CAST(:groups AS text[]) IS NULL "
    "OR EXISTS (SELECT FROM documents d WHERE d.tenant = c.tenant AND d.collection = c.name "
    f"AND NOT d.deleted AND {_MAY_READ}) "
    "OR NOT EXISTS (SELECT FROM documents e WHERE e.tenant = c.tenant AND e.collection = c.name "
    "AND NOT e.deleted)))"
)
# Documents without groups are counted by their index alone.
_HOLDS = "d.tenant = c.tenant AND d.collection = c.name AND NOT d.deleted"
_COUNTS = text(
    f"""
    SELECT c.name, c.epoch,
        (SELECT count(*) FROM documents d WHERE {_HOLDS} AND d.groups = '{{}}') +
        (SELECT count(*) FROM documents d WHERE {_HOLDS} AND d.groups <> '{{}}' AND {_MAY_READ}) AS documents
    FROM collections c WHERE c.tenant = :tenant AND {_SHOWN} ORDER BY c.name
    """
)
_KNOWN = text(
    f"SELECT c.name FROM collections c WHERE c.tenant = :tenant AND c.name = ANY(CAST(:names AS text[])) "
    f"AND {_SHOWN}"
)

_DELETED = JobError(code="deleted", message="The document was deleted.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A document that was checked and whose bytes are stored, ready to be written down."""

    id: str
    collection: str
    title: str | None
    filename: str | None
    media_type: str
    size: int
    content_hash: str
    metadata: Metadata
    groups: frozenset[str]
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """An idempotency key, and a hash over the request that it stands for."""

    key: str
    request_hash: str


async def put(
    connection: AsyncConnection,
    tenant: str,
    accepted: Sequence[Accepted],
    claim: Claim | None,
    traceparent: str | None,
    groups: frozenset[str] | None = None,
    expected: Expected | None = None,
) -> list[Job]:
    """Accept a new version of each of these documents (of different ids); one job each, in their order.

    With `groups` only what they may read is replaced; raises `Taken` for anything else. Raises `Changed`
    where one is not as `expected`."""
    job_ids = [str(uuid4()) for _ in accepted]
    while claim and not await _claim(connection, tenant, claim, job_ids):
        before = await replayed(connection, tenant, claim)
        if before is not None:  # Otherwise it was so old that it has just been forgotten.
            return before
    ids = [one.id for one in accepted]
    absent = expected is not None and expected.absent
    if expected and not absent:
        await _require(connection, Filter(tenant=tenant, groups=groups), ids, expected)
    rows = {"tenant": tenant, "rows": _rows(accepted), "groups": _groups(groups), "absent": absent}
    versions = {row.id: row.newest_version for row in await connection.execute(_PUT, rows)}
    # From here on nobody forgets a collection until this is over.
    names = {"tenant": tenant, "names": list({one.collection for one in accepted})}
    await connection.execute(_COLLECTIONS, names)
    if taken := next((one for one in ids if one not in versions), None):
        if absent:
            raise Changed(f"There is a document {taken!r} already.")
        raise Taken(f"The id {taken!r} is taken by a document that this key may not change.")
    these = {"tenant": tenant, "ids": ids}
    await connection.execute(_VERSIONS, these)
    await files.loosen(connection, tenant, ids)
    await connection.execute(_SUPERSEDE, {**these, "error": error_json(SUPERSEDED)})
    new = {
        "job_ids": job_ids,
        "versions": [versions[one] for one in ids],
        "traceparent": traceparent,
        "priorities": [-one.priority for one in accepted],
        "sizes": [one.size for one in accepted],
        "media_types": [one.media_type for one in accepted],
    }
    jobs = [job_of(row) for row in await connection.execute(_JOBS, {**these, **new})]
    await connection.execute(_REOPEN, names)
    return _ordered(jobs, job_ids)


def _ordered(jobs: Sequence[Job], job_ids: Sequence[str]) -> list[Job]:
    by_id = {job.id: job for job in jobs}
    return [by_id[job_id] for job_id in job_ids]


def _rows(accepted: Sequence[Accepted]) -> str:
    return json.dumps(
        [
            {
                "id": one.id,
                "collection": one.collection,
                "title": one.title,
                "filename": one.filename,
                "media_type": one.media_type,
                "size": one.size,
                "content_hash": one.content_hash,
                "metadata": dict(one.metadata),
                "groups": sorted(one.groups),
            }
            for one in accepted
        ],
        allow_nan=False,
    )


async def _claim(connection: AsyncConnection, tenant: str, claim: Claim, job_ids: Sequence[str]) -> bool:
    """Whether the key is new; waits for another request that is using it."""
    values = {"tenant": tenant, "key": claim.key, "request_hash": claim.request_hash, "job_ids": job_ids}
    return await connection.scalar(_CLAIM, values) is not None


async def replayed(connection: AsyncConnection, tenant: str, claim: Claim) -> list[Job] | None:
    """The jobs that this key led to before, None if it is new."""
    known = (await connection.execute(_CLAIMED, {"tenant": tenant, "key": claim.key})).one_or_none()
    if known is None:
        return None
    if known.request_hash != claim.request_hash:
        raise IdempotencyConflict("This Idempotency-Key was used with another request.", "Idempotency-Key")
    ids = [str(job_id) for job_id in known.job_ids]
    return _ordered(await many(connection, tenant, ids), ids)


async def forget_claims(connection: AsyncConnection, age: float) -> None:
    await connection.execute(_FORGET, {"age": age})


async def _require(
    connection: AsyncConnection, which: Filter, ids: Sequence[str], expected: Expected
) -> None:
    """Hold these documents, each of which must be of an expected version."""
    values = {"tenant": which.tenant, "groups": _groups(which.groups), "ids": list(ids)}
    found = {row.id: row.newest_version for row in await connection.execute(_LOCK, values)}
    for one in ids:
        if one not in found:
            raise Changed(f"There is no document {one!r} to be replaced.")
        if expected.versions is not None and found[one] not in expected.versions:
            raise Changed(
                f"The document {one!r} is of version {found[one]} now: somebody changed it. Read it again."
            )


async def delete(
    connection: AsyncConnection,
    tenant: str,
    groups: frozenset[str] | None,
    document_id: str,
    expected: Expected | None = None,
) -> Document:
    """Bury a document: its newest version is its deletion, no reader sees it from the commit on. Raises
    `Changed` where it is not as `expected`."""
    if expected:
        await get(connection, tenant, groups, document_id)
        await _require(connection, Filter(tenant=tenant, groups=groups), [document_id], expected)
    buried = await _bury(connection, Filter(tenant=tenant, groups=groups), [document_id])
    if not buried:
        raise NotFound("document", document_id)
    return buried[0]


async def bury(
    connection: AsyncConnection, which: Filter, after: str, limit: int
) -> tuple[list[Document], str | None]:
    """Bury those among the next `limit` documents after this id, of those that the filter may mean, that it
    does mean; and the last id that was looked at, None when there are no more."""
    found, last = await matching(connection, which, after, limit)
    return await _bury(connection, which, found), last


async def matching(
    connection: AsyncConnection, which: Filter, after: str, limit: int
) -> tuple[list[str], str | None]:
    """As `bury`, of which it looks up the ids only."""
    values = {
        "tenant": which.tenant,
        "groups": _groups(which.groups),
        "after": after,
        "limit": limit,
        "only": list(which.document_ids),
    }
    if which.collections:
        found = await connection.execute(_MATCHING_IN, {**values, "collections": list(which.collections)})
    else:
        found = await connection.execute(_MATCHING, values)
    rows = found.all()
    return [row.id for row in rows if _meant(row, which)], rows[-1].id if len(rows) == limit else None


async def close_collection(connection: AsyncConnection, tenant: str, name: str) -> None:
    """A collection in which nothing is left is not known any more until something is put into it."""
    await connection.execute(_CLOSE, {"tenant": tenant, "name": name})


async def _bury(connection: AsyncConnection, which: Filter, ids: Sequence[str]) -> list[Document]:
    if not ids:
        return []
    values = {"tenant": which.tenant, "groups": _groups(which.groups), "ids": list(ids)}
    # What was said about one may have changed before it was locked.
    rows = [row for row in await connection.execute(_LOCK, values) if _meant(row, which)]
    these = {"tenant": which.tenant, "ids": [row.id for row in rows]}
    if not rows:
        return []
    buried = {row.id: row for row in await connection.execute(_BURY, these)}
    await connection.execute(_BURIED, these)
    await files.loosen(connection, which.tenant, these["ids"])
    await rulebook.forget(connection, which.tenant, these["ids"])
    job_ids = list(await connection.scalars(_JOBS_OF, these))
    await connection.execute(_END_JOBS, {"job_ids": job_ids, "error": error_json(_DELETED)})
    await visibility.hide(connection, which.tenant, these["ids"], {row.collection for row in rows})
    return [
        replace(
            _document(row, chunks=None),
            version=buried[row.id].newest_version,
            updated_at=buried[row.id].updated_at,
        )
        for row in rows
    ]


def _meant(row: Row[Any], which: Filter) -> bool:
    placed = not which.collections or row.collection in which.collections
    return placed and (which.where is None or holds(which.where, loads(row.metadata)))


async def get(
    connection: AsyncConnection, tenant: str, groups: frozenset[str] | None, document_id: str
) -> Document:
    values = {"tenant": tenant, "groups": _groups(groups), "id": document_id}
    row = (await connection.execute(_GET, values)).one_or_none()
    if row is None:
        raise NotFound("document", document_id)
    return _read(row)


async def page(
    connection: AsyncConnection,
    tenant: str,
    groups: frozenset[str] | None,
    *,
    collection: str | None,
    words: Sequence[str],
    after: str,
    limit: int,
) -> list[Document]:
    """Up to `limit` documents whose ids come after `after`, in the order of ids, in whose names all of these
    words stand, in letters of any size."""
    values: dict[str, Any] = {"tenant": tenant, "groups": _groups(groups), "after": after, "limit": limit}
    if collection is not None:
        values["collection"] = collection
    if words:
        values["words"] = list(words)
    rows = await connection.execute(_PAGES[collection is not None, bool(words)], values)
    return [_read(row) for row in rows]


async def collections(
    connection: AsyncConnection, tenant: str, groups: frozenset[str] | None
) -> list[Collection]:
    rows = await connection.execute(_COUNTS, {"tenant": tenant, "groups": _groups(groups)})
    return [Collection(row.name, row.documents, row.epoch) for row in rows]


async def known_collections(
    connection: AsyncConnection, tenant: str, groups: frozenset[str] | None, names: Sequence[str]
) -> set[str]:
    values = {"tenant": tenant, "groups": _groups(groups), "names": list(names)}
    return set(await connection.scalars(_KNOWN, values))


def _groups(groups: frozenset[str] | None) -> list[str] | None:
    return None if groups is None else sorted(groups)


def default_title(title: str | None, filename: str | None, document_id: str) -> str:
    """What a document is called when nothing better was found in it."""
    if title:
        return title
    stem = (filename or "").replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return stem or document_id


def _read(row: Row[Any]) -> Document:
    error = loads(row.error)
    return replace(
        _document(row, row.chunks),
        title=default_title(row.title or row.called, row.filename, row.id),
        status=row.status,
        error=JobError(**error) if error else None,
    )


def _document(row: Row[Any], chunks: int | None) -> Document:
    return Document(
        tenant=row.tenant,
        id=row.id,
        collection=row.collection,
        title=default_title(row.title, row.filename, row.id),
        filename=row.filename,
        media_type=row.media_type,
        size=row.size,
        content_hash=row.content_hash,
        metadata=loads(row.metadata),
        groups=frozenset(row.groups),
        version=row.newest_version,
        visible=chunks is not None,
        chunks=chunks or 0,
        created_at=row.created_at,
        updated_at=row.updated_at,
        warnings=breaches_of(loads(row.warnings)),
    )
