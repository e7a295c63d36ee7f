"""Milvus Lite's server, with keyword scores that mean the same in every segment.

    python -m retrieval.stores.milvus_lite server --data-dir DIR --host HOST --port PORT

Milvus Lite 3.2 scores a row by the statistics of the segment that it lies in. To a segment of one row every
word is common, so a document that was just added would score next to nothing, and not be found by its own
words. Here the statistics are those of the whole collection, as a TODO in its `_search_sparse` says they
should be, and the rows of a term are scored at once. What it stores is not changed. A process of its own:
nothing else of the project may import this.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection as Several
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from milvus_lite import cmdline
from milvus_lite.analyzer.sparse import bytes_to_sparse
from milvus_lite.engine.collection import Collection
from milvus_lite.index import sparse_factory
from milvus_lite.index.sparse_common import empty_results
from milvus_lite.index.sparse_inverted import SparseInvertedIndex

Terms = dict[int, float]
"""How often a row or a question has each term, by the term's hash."""
Postings = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""The rows that have a term, by their number in the segment, and how often each has it."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of all segments together. Rows that were deleted count until Milvus Lite merges them away."""

    segments: Several[Bm25]

    @property
    def rows(self) -> int:
        return sum(segment.doc_count for segment in self.segments)

    @property
    def mean_length(self) -> float:
        return sum(segment.length for segment in self.segments) / max(self.rows, 1) or 1.0

    def weight(self, term: int) -> float:
        """Its inverse document frequency, kept above zero as Lucene does."""
        holding = sum(segment.holding(term) for segment in self.segments)
        return math.log(1 + (self.rows - holding + 0.5) / (holding + 0.5))


class Bm25(SparseInvertedIndex):  # type: ignore[misc]
    """The rows of one segment, scored as part of `whole`."""

    def build(self, sparse_vectors: Sequence[Terms], valid_mask: Any = None) -> None:
        valid = [True] * len(sparse_vectors) if valid_mask is None else valid_mask
        rows = [terms if kept else {} for terms, kept in zip(sparse_vectors, valid, strict=True)]
        postings: dict[int, tuple[list[int], list[float]]] = {}
        for number, terms in enumerate(rows):
            for term, count in terms.items():
                numbers, counts = postings.setdefault(term, ([], []))
                numbers.append(number)
                counts.append(count)
        self._postings: dict[int, Postings] = {
            term: (np.array(numbers), np.array(counts, np.float64))
            for term, (numbers, counts) in postings.items()
        }
        self._lengths = np.array([sum(terms.values()) for terms in rows])
        self.length = float(self._lengths.sum())
        self.doc_count = sum(map(bool, valid))
        self.whole = Statistics([self])

    def holding(self, term: int) -> int:
        """How many rows have it."""
        return len(self._postings[term][0]) if term in self._postings else 0

    def search(self, query_sparse_vectors: Sequence[Terms], top_k: int, valid_mask: Any = None) -> Any:
        """Numbers of rows, and scores below zero, of shape (questions, top_k)."""
        numbers, distances = empty_results(len(query_sparse_vectors), top_k)
        for place, terms in enumerate(query_sparse_vectors):
            scores = self._scores(terms)
            if valid_mask is not None:
                scores[~np.asarray(valid_mask, bool)] = 0
            found = np.flatnonzero(scores)
            best = found[np.argsort(-scores[found], kind="stable")][:top_k]
            numbers[place, : len(best)] = best
            distances[place, : len(best)] = -scores[best]
        return numbers, distances

    def _scores(self, question: Terms) -> npt.NDArray[np.float64]:
        scores = np.zeros(len(self._lengths))
        norms = self.k1 * (1 - self.b + self.b * self._lengths / self.whole.mean_length)
        for term, times in question.items():
            if term in self._postings:
                rows, counts = self._postings[term]
                weight = times * self.whole.weight(term) * (self.k1 + 1)
                scores[rows] += weight * counts / (counts + norms[rows])
        return scores


def main() -> int:
    """Milvus Lite's own command, with the index and the search changed."""
    create, search = sparse_factory.create_sparse_index, Collection._search_sparse

    def index(metric_type: str, params: dict[str, Any]) -> Any:
        made = create(metric_type, params)
        return Bm25(k1=made.k1, b=made.b) if isinstance(made, SparseInvertedIndex) else made

    def search_sparse(collection: Any, **asked: Any) -> Any:
        if asked["metric_type"] == "BM25":
            _join(collection, asked["vector_field"])
        return search(collection, **asked)

    sparse_factory.create_sparse_index = index
    Collection._search_sparse = search_sparse
    return int(cmdline.main() or 0)


def _join(collection: Any, field: str) -> None:
    """Build the index of every segment that has none yet, and let each know the others."""
    spec = collection._index_specs.get(field)
    indexes = []
    for segment in collection._read_snapshot()[0]:
        if segment.table is None or not len(segment.table):
            continue
        if field not in segment.sparse_indexes:
            made = sparse_factory.create_sparse_index("BM25", spec.build_params if spec else {})
            rows = segment.table.column(field).to_pylist()
            made.build([bytes_to_sparse(row) if isinstance(row, bytes) else row or {} for row in rows])
            segment.sparse_indexes[field] = made
        indexes.append(segment.sparse_indexes[field])
    whole = Statistics(indexes)
    for each in indexes:
        each.whole = whole


if __name__ == "__main__":
    sys.exit(main())
