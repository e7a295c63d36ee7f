"""The store in memory, and the oracle: exact dense search, textbook BM25, and the filter as it is defined.

The contract tests hold every other store against this one. It keeps nothing when the process ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.errors import StoreUnavailable
from retrieval.stores.filters import check, matches
from retrieval.types import Chunk, Dense, Filter, Hit, IndexSpec, Matrix, Query, Row

# Those of Milvus Lite, where they cannot be set, so that the stores agree.
K1 = 1.5
B = 0.75

Scores = npt.NDArray[np.float64]


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
        hits: list[Hit] = []
        for number in np.argsort(-scores, kind="stable"):
            if len(hits) >= limit or scores[number] == -np.inf:
                break
            chunk = index.rows[number].chunk
            if chunk.revision not in exclude and matches(chunk, where):
                hits.append(Hit(chunk, float(scores[number])))
        return hits

    async def read(self, generation: str, tenant: str, ids: Sequence[str]) -> list[Chunk]:
        rows = self._of(generation)
        found = [rows[key].chunk for key in ids if key in rows]
        return [chunk for chunk in found if chunk.tenant == tenant]

    async def remove(self, generation: str, revisions: Collection[int]) -> None:
        gone = frozenset(revisions)
        rows = self._rows.get(generation, {})
        for key in [key for key, row in rows.items() if row.chunk.revision in gone]:
            del rows[key]
        self._indexes.pop(generation, None)

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
    """Rows by chunk id, so that a stable sort breaks ties by it; `postings`: term to rows and counts."""

    rows: list[Row]
    vectors: Matrix
    postings: dict[str, tuple[npt.NDArray[np.int64], Scores]]
    lengths: Scores

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
                norm = 1 - B + B * self.lengths[numbers] / self.lengths.mean()
                scores[numbers] += times * idf * counts * (K1 + 1) / (counts + K1 * norm)
        scores[scores == 0] = -np.inf
        return scores


def _build(stored: dict[str, Row]) -> _Index:
    rows = [stored[key] for key in sorted(stored)]
    postings: dict[str, tuple[list[int], list[int]]] = {}
    for number, row in enumerate(rows):
        for term, count in Counter(row.terms.split()).items():
            numbers, counts = postings.setdefault(term, ([], []))
            numbers.append(number)
            counts.append(count)
    return _Index(
        rows=rows,
        vectors=np.stack([row.vector for row in rows]) if rows else np.empty((0, 0), np.float32),
        postings={term: (np.array(n), np.array(c, np.float64)) for term, (n, c) in postings.items()},
        lengths=np.array([len(row.terms.split()) for row in rows], np.float64),
    )
