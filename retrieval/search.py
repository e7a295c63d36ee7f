"""From a question to the passages that its asker may see now, best first.

The question is embedded and asked of the dense and the keyword index side by side; the two lists are fused;
the ledger then says which revisions are visible. A store may still hold rows of an older, deleted or
half-written revision, and such a row may have taken the place of one that should be found: if any was
dropped, the search is made again without its revision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from retrieval.errors import EmbedderUnavailable, StoreUnavailable, TextTooLong
from retrieval.fusion import fuse
from retrieval.types import (
    Analyzer,
    Dense,
    Embedder,
    Filter,
    Found,
    Hit,
    Keyword,
    Query,
    SearchParams,
    Store,
    Vector,
    Visibility,
)

_Arm = Callable[[int], Awaitable[list[Hit]]]

_SEARCHES = 3
_DEEPER = 4
# Milvus returns no more than this.
_DEEPEST = 16_384


@dataclass(frozen=True, slots=True)
class Index:
    """A generation with everything that its questions need."""

    generation: str
    store: Store
    embedder: Embedder
    analyzer: Analyzer
    visibility: Visibility


async def search(
    index: Index,
    query: str,
    where: Filter,
    params: SearchParams,
    *,
    limit: int | None = None,
    group_by_document: bool = False,
) -> Found:
    """The best `limit` hits (by default the release's number), scores in [0, 1]; with `group_by_document`
    only the best one of each document.

    `degraded` names what the search did without: `dense` or `keyword` (that index, or the embedder, could
    not answer), `query_truncated` (only the beginning of the question fitted the embedder), `visibility`
    (rows kept changing, so one that should be found may be missing). Raises `StoreUnavailable` or
    `EmbedderUnavailable` when neither index could answer, and whatever the `Visibility` raises.
    """
    wanted = params.limit if limit is None else limit
    depth = max(params.candidates, wanted)
    question = _Question(index, query, where, params.dense_weight)
    hits = await question.visible(depth)
    while group_by_document:
        hits = _best_of_each_document(hits)
        if len(hits) >= wanted or question.exhausted or depth >= _DEEPEST:
            break
        depth = min(depth * _DEEPER, _DEEPEST)
        hits = await question.visible(depth)
    return Found(tuple(hits[:wanted]), question.degraded)


def _best_of_each_document(hits: Iterable[Hit]) -> list[Hit]:
    best: dict[str, Hit] = {}
    for hit in hits:
        best.setdefault(hit.chunk.document_id, hit)
    return list(best.values())


class _Question:
    """One question while it is searched for: its vector, the revisions to pass over, and the ways to ask
    it. A way that fails is not tried again, so that an outage costs one timeout.

    `exhausted` says that the last search saw everything that matches.
    """

    def __init__(self, index: Index, query: str, where: Filter, dense_weight: float) -> None:
        self._index = index
        self._query = query
        self._where = where
        self._dense_weight = dense_weight
        self._terms = index.analyzer.terms(query)
        self._arms: dict[str, _Arm] = {"dense": self._dense}
        if self._terms:
            self._arms["keyword"] = self._keyword
        self._failed: list[str] = []
        self._vector: Vector | None = None
        self._truncated = False
        self._hidden: frozenset[int] = frozenset()
        self._settled = True
        self.exhausted = False

    @property
    def degraded(self) -> tuple[str, ...]:
        also = {"query_truncated": self._truncated, "visibility": not self._settled}
        return (*self._failed, *(name for name, true in also.items() if true))

    async def visible(self, depth: int) -> list[Hit]:
        """Fused hits of visible revisions, best first, from the best `depth` of each index."""
        hits: list[Hit] = []
        for _ in range(_SEARCHES):
            hits = await self._candidates(depth)
            dropped = await self._dropped(hits)
            self._settled = not dropped
            if self._settled:
                break
            self._hidden |= dropped
        return [hit for hit in hits if hit.chunk.revision not in self._hidden]

    async def _dropped(self, hits: Iterable[Hit]) -> frozenset[int]:
        found = {(hit.chunk.document_id, hit.chunk.revision) for hit in hits}
        if not found:
            return frozenset()
        index = self._index
        shown = await index.visibility.visible(index.generation, self._where, found)
        return frozenset(revision for _, revision in found) - shown

    async def _candidates(self, depth: int) -> list[Hit]:
        """Ask in every way that has not failed, side by side."""
        names = list(self._arms)
        answers = await asyncio.gather(*(self._arms[name](depth) for name in names), return_exceptions=True)
        lists: dict[str, list[Hit]] = {}
        failures: list[StoreUnavailable | EmbedderUnavailable] = []
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, (StoreUnavailable, EmbedderUnavailable)):
                failures.append(answer)
                self._failed.append(name)
                del self._arms[name]
            elif isinstance(answer, BaseException):
                raise answer
            else:
                lists[name] = answer
        if not lists:
            raise failures[-1]
        self.exhausted = all(len(found) < depth for found in lists.values())
        return fuse(lists.get("dense", ()), lists.get("keyword", ()), self._dense_weight)

    async def _dense(self, depth: int) -> list[Hit]:
        if self._vector is None:
            self._vector = await self._embedded()
        return await self._ask(Dense(self._vector), depth)

    async def _keyword(self, depth: int) -> list[Hit]:
        return await self._ask(Keyword(self._terms), depth)

    async def _ask(self, query: Query, depth: int) -> list[Hit]:
        index = self._index
        return await index.store.search(index.generation, query, self._where, depth, self._hidden)

    async def _embedded(self) -> Vector:
        """The question's vector; of its beginning when the whole does not fit the embedder's window."""
        embedder, query = self._index.embedder, self._query
        try:
            vectors = await embedder.embed([query])
        except TextTooLong as error:
            self._truncated = True
            spans = embedder.token_spans(query)
            special = error.tokens - len(spans)
            end = spans[error.limit - special - 1][1]
            vectors = await embedder.embed([query[:end]])
        vector: Vector = vectors[0]
        return vector
