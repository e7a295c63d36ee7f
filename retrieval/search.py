"""From a question to the passages that its asker may see now, best first.

The question is embedded and asked of the dense and the keyword index side by side; the two lists are fused;
the ledger then says which revisions are visible. A store may still hold rows of an older, deleted or
half-written revision, and such a row may have taken the place of one that should be found: if any was
dropped, the search is made again without its revision. So it is if a revision became visible while the stores
were asked, since they may have seen some of its rows only. What is left is smoothed, grouped and reranked.

Hits of which this process saw before that they are visible need no such question: meanwhile the ledger was
asked for the epoch, and while that is the one at which they were seen nothing has changed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from retrieval.affinity import smooth
from retrieval.analyze import languages
from retrieval.beside import aside, beside
from retrieval.embedders.prefixed import fitted
from retrieval.errors import EmbedderUnavailable, RerankerUnavailable, StoreUnavailable, TextTooLong
from retrieval.fusion import NOTHING, Scaled, fuse, scaled
from retrieval.seen import AT_ONCE, Known, Seen
from retrieval.types import (
    Analyzer,
    Chunk,
    Dense,
    Embedder,
    Filter,
    Found,
    Hit,
    Keyword,
    Query,
    Reranker,
    SearchParams,
    Store,
    Vector,
    Visibility,
)

LOST = "index"
"""What a search goes without that was made in an index which has lost rows."""
_SEARCHES = 3
_DEEPER = 4
# Milvus returns no more than this.
_DEEPEST = 16_384
_RERANK_SECONDS = 5.0
_FRESH = 0.25
"""Seconds for which the epoch that was asked for when a search began speaks for its hits: what has become
invisible since may be on its way out of the store."""


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Index:
    """A generation with everything that its questions need. `lost` tells whether rows of it were missing when
    somebody looked last; it asks nobody."""

    generation: str
    store: Store
    embedder: Embedder
    analyzer: Analyzer
    visibility: Visibility
    reranker: Reranker | None = None
    seen: Seen = field(default_factory=Seen)
    lost: Callable[[], bool] = _never


async def search(
    index: Index,
    query: str,
    where: Filter,
    params: SearchParams,
    *,
    limit: int | None = None,
    group_by_document: bool = False,
    rerank_seconds: float | None = None,
) -> Found:
    """The best `limit` hits (by default the release's number), scores in [0, 1]; with `group_by_document`
    only the best one of each document. The index's reranker has `rerank_seconds` (5 by default); with none
    left it is not asked.

    `degraded` names what the search did without: `dense` or `keyword` (that index, or the embedder, could
    not answer), `query_truncated` (only the beginning of the question fitted the embedder), `visibility`
    (rows kept changing, so one that should be found may be missing), `index` (it has lost rows, so any may
    be missing), `rerank` (hits are in fused order).
    Raises `StoreUnavailable` or `EmbedderUnavailable` when neither index could answer, and whatever the
    `Visibility` raises.
    """
    wanted = params.limit if limit is None else limit
    depth = max(params.candidates, wanted)
    question = _Question(index, query, where, params)
    hits = await question.visible(depth, None if group_by_document else max(wanted, params.rerank))
    while group_by_document:
        hits = _best_of_each_document(hits)
        if len(hits) >= wanted or question.exhausted or depth >= _DEEPEST:
            break
        depth = min(depth * _DEEPER, _DEEPEST)
        hits = await question.visible(depth)
    hits, missing = await _reranked(index.reranker, query, hits, params.rerank, rerank_seconds)
    return Found(tuple(hits[:wanted]), (*question.degraded, *missing))


async def _reranked(
    reranker: Reranker | None, query: str, hits: list[Hit], depth: int, seconds: float | None
) -> tuple[list[Hit], tuple[str, ...]]:
    """The best `depth` hits in the reranker's order and with its scores, and what that went without."""
    if reranker is None or depth == 0 or not hits:
        return hits, ()
    seconds = _RERANK_SECONDS if seconds is None else seconds
    if seconds <= 0:
        return hits, ("rerank",)
    best, rest = hits[:depth], hits[depth:]
    texts = [_readable(hit.chunk) for hit in best]
    try:
        scores = await reranker.rerank(query, texts, seconds)
    except RerankerUnavailable:
        return hits, ("rerank",)
    least = min(scores)
    ordered = [Hit(hit.chunk, score, hit.vector) for hit, score in zip(best, scores, strict=True)]
    ordered.sort(key=lambda hit: (-hit.score, hit.chunk.id))
    return [*ordered, *(Hit(hit.chunk, hit.score * least, hit.vector) for hit in rest)], ()


def _readable(chunk: Chunk) -> str:
    """The passage under its title and headings, without which it may not say what it is about."""
    return "\n".join(part for part in (chunk.title, chunk.heading, chunk.text) if part)


def _best_of_each_document(hits: Iterable[Hit]) -> list[Hit]:
    best: dict[str, Hit] = {}
    for hit in hits:
        best.setdefault(hit.chunk.document_id, hit)
    return list(best.values())


async def _learn(index: Index, where: Filter) -> None:
    epoch, revisions = await index.visibility.all_visible(index.generation, where, AT_ONCE)
    index.seen.see(where, epoch, revisions)


class _Question:
    """One question while it is searched for: its vector, the revisions to pass over, and the ways to ask
    it. A way that fails is not tried again, so that an outage costs one timeout.

    `exhausted` says that the last search saw everything that matches.
    """

    def __init__(self, index: Index, query: str, where: Filter, params: SearchParams) -> None:
        self._index = index
        self._query = query
        self._where = where
        self._params = params
        self._terms: str | None = None
        self._arms = list(_ARMS)
        self._failed: list[str] = []
        self._vector: Vector | None = None
        self._truncated = False
        self._hidden: frozenset[tuple[str, int]] = frozenset()
        self._settled = True
        self.exhausted = False

    @property
    def degraded(self) -> tuple[str, ...]:
        also = {
            "query_truncated": self._truncated,
            "visibility": not self._settled,
            LOST: self._index.lost(),
        }
        return (*self._failed, *(name for name, true in also.items() if true))

    async def visible(self, depth: int, wanted: int | None = None) -> list[Hit]:
        """Hits of visible revisions, fused and smoothed, best first, at most `wanted`, from the best `depth`
        of each index."""
        # Besides those that are wanted some lend score to them; no more are looked up.
        most = None if wanted is None else max(wanted, self._params.smoothing_depth)
        smoothed: list[Hit] = []
        for _ in range(_SEARCHES):
            begun, known = time.monotonic(), None if self._hidden else self._index.seen.by(self._where)
            async with beside(self._unchanged(known)) as asking:
                hits = await self._candidates(depth, most)
                sure = known is not None and known.revisions.issuperset([hit.chunk.revision for hit in hits])
                smoothed = self._smoothed(hits, wanted) if sure else []
                self._settled = await asking and sure and time.monotonic() - begun < _FRESH
            if not self._settled:
                async with beside(self._check(hits, begun)) as checking:
                    await asyncio.sleep(0)
                    # While the ledger looks at the hits they are smoothed, in the hope that all may be seen.
                    smoothed = smoothed or self._smoothed(hits, wanted)
                    self._settled = await checking
            if self._settled:
                return smoothed
        return self._smoothed(hits, wanted)

    async def _unchanged(self, known: Known | None) -> bool:
        """Whether what was known when the search began still holds."""
        if known is None:
            return False
        await asyncio.sleep(0)  # The arms first: theirs is the longer way.
        return await self._index.visibility.epoch(self._where) == known.epoch

    def _smoothed(self, hits: Sequence[Hit], most: int | None) -> list[Hit]:
        """Those of the hits that, by the last look, may be seen."""
        if self._hidden:
            hits = [hit for hit in hits if (hit.chunk.document_id, hit.chunk.revision) not in self._hidden]
        return smooth(hits, self._params.smoothing, self._params.smoothing_depth, most)

    async def _check(self, hits: Iterable[Hit], begun: float) -> bool:
        """Whether what may be seen of these hits is all that there is to see: no revision was passed over
        that may be seen now, or was not and may not, and all were complete when the search began."""
        found = self._hidden | {(hit.chunk.document_id, hit.chunk.revision) for hit in hits}
        if not found:
            return True
        index, before = self._index, self._hidden
        look = await index.visibility.look(index.generation, self._where, found)
        lasts = index.seen.see(self._where, look.epoch, look.ages)
        # Where nothing has changed since the last look, it may pay to know the rest.
        if lasts and index.seen.due(begun):
            index.seen.learning = aside(_learn(index, self._where))
        self._hidden = frozenset(one for one in found if one[1] not in look.ages)
        took = time.monotonic() - begun
        return self._hidden == before and all(age >= took for age in look.ages.values())

    async def _candidates(self, depth: int, most: int | None) -> list[Hit]:
        """Ask in every way that has not failed, side by side."""
        names = tuple(self._arms)
        answers = await asyncio.gather(*(_ARMS[name](self, depth) for name in names), return_exceptions=True)
        lists: dict[str, Scaled] = {}
        failures: list[StoreUnavailable | EmbedderUnavailable] = []
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, (StoreUnavailable, EmbedderUnavailable)):
                failures.append(answer)
                self._failed.append(name)
                self._arms.remove(name)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                lists[name] = answer
        if not self._terms:  # Without words nothing was asked of the keyword index.
            lists.pop("keyword", None)
        if not lists:
            raise failures[-1]
        self.exhausted = all(len(found.hits) < depth for found in lists.values())
        return fuse(lists.get("dense", NOTHING), lists.get("keyword", NOTHING), self._dense_weight(), most)

    def _dense_weight(self) -> float:
        params = self._params
        known = not params.languages or not languages(self._query).isdisjoint(params.languages)
        return params.dense_weight if known else params.foreign_weight

    async def _dense(self, depth: int) -> Scaled:
        if self._vector is None:
            self._vector = await self._embedded()
        return await self._ask(Dense(self._vector), depth)

    async def _keyword(self, depth: int) -> Scaled:
        if self._terms is None:
            self._terms = self._index.analyzer.question(self._query)
        return await self._ask(Keyword(self._terms), depth) if self._terms else NOTHING

    async def _ask(self, query: Query, depth: int) -> Scaled:
        index = self._index
        hidden = frozenset(revision for _, revision in self._hidden)
        return scaled(await index.store.search(index.generation, query, self._where, depth, hidden))

    async def _embedded(self) -> Vector:
        """The question's vector; of its beginning when the whole does not fit the embedder's window."""
        embedder, query = self._index.embedder, self._query
        try:
            vectors = await embedder.embed([query], "query")
        except TextTooLong:
            self._truncated = True
            vectors = await embedder.embed([fitted(embedder, query, "query")], None)
        vector: Vector = vectors[0]
        return vector


# The dense one first: an embedder works elsewhere, beside the rest.
_ARMS: Mapping[str, Callable[[_Question, int], Awaitable[Scaled]]] = {
    "dense": _Question._dense,
    "keyword": _Question._keyword,
}
