"""Passages and an index as the tests make them: one place to mend when either gets another field."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from retrieval.types import Chunk, IndexSpec, MetadataValue, Span

INDEX = IndexSpec(
    embedder="e" * 64,
    dimension=16,
    chunker="structure",
    chunk_tokens=200,
    chunk_overlap=0,
    header_template="",
    analyzer="plain",
    parser="1",
)


def passage(
    text: str = "",
    *,
    document_id: str,
    revision: int,
    ordinal: int = 0,
    tenant: str = "acme",
    collection: str = "default",
    title: str = "",
    heading: str = "",
    start: int = 0,
    groups: Iterable[str] = (),
    metadata: Mapping[str, MetadataValue] | None = None,
) -> Chunk:
    """One whose text is the document's from `start` on."""
    return Chunk(
        id=f"{revision}-{ordinal}",
        tenant=tenant,
        collection=collection,
        document_id=document_id,
        revision=revision,
        ordinal=ordinal,
        content_hash=hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest(),
        title=title,
        heading=heading,
        text=text,
        page=None,
        span=Span(start, start + len(text)),
        groups=frozenset(groups),
        metadata=metadata or {},
    )
