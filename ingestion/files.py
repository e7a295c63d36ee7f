"""SQL about original files that no document may need any more, and what becomes of them.

A replaced or deleted version leaves its file *loose*. After a while the purger removes it from the blob
store, unless a document needs it, and notes that it is gone. A put may have found a file there that somebody
removes before its document is accepted: once it is, every file that is loose is stored again, gone or not,
since whoever removed it may have been killed before that was noted. A note names a hash, so an erasure takes
it away: where there was one lately every file is stored again.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

NOTED = 3600.0
"""How long it is noted that a file is gone, in seconds; no put takes so long."""

# The version before the newest, of documents that the caller has locked.
_LOOSEN = text(
    """
    INSERT INTO loose_files (tenant, content_hash)
    SELECT DISTINCT d.tenant, before.content_hash FROM documents d CROSS JOIN LATERAL (
        SELECT v.content_hash FROM versions v
        WHERE v.tenant = d.tenant AND v.document_id = d.id AND v.version < d.newest_version
        ORDER BY v.version DESC LIMIT 1
    ) AS before
    WHERE d.tenant = :tenant AND d.id = ANY(CAST(:ids AS text[])) AND before.content_hash <> d.content_hash
    ORDER BY before.content_hash
    ON CONFLICT (tenant, content_hash) DO UPDATE SET since = now(), gone = false
    """
)
_LOOSEN_ALL = text(
    """
    INSERT INTO loose_files (tenant, content_hash)
    SELECT DISTINCT tenant, content_hash FROM versions
    WHERE tenant = :tenant AND document_id = ANY(CAST(:ids AS text[])) AND content_hash IS NOT NULL
    ORDER BY content_hash ON CONFLICT (tenant, content_hash) DO UPDATE SET gone = false
    """
)
_DUE = text(
    """
    SELECT tenant, content_hash FROM loose_files
    WHERE NOT gone AND since < now() - make_interval(secs => :window)
    ORDER BY since LIMIT :limit FOR UPDATE SKIP LOCKED
    """
)
# A file that a document needs is loosened again when that one is replaced or deleted; it stays loose while
# the put of that document may be under way. Each is looked up by its hash as it came, since the collation of
# `loose_files` is not that of the index, and by itself, since without statistics all documents of a tenant
# would be read for each.
_NEEDED = text(
    """
    WITH found AS (
        SELECT * FROM unnest(CAST(:tenants AS text[]), CAST(:hashes AS text[])) AS f(tenant, content_hash)
    ), held AS (
        SELECT found.tenant, found.content_hash, needs.updated_at FROM found CROSS JOIN LATERAL (
            SELECT d.updated_at FROM documents d
            WHERE d.tenant = found.tenant AND d.content_hash = found.content_hash AND NOT d.deleted LIMIT 1
        ) AS needs
    ), tightened AS (
        DELETE FROM loose_files f USING held
        WHERE f.tenant = held.tenant AND f.content_hash = held.content_hash
          AND held.updated_at < now() - make_interval(secs => :age)
    )
    SELECT tenant, content_hash FROM held UNION
    SELECT found.tenant, found.content_hash FROM found CROSS JOIN LATERAL (
        SELECT FROM visibility v
        WHERE v.tenant = found.tenant AND v.content_hash = found.content_hash LIMIT 1
    ) AS seen
    """
)
_SEEN = text(
    """
    UPDATE loose_files f SET since = now(), gone = w.gone
    FROM unnest(CAST(:tenants AS text[]), CAST(:hashes AS text[]), CAST(:gone AS boolean[]))
      AS w(tenant, content_hash, gone)
    WHERE f.tenant = w.tenant AND f.content_hash = w.content_hash
    """
)
_FORGET = text("DELETE FROM loose_files WHERE gone AND since < now() - make_interval(secs => :age)")
# Locked: the purger may be removing one, having looked before the put was accepted. In one order, or two puts
# of the same files would each wait for the other. One that is not gone stays loose, since the document may
# have a newer version by now.
_DOUBTFUL = text(
    """
    WITH held AS MATERIALIZED (
        SELECT tenant, content_hash, gone FROM loose_files
        WHERE tenant = :tenant AND content_hash = ANY(CAST(:hashes AS text[]))
        ORDER BY content_hash FOR UPDATE
    ), found AS (
        DELETE FROM loose_files f USING held
        WHERE f.tenant = held.tenant AND f.content_hash = held.content_hash AND held.gone
    )
    SELECT content_hash FROM held UNION
    SELECT h.content_hash FROM unnest(CAST(:hashes AS text[])) AS h(content_hash)
    WHERE EXISTS (SELECT FROM erasures e WHERE e.tenant = :tenant
                  AND (e.finished_at IS NULL OR e.finished_at > now() - make_interval(secs => :age)))
    """
)

File = tuple[str, str]
"""A tenant, and the hash of one of its files."""


async def loosen(connection: AsyncConnection, tenant: str, ids: Sequence[str]) -> None:
    """These documents (locked by the caller) have just got a version each: the one before needs no file."""
    await connection.execute(_LOOSEN, {"tenant": tenant, "ids": ids})


async def loosen_all(connection: AsyncConnection, tenant: str, ids: Sequence[str]) -> None:
    """The files of every version that these documents ever had."""
    await connection.execute(_LOOSEN_ALL, {"tenant": tenant, "ids": ids})


async def due(connection: AsyncConnection, window: float, limit: int) -> list[File]:
    """Files that have been loose for so long, kept as they are until the transaction ends."""
    rows = await connection.execute(_DUE, {"window": window, "limit": limit})
    return [(row.tenant, row.content_hash) for row in rows]


async def needed(connection: AsyncConnection, found: Sequence[File]) -> set[File]:
    """Those of them that a document or its visible version needs."""
    rows = await connection.execute(_NEEDED, {**_columns(found), "age": NOTED})
    return {(row.tenant, row.content_hash) for row in rows}


async def seen(connection: AsyncConnection, found: Sequence[File], gone: Sequence[File]) -> None:
    """Note which of these are gone; the others are looked at again later."""
    left = frozenset(gone)
    await connection.execute(_SEEN, {**_columns(found), "gone": [one in left for one in found]})
    await connection.execute(_FORGET, {"age": NOTED})


async def doubtful(connection: AsyncConnection, tenant: str, hashes: Sequence[str]) -> set[str]:
    """Those of these files, needed by documents that were accepted, that may have been removed before; the
    caller stores them again before the transaction ends. Waits for whoever does so, and for the purger."""
    values = {"tenant": tenant, "hashes": hashes, "age": NOTED}
    return set(await connection.scalars(_DOUBTFUL, values))


def _columns(found: Sequence[File]) -> dict[str, list[str]]:
    return {"tenants": [tenant for tenant, _ in found], "hashes": [digest for _, digest in found]}
