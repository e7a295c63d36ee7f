"""Rows as the tests of stores write them, the index that holds them, and who asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from retrieval.types import (
    Condition,
    Dense,
    Filter,
    MetadataValue,
    Query,
    Row,
    Store,
    Vector,
)
from tests.passages import INDEX, passage

DIMENSION = INDEX.dimension
SPEC = INDEX


def axis(number: int) -> Vector:
    vector = np.zeros(DIMENSION, np.float32)
    vector[number] = 1
    return vector


def near(share: float) -> Vector:
    """A unit vector whose cosine to `axis(0)` is `share`."""
    return np.asarray(share * axis(0) + np.sqrt(1 - share * share) * axis(1), np.float32)


def row(
    revision: int,
    ordinal: int = 0,
    *,
    tenant: str = "acme",
    collection: str = "default",
    document_id: str = "",
    groups: Iterable[str] = (),
    metadata: Mapping[str, MetadataValue] | None = None,
    text: str = "some text",
    terms: str = "some text",
    vector: Vector | None = None,
) -> Row:
    chunk = passage(
        text,
        document_id=document_id or f"doc-{revision}",
        revision=revision,
        ordinal=ordinal,
        tenant=tenant,
        collection=collection,
        title="The title",
        heading="Part > Section",
        start=3,
        groups=groups,
        metadata=metadata,
    )
    return Row(chunk=chunk, vector=axis(0) if vector is None else vector, terms=terms)


def everyone(
    tenant: str = "acme",
    *,
    collections: tuple[str, ...] = (),
    document_ids: tuple[str, ...] = (),
    where: Condition | None = None,
) -> Filter:
    """Of all groups of a tenant."""
    return Filter(tenant=tenant, groups=None, collections=collections, document_ids=document_ids, where=where)


ANYTHING = Dense(axis(0))


async def ids(
    store: Store,
    generation: str,
    where: Filter,
    query: Query = ANYTHING,
    limit: int = 100,
    exclude: Iterable[int] = (),
) -> list[str]:
    hits = await store.search(generation, query, where, limit, frozenset(exclude))
    return [hit.chunk.id for hit in hits]
