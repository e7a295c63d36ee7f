"""SQL about original files that no document may need any more, and what becomes of them.

A replaced or deleted version leaves its file *loose*. Once no put can be under way that found the file there
already, the purger removes it from the blob store, unless a document needs it, and notes that it is gone: a
put that accepted the same bytes meanwhile finds the note, and stores them again.
"""

# SQL is put together from this file's constants only; every value is bound.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

NOTED = 3600.0
"""How long it is noted that a file is gone, in seconds."""

# The version before the newest, of documents that the caller has locked.
_BEFORE = """
    SELECT DISTINCT d.tenant, before.content_hash FROM documents d CROSS JOIN LATERAL (
        SELECT v.content_hash FROM versions v
        WHERE v.tenant = d.tenant AND v.document_id = d.id AND v.version < d.newest_version
        ORDER BY v.version DESC LIMIT 1
    ) AS before
    WHERE d.tenant = :tenant AND d.id = ANY(CAST(:ids AS text[])) AND before.content_hash <> d.content_hash
"""
_LOOSEN = text(
    f"""
    INSERT INTO loose_files (tenant, content_hash) {_BEFORE} ORDER BY before.content_hash
    ON CONFLICT (tenant, content_hash) DO UPDATE SET since = now()
    """
)
_LOOSEN_ALL = text(
    """
    INSERT INTO loose_files (tenant, content_hash)
    SELECT DISTINCT tenant, content_hash FROM versions
    WHERE tenant = :tenant AND document_id = ANY(CAST(:ids AS text[])) AND content_hash IS NOT NULL
    ORDER BY content_hash ON CONFLICT DO NOTHING
    """
)
# Those that are loosened next are locked, too: in one order, or two puts that swap contents would each wait
# for the other.
_TIGHTEN = text(
    f"""
    WITH held AS MATERIALIZED (
        SELECT tenant, content_hash FROM loose_files
        WHERE tenant = :tenant AND (content_hash = ANY(CAST(:hashes AS text[]))
            OR content_hash IN (SELECT content_hash FROM ({_BEFORE}) AS replaced))
        ORDER BY content_hash FOR UPDATE
    )
    DELETE FROM loose_files f USING held
    WHERE f.tenant = held.tenant AND f.content_hash = held.content_hash
      AND f.content_hash = ANY(CAST(:hashes AS text[])) AND NOT f.gone
    """
)
_DUE = text(
    """
    SELECT tenant, content_hash FROM loose_files
    WHERE NOT gone AND since < now() - make_interval(secs => :window)
    ORDER BY since LIMIT :limit FOR UPDATE SKIP LOCKED
    """
)
# A file that a document needs is loosened again when that one is replaced or deleted. Each is looked up by
# its hash as it came, since the collation of `loose_files` is not that of the index, and by itself, since
# without statistics all documents of a tenant would be read for each.
_NEEDED = text(
    """
    WITH found AS (
        SELECT * FROM unnest(CAST(:tenants AS text[]), CAST(:hashes AS text[])) AS f(tenant, content_hash)
    ), held AS (
        DELETE FROM loose_files f USING found CROSS JOIN LATERAL (
            SELECT FROM documents d
            WHERE d.tenant = found.tenant AND d.content_hash = found.content_hash AND NOT d.deleted LIMIT 1
        ) AS needs
        WHERE f.tenant = found.tenant AND f.content_hash = found.content_hash
        RETURNING f.tenant, f.content_hash
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
# Those that are not gone are locked, too: the purger may be removing one, having looked before the put was
# accepted. In one order, or two puts of the same files would each wait for the other.
_GONE = text(
    """
    WITH held AS MATERIALIZED (
        SELECT tenant, content_hash, gone FROM loose_files
        WHERE tenant = :tenant AND content_hash = ANY(CAST(:hashes AS text[]))
        ORDER BY content_hash FOR UPDATE
    )
    DELETE FROM loose_files f USING held
    WHERE f.tenant = held.tenant AND f.content_hash = held.content_hash AND held.gone
    RETURNING f.content_hash
    """
)

File = tuple[str, str]
"""A tenant, and the hash of one of its files."""


async def replaced(
    connection: AsyncConnection, tenant: str, ids: Sequence[str], hashes: Sequence[str]
) -> None:
    """These documents (locked by the caller) have just got a version each: its file, one of `hashes`, is
    needed from now on, that of the one before is not. Waits for whoever is removing one of `hashes`."""
    await connection.execute(_TIGHTEN, {"tenant": tenant, "ids": ids, "hashes": hashes})
    await loosen(connection, tenant, ids)


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
    rows = await connection.execute(_NEEDED, _columns(found))
    return {(row.tenant, row.content_hash) for row in rows}


async def seen(connection: AsyncConnection, found: Sequence[File], gone: Sequence[File]) -> None:
    """Note which of these are gone; the others are looked at again later."""
    left = frozenset(gone)
    await connection.execute(_SEEN, {**_columns(found), "gone": [one in left for one in found]})
    await connection.execute(_FORGET, {"age": NOTED})


async def missing(connection: AsyncConnection, tenant: str, hashes: Sequence[str]) -> set[str]:
    """Those of these files that were removed; the caller stores them again before the transaction ends. Waits
    for whoever is doing so, and for the purger."""
    return set(await connection.scalars(_GONE, {"tenant": tenant, "hashes": hashes}))


def _columns(found: Sequence[File]) -> dict[str, list[str]]:
    return {"tenants": [tenant for tenant, _ in found], "hashes": [digest for _, digest in found]}
