"""Rows as flat records, for stores that hold columns, and chunks back from them.

What a search filters by or reports is a column; the rest of a chunk is one JSON text, `details`, because
Milvus Lite pays for each column of each row that it returns (a fifth of a search, were each field one).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from retrieval.errors import RowInvalid
from retrieval.stores.expressions import REST, columns
from retrieval.types import Chunk, Row, Span

Record = dict[str, Any]

NAME_BYTES = 1024
TEXT_BYTES = 65_535
FACT_BYTES = 64
NAMES = ("id", "tenant", "collection", "document_id")
TEXTS = ("text", "details", REST, "terms")
NUMBERS = ("revision", "ordinal")
READ = [*NAMES, *NUMBERS, "text", "details"]
"""The columns that `to_chunk` needs."""


def to_record(row: Row) -> Record:
    """Raises `RowInvalid` when a text is too long for its column or not valid Unicode."""
    chunk = row.chunk
    record: Record = {
        **_plain(chunk),
        **columns(chunk),
        "terms": row.terms,
        "vector": row.vector,
    }
    for name in NAMES:
        _check(chunk.id, name, record[name], NAME_BYTES)
    for name in TEXTS:
        _check(chunk.id, name, record[name], TEXT_BYTES)
    return record


def to_chunk(record: Mapping[str, Any]) -> Chunk:
    details = json.loads(record["details"])
    start, end = details["span"]
    return Chunk(
        id=record["id"],
        tenant=record["tenant"],
        collection=record["collection"],
        document_id=record["document_id"],
        revision=record["revision"],
        ordinal=record["ordinal"],
        content_hash=details["content_hash"],
        title=details["title"],
        heading=details["heading"],
        text=record["text"],
        page=details["page"],
        span=Span(start, end),
        groups=frozenset(details["groups"]),
        metadata=details["metadata"],
    )


def to_text(chunk: Chunk) -> str:
    """The whole chunk as one JSON text, for stores that hold it aside."""
    return json.dumps(_plain(chunk), ensure_ascii=False, separators=(",", ":"))


def from_text(text: str) -> Chunk:
    return to_chunk(json.loads(text))


def _plain(chunk: Chunk) -> Record:
    return {
        "id": chunk.id,
        "tenant": chunk.tenant,
        "collection": chunk.collection,
        "document_id": chunk.document_id,
        "revision": chunk.revision,
        "ordinal": chunk.ordinal,
        "text": chunk.text,
        "details": _details(chunk),
    }


def _details(chunk: Chunk) -> str:
    details = {
        "content_hash": chunk.content_hash,
        "title": chunk.title,
        "heading": chunk.heading,
        "page": chunk.page,
        "span": [chunk.span.start, chunk.span.end],
        "groups": sorted(chunk.groups),
        "metadata": dict(chunk.metadata),
    }
    return json.dumps(details, ensure_ascii=False, separators=(",", ":"))


def _check(chunk_id: str, name: str, text: str, limit: int) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise RowInvalid(f"The {name} of chunk {chunk_id!r} is not valid Unicode.") from None
    if size > limit:
        raise RowInvalid(f"The {name} of chunk {chunk_id!r} has {size} bytes; the store takes {limit}.")
