"""Searches in Milvus Lite's segments, for its server: whole columns at a time, and without waiting.

Milvus Lite 3.2 visits every row of every segment in Python for each search, waits while a flush or a merge
holds its lock, and rebuilds an index of what is not flushed. Here each change of the segments publishes a
`View` of them, with the rows that are live and the keyword index of each; a search takes the view that is
there and looks at nothing else. So a search sees what was flushed: a writer that flushes before it answers,
as ours does, loses nothing by it.

Keyword scores are those of the whole collection. Milvus Lite's own are those of the segment that a row is in:
to a segment of one row every word is common, so a document that was just added would not be found by its own
words. Part of the server's process: only `milvus_lite` imports this.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from milvus_lite.schema.types import DataType
from milvus_lite.search.filter import evaluate_mask

from retrieval.stores.memory import K1, B

Mask = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]
Terms = Mapping[int, float]
"""How often a row or a question has each term, by the term's hash."""

FILTERS = 16
"""Filters whose rows are remembered, for each segment: most questions of a tenant come with the same."""
_PAIR = np.dtype([("term", "<u4"), ("count", "<f4")])


class Postings:
    """The rows of one segment that have each term, and how often."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        """`column` holds each row's terms, packed."""
        packed = _whole(column)
        ends = np.frombuffer(packed.buffers()[1], np.int32)[packed.offset :][: len(packed) + 1]
        data = packed.buffers()[2] or pa.py_buffer(b"")
        pairs = np.frombuffer(data, _PAIR, (ends[-1] - ends[0]) // _PAIR.itemsize, ends[0])
        rows = np.repeat(np.arange(len(packed), dtype=np.int32), np.diff(ends) // _PAIR.itemsize)
        order = np.argsort(pairs["term"], kind="stable")
        self._terms, starts = np.unique(pairs["term"][order], return_index=True)
        self._bounds = np.append(starts, len(order))
        self._rows = rows[order]
        self._counts = pairs["count"][order].astype(np.float64)
        self.lengths: Scores = np.bincount(rows, pairs["count"], len(packed)).astype(np.float64)
        self.length = float(self.lengths.sum())

    def of(self, term: int) -> tuple[npt.NDArray[np.int32], Scores]:
        """The rows that have it, and how often each does."""
        place = int(np.searchsorted(self._terms, term))
        if place == len(self._terms) or self._terms[place] != term:
            return self._rows[:0], self._counts[:0]
        held = slice(self._bounds[place], self._bounds[place + 1])
        return self._rows[held], self._counts[held]


class Part:
    """One segment, the rows of it that are `live`, and what is computed for it once."""

    def __init__(self, segment: Any, dense: str, sparse: str, live: Mask) -> None:
        self.segment = segment
        self.live = live
        self.postings = Postings(segment.table.column(sparse))
        self.vectors: npt.NDArray[np.float32] = segment.vector_data(dense)[0]
        norms = np.linalg.norm(self.vectors, axis=1)
        self.norms = np.where(norms > 0, norms, 1.0)
        self._masks: OrderedDict[str, Mask] = OrderedDict()
        self._columns: dict[str, pa.Array] = {}

    def without(self, rows: Sequence[int]) -> Part:
        """The same, these rows dead."""
        other = object.__new__(Part)
        other.__dict__.update(self.__dict__)
        other.live = self.live.copy()
        other.live[rows] = False
        return other

    def meeting(self, text: str, compiled: Any) -> Mask:
        """The live rows that meet a filter."""
        if compiled is None:
            return self.live
        mask = self._masks.get(text)
        if mask is None:
            mask = self._masks[text] = evaluate_mask(compiled, self.segment.table)
            while len(self._masks) > FILTERS:
                self._masks.popitem(last=False)
        return self.live & mask

    def values(self, name: str, rows: Sequence[int]) -> list[Any]:
        if name not in self._columns:
            self._columns[name] = _whole(self.segment.table.column(name))
        values: list[Any] = self._columns[name].take(pa.array(rows, pa.int64())).to_pylist()
        return values


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


@dataclass(frozen=True)
class View:
    """What searches see. `marks` are the deletions that were flushed with it."""

    parts: tuple[Part, ...] = ()
    marks: Any = None
    seen: int = 0
    """How many deletions the live rows are without."""
    segments: tuple[Any, ...] = field(default=())

    @cached_property
    def rows(self) -> int:
        """Those that were deleted count until Milvus Lite merges them away."""
        return sum(len(part.live) for part in self.parts)

    @cached_property
    def mean_length(self) -> float:
        return sum(part.postings.length for part in self.parts) / max(self.rows, 1) or 1.0

    def cosine(self, vector: npt.NDArray[np.float32]) -> list[Scores]:
        """The score of every row of every part."""
        one = vector / (np.linalg.norm(vector) or 1.0)
        return [(part.vectors @ one / part.norms).astype(np.float64) for part in self.parts]

    def bm25(self, question: Terms) -> list[Scores]:
        """The score of every row of every part; 0 where none of the terms is."""
        scores = [np.zeros(len(part.live)) for part in self.parts]
        for term, times in question.items():
            held = [part.postings.of(term) for part in self.parts]
            holding = sum(len(rows) for rows, _ in held)
            # Kept above zero as Lucene does.
            weight = times * math.log(1 + (self.rows - holding + 0.5) / (holding + 0.5)) * (K1 + 1)
            for part, score, (rows, counts) in zip(self.parts, scores, held, strict=True):
                norms = K1 * (1 - B + B * part.postings.lengths[rows] / self.mean_length)
                score[rows] += weight * counts / (counts + norms)
        return scores


def install(collections: Any, marks: Any) -> None:
    """Let Milvus Lite's collections search here. `marks` is the class that keeps their deletions."""
    refresh, search, query = collections._refresh_segment_cache, collections.search, collections.query
    note = marks.add_batch

    def noted(index: Any, batch: Any) -> None:
        note(index, batch)
        index.added = getattr(index, "added", 0) + batch.num_rows

    def refreshed(collection: Any) -> None:
        """Milvus Lite calls it, its lock held, whenever segments were added, merged or replaced."""
        refresh(collection)
        collection.view = view_of(collection, getattr(collection, "view", View()))

    def searched(collection: Any, query_vectors: list[Any], top_k: int, **asked: Any) -> Any:
        if not _plain(collection, asked):
            return search(collection, query_vectors, top_k, **asked)
        return _search(collection, query_vectors, top_k, asked)

    def queried(collection: Any, expr: str | None = None, output_fields: Any = None, **asked: Any) -> Any:
        if collection._memtable.size() or any(asked.get(name) for name in _QUERY_OTHERS) or not expr:
            return query(collection, expr, output_fields, **asked)
        return _query(collection, expr, output_fields)

    marks.add_batch = noted
    collections._refresh_segment_cache = refreshed
    collections._read_snapshot = lambda collection: (collection.view.segments, collection.view.marks)
    collections.search = searched
    collections.query = queried


_SEARCH_OTHERS = ("partition_names", "group_by_field", "radius", "range_filter", "ranker", "offset")
_QUERY_OTHERS = ("partition_names", "limit", "offset", "order_by_pk")


@contextmanager
def prepared(collection: Any, segments: Iterable[Any]) -> Iterator[None]:
    """What searches want of segments that are about to be added, computed before anybody waits for it; for
    the view that is made in the block."""
    collection.prepared = {id(one): _part(collection, one) for one in segments}
    try:
        yield
    finally:
        collection.prepared = {}


def view_of(collection: Any, before: View) -> View:
    """The collection as it is now; what is known of its segments is kept. The caller holds its lock."""
    marks = collection._delta_index
    segments = tuple(segment for segment in collection._segment_cache.values() if segment.num_rows)
    added = getattr(marks, "added", 0)
    if segments == before.segments and before.marks is not None and added == before.seen:
        return before
    known = {id(part.segment): part for part in before.parts}
    ready = known | getattr(collection, "prepared", {})
    parts = {id(one): ready.get(id(one)) or _part(collection, one) for one in segments}
    new = [one for one in segments if id(one) not in known]
    for number, rows in _dead(segments, new, marks._map, all_marks=added != before.seen).items():
        parts[number] = parts[number].without(sorted(rows))
    return View(tuple(parts.values()), marks.frozen_copy(), added, segments)


def _part(collection: Any, segment: Any) -> Part:
    sparse = next(f.name for f in collection.schema.fields if f.dtype == DataType.SPARSE_FLOAT_VECTOR)
    return Part(segment, collection._vector_name, sparse, np.ones(segment.num_rows, bool))


def _dead(
    segments: Sequence[Any], new: Sequence[Any], marks: Mapping[Any, int], *, all_marks: bool
) -> dict[int, set[int]]:
    """Rows that were deleted, or replaced by a newer one, by their segment: of all segments where there are
    new marks, else of what the new segments change."""
    dead: dict[int, set[int]] = {}
    for segment in segments if all_marks else new:
        for name in marks.keys() & segment.pk_to_row.keys():
            row = segment.pk_to_row[name]
            if segment.seqs[row] < marks[name]:
                dead.setdefault(id(segment), set()).add(row)
    for one in new:
        for other in segments:
            if other is not one:
                for name in one.pk_to_row.keys() & other.pk_to_row.keys():
                    pairs = [(int(each.seqs[each.pk_to_row[name]]), id(each), each) for each in (one, other)]
                    older = min(pairs)[2]
                    dead.setdefault(id(older), set()).add(older.pk_to_row[name])
    return dead


def _plain(collection: Any, asked: Mapping[str, Any]) -> bool:
    """Whether it is a search of the kind that ours are."""
    wanted = asked.get("output_fields")
    known = {one.name for one in collection.schema.fields}
    return (
        not any(asked.get(name) for name in _SEARCH_OTHERS)
        and asked.get("metric_type") in ("COSINE", "BM25")
        and wanted is not None
        and known.issuperset(wanted)
    )


def _search(
    collection: Any, questions: Sequence[Any], top_k: int, asked: Mapping[str, Any]
) -> list[list[dict[str, Any]]]:
    collection._require_loaded()
    view: View = collection.view
    expression = asked.get("expr") or ""
    compiled = collection._compile_filter(expression, timezone=asked.get("timezone")) if expression else None
    masks = [part.meeting(expression, compiled) for part in view.parts]
    if asked["metric_type"] == "COSINE":
        scored = [view.cosine(np.asarray(one, np.float32)) for one in questions]
        return [_hits(collection, view, masks, one, top_k, asked, 1.0) for one in scored]
    terms = collection._prepare_sparse_queries(questions, asked["anns_field"])
    found = [view.bm25(one) for one in terms]
    masks_of = [[mask & (score > 0) for mask, score in zip(masks, one, strict=True)] for one in found]
    # Milvus Lite tells keyword scores below zero.
    return [
        _hits(collection, view, held, one, top_k, asked, -1.0)
        for held, one in zip(masks_of, found, strict=True)
    ]


def _hits(
    collection: Any,
    view: View,
    masks: Sequence[Mask],
    scores: Sequence[Scores],
    top_k: int,
    asked: Mapping[str, Any],
    sign: float,
) -> list[dict[str, Any]]:
    best: list[tuple[float, int, int]] = []
    for number, (mask, score) in enumerate(zip(masks, scores, strict=True)):
        rows = np.flatnonzero(mask)
        if len(rows) > top_k:
            rows = rows[np.argpartition(-score[rows], top_k - 1)[:top_k]]
        best += zip((-score[rows]).tolist(), [number] * len(rows), rows.tolist(), strict=True)
    best = sorted(best)[:top_k]
    names = [collection._pk_name, *(n for n in asked["output_fields"] if n != collection._pk_name)]
    entities = _entities(view, [(number, row) for _, number, row in best], names)
    return [
        {"id": entity[collection._pk_name], "distance": -negative * sign, "entity": entity}
        for (negative, _, _), entity in zip(best, entities, strict=True)
    ]


def _entities(view: View, places: Sequence[tuple[int, int]], names: Iterable[str]) -> list[dict[str, Any]]:
    """The rows at these places (part, row), in their order."""
    by_part: dict[int, list[int]] = {}
    for place, (number, _) in enumerate(places):
        by_part.setdefault(number, []).append(place)
    entities: list[dict[str, Any]] = [{} for _ in places]
    for number, held in by_part.items():
        rows = [places[place][1] for place in held]
        for name in names:
            for place, value in zip(held, view.parts[number].values(name, rows), strict=True):
                entities[place][name] = value
    return entities


def _query(collection: Any, expression: str, wanted: Sequence[str] | None) -> list[dict[str, Any]]:
    collection._require_loaded()
    view: View = collection.view
    compiled = collection._compile_filter(expression)
    places = [
        (number, int(row))
        for number, part in enumerate(view.parts)
        for row in np.flatnonzero(part.meeting(expression, compiled))
    ]
    fields = [one.name for one in collection.schema.fields]
    names = dict.fromkeys([collection._pk_name, *(wanted if wanted is not None else fields)])
    return _entities(view, places, names)
