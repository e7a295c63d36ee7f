"""The store in memory, and the oracle: exact dense search, textbook BM25, and the filter as it is defined.

The contract tests hold every other store against this one. It keeps nothing when the process ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from retrieval.conditions import holds
from retrieval.errors import StoreUnavailable
from retrieval.stores.filters import check
from retrieval.types import Chunk, Dense, Filter, Hit, IndexSpec, Matrix, Query, Row, Vector

# Those of Milvus Lite, where they cannot be set, so that the stores agree.
K1 = 1.5
B = 0.75

Scores = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
V = TypeVar("V", bound=Hashable)


class MemoryStore:
    """A `Store` of plain dictionaries: chunk id to row, for each generation."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Row]] = {}
        self._indexes: dict[str, _Index] = {}

    async def prepare(self, generation: str, spec: IndexSpec) -> None:
        self._rows.setdefault(generation, {})

    async def upsert(self, generation: str, rows: Sequence[Row]) -> None:
        self._of(generation).update({row.chunk.id: row for row in rows})
        self._indexes.pop(generation, None)

    async def search(
        self, generation: str, query: Query, where: Filter, limit: int, exclude: frozenset[int]
    ) -> list[Hit]:
        check(where)
        index = self._index(generation)
        scores = index.dense(query.vector) if isinstance(query, Dense) else index.keyword(query.terms)
        scores[~index.allowed(where, exclude)] = -np.inf
        # All rows in order only where metadata must be read to know which of them count.
        ranked = _best(scores, limit if where.where is None else len(scores))
        found = ((index.rows[number], float(scores[number])) for number in ranked)
        return [
            Hit(row.chunk, score, row.vector)
            for row, score in islice((one for one in found if _meets(one[0], where)), max(limit, 0))
        ]

    async def read(self, generation: str, tenant: str, ids: Sequence[str]) -> list[Chunk]:
        rows = self._of(generation)
        found = [rows[key].chunk for key in ids if key in rows]
        return [chunk for chunk in found if chunk.tenant == tenant]

    async def vectors(self, generation: str, tenant: str, ids: Sequence[str]) -> dict[str, Vector]:
        rows = self._of(generation)
        found = [rows[key] for key in ids if key in rows]
        return {row.chunk.content_hash: row.vector for row in found if row.chunk.tenant == tenant}

    async def remove(self, generation: str, revisions: Collection[int]) -> None:
        gone = frozenset(revisions)
        rows = self._rows.get(generation, {})
        for key in [key for key, row in rows.items() if row.chunk.revision in gone]:
            del rows[key]
        self._indexes.pop(generation, None)

    async def purge(self, generation: str) -> bool:
        """It holds nothing that was removed."""
        return True

    async def drop(self, generation: str) -> None:
        self._rows.pop(generation, None)
        self._indexes.pop(generation, None)

    async def ping(self) -> None:
        """It is always there."""

    async def close(self) -> None:
        """It holds nothing to give back."""

    def _of(self, generation: str) -> dict[str, Row]:
        try:
            return self._rows[generation]
        except KeyError:
            raise StoreUnavailable(f"The generation {generation} is not prepared.") from None

    def _index(self, generation: str) -> _Index:
        """Built anew by the first search after a write."""
        if generation not in self._indexes:
            self._indexes[generation] = _build(self._of(generation))
        return self._indexes[generation]


