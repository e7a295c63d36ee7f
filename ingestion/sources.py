"""SQL about where vectors may be found that are wanted again: the revisions that readers see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from retrieval.types import IndexSpec


@dataclass(frozen=True, slots=True)
class Wanted:
    """A document whose texts are to be embedded: `file` is its file's hash, `hashes` its texts'."""

    tenant: str
    document_id: str
    file: str
    hashes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Source:
    """A visible revision whose rows may hold vectors that are wanted."""

    tenant: str
    generation: str
    revision: int
    chunks: int


# A file may be in any number of documents: a few of them are enough.
_SOURCES = text(
    """
    SELECT DISTINCT v.tenant, v.generation, v.revision, v.chunks
    FROM unnest(CAST(:tenants AS text[]), CAST(:documents AS text[]), CAST(:files AS text[]))
      AS w(tenant, document_id, file)
    CROSS JOIN LATERAL (
        (SELECT s.* FROM visibility s WHERE s.tenant = w.tenant AND s.document_id = w.document_id)
        UNION ALL
        (SELECT s.* FROM visibility s WHERE s.tenant = w.tenant AND s.content_hash = w.file LIMIT 4)
    ) AS v
    JOIN generations g ON g.id = v.generation AND g.state <> 'retired'
      AND g.spec ->> 'embedder' = CAST(:embedder AS text)
      AND COALESCE(g.spec ->> 'document_prefix', '') = CAST(:prefix AS text)
    ORDER BY v.revision DESC
    """
)


async def sources(connection: AsyncConnection, spec: IndexSpec, wanted: Sequence[Wanted]) -> list[Source]:
    """Visible revisions of these documents, or of the same files, in indexes whose vectors are of the same
    embedder and prefix, newest first."""
    values = {
        "tenants": [one.tenant for one in wanted],
        "documents": [one.document_id for one in wanted],
        "files": [one.file for one in wanted],
        "embedder": spec.embedder,
        "prefix": spec.document_prefix,
    }
    rows = await connection.execute(_SOURCES, values)
    return [Source(row.tenant, row.generation, row.revision, row.chunks) for row in rows]