@dataclass(frozen=True, slots=True)
class _Index:
    """Rows by chunk id, so that a stable sort breaks ties by it; `postings`: term to rows and counts.

    `tenants`, `collections`, `documents` and `rights` number the values that occur; the arrays hold each
    row's number, so that a filter is decided once for each value."""

    rows: list[Row]
    vectors: Matrix
    postings: dict[str, tuple[npt.NDArray[np.int64], Scores]]
    norms: Scores
    revisions: npt.NDArray[np.int64]
    tenants: _Column[str]
    collections: _Column[str]
    documents: _Column[str]
    rights: _Column[frozenset[str]]

    def allowed(self, where: Filter, exclude: frozenset[int]) -> Mask:
        """The rows that the filter lets through, its condition on metadata apart."""
        mask = self.tenants.any_of([where.tenant])
        if where.groups is not None:
            readable = [names for names in self.rights.numbers if not names or names & where.groups]
            mask &= self.rights.any_of(readable)
        if where.collections:
            mask &= self.collections.any_of(where.collections)
        if where.document_ids:
            mask &= self.documents.any_of(where.document_ids)
        if exclude:
            mask &= ~np.isin(self.revisions, list(exclude))
        return mask

    def dense(self, vector: npt.NDArray[np.float32]) -> Scores:
        """Cosine of each row, all vectors being normalised."""
        return (self.vectors @ vector).astype(np.float64) if self.rows else np.empty(0)

    def keyword(self, terms: str) -> Scores:
        """BM25 of each row (Robertson and Zaragoza 2009; idf kept above zero as Lucene does), minus
        infinity where it shares no term. Its statistics are those of the whole generation."""
        scores = np.zeros(len(self.rows))
        for term, times in Counter(terms.split()).items():
            if term in self.postings:
                numbers, counts = self.postings[term]
                idf = np.log(1 + (len(self.rows) - len(numbers) + 0.5) / (len(numbers) + 0.5))
                scores[numbers] += times * idf * counts * (K1 + 1) / (counts + K1 * self.norms[numbers])
        scores[scores == 0] = -np.inf
        return scores


@dataclass(frozen=True, slots=True)
class _Column(Generic[V]):
    numbers: dict[V, int]
    rows: npt.NDArray[np.int64]

    @classmethod
    def of(cls, values: Iterable[V]) -> _Column[V]:
        numbers: dict[V, int] = {}
        rows = [numbers.setdefault(value, len(numbers)) for value in values]
        return cls(numbers, np.array(rows, np.int64))

    def any_of(self, values: Iterable[V]) -> Mask:
        wanted = np.zeros(len(self.numbers), bool)
        wanted[[self.numbers[value] for value in values if value in self.numbers]] = True
        return wanted[self.rows]


def _best(scores: Scores, limit: int) -> npt.NDArray[np.int64]:
    """The numbers of the `limit` best rows that have a score, best first, rows of one score in their order;
    all who share the last place come along."""
    if 0 < limit < len(scores):
        last = np.partition(scores, -limit)[-limit]
        numbers = np.flatnonzero(scores >= max(last, np.finfo(np.float64).min))
    else:
        numbers = np.flatnonzero(scores > -np.inf)
    order: npt.NDArray[np.int64] = numbers[np.argsort(-scores[numbers], kind="stable")]
    return order


def _meets(row: Row, where: Filter) -> bool:
    return where.where is None or holds(where.where, row.chunk.metadata)


def _build(stored: dict[str, Row]) -> _Index:
    rows = [stored[key] for key in sorted(stored)]
    chunks = [row.chunk for row in rows]
    postings: dict[str, tuple[list[int], list[int]]] = {}
    for number, row in enumerate(rows):
        for term, count in Counter(row.terms.split()).items():
            numbers, counts = postings.setdefault(term, ([], []))
            numbers.append(number)
            counts.append(count)
    lengths = np.array([len(row.terms.split()) for row in rows], np.float64)
    return _Index(
        rows=rows,
        vectors=np.stack([row.vector for row in rows]) if rows else np.empty((0, 0), np.float32),
        postings={term: (np.array(n), np.array(c, np.float64)) for term, (n, c) in postings.items()},
        norms=1 - B + B * lengths / lengths.mean() if lengths.any() else lengths,
        revisions=np.array([chunk.revision for chunk in chunks], np.int64),
        tenants=_Column.of(chunk.tenant for chunk in chunks),
        collections=_Column.of(chunk.collection for chunk in chunks),
        documents=_Column.of(chunk.document_id for chunk in chunks),
        rights=_Column.of(chunk.groups for chunk in chunks),
    )
