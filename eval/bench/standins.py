"""Parts that take no time, and parts that say when they worked: what is left is the service's own time."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass, field

import numpy as np

from llm.types import Call, ChatModel, Delta
from retrieval.types import (
    Chunk,
    Dense,
    EmbedderSpec,
    Encoder,
    Filter,
    Hit,
    IndexSpec,
    Matrix,
    Query,
    Row,
    ServedStore,
    Vector,
)


@dataclass(slots=True)
class Intervals:
    """When each kind of part was at work for one request: (start, end) of `time.perf_counter`."""

    spans: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def of(self, *kinds: str) -> float:
        """Seconds in which at least one part of these kinds was at work."""
        total, reached = 0.0, 0.0
        for start, end in sorted(span for kind in kinds for span in self.spans.get(kind, ())):
            total += max(0.0, end - max(start, reached))
            reached = max(reached, end)
        return total


CURRENT: ContextVar[Intervals | None] = ContextVar("bench_intervals", default=None)


class at_work:  # noqa: N801  (it reads as the statement that it makes)
    """`with at_work(kind)`: what is done in the block is such a part's work. Its own is the service's
    processor time, so it is no generator."""

    __slots__ = ("_begin", "_kind")

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __enter__(self) -> None:
        self._begin = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        current = CURRENT.get()
        if current is not None:
            current.spans.setdefault(self._kind, []).append((self._begin, time.perf_counter()))


class Random:
    """An embedder for text of which only the amount matters: unit vectors without a meaning, at no cost,
    while `feeding`; afterwards what `real` says, or one fixed vector where there is none."""

    def __init__(self, spec: EmbedderSpec, tokens: Encoder, *, real: Encoder | None) -> None:
        self._spec = spec
        self._tokens = tokens
        self._real = real
        self._random = np.random.default_rng(5)
        self._fixed = self._some(1)
        self.feeding = True

    @property
    def spec(self) -> EmbedderSpec:
        return self._spec

    async def embed(self, texts: Sequence[str]) -> Matrix:
        if self.feeding:
            return self._some(len(texts))
        with at_work("embedding"):
            if self._real is not None:
                return await self._real.embed(texts)
            return self._fixed if len(texts) == 1 else np.repeat(self._fixed, len(texts), axis=0)

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        return self._tokens.token_spans(text)

    def _some(self, count: int) -> Matrix:
        vectors = self._random.standard_normal((count, self._spec.dimension), dtype=np.float32)
        unit: Matrix = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


class Recorded:
    """A store that says when it worked. With `instant`, a search of each kind is made once and its answer
    given again, so that it takes no time."""

    def __init__(self, store: ServedStore, *, instant: bool) -> None:
        self._store = store
        self._instant = instant
        self._kept: dict[tuple[str, bool, int], list[Hit]] = {}

    async def search(
        self, generation: str, query: Query, where: Filter, limit: int, exclude: frozenset[int]
    ) -> list[Hit]:
        with at_work("store"):
            key = (where.tenant, isinstance(query, Dense), limit)
            if self._instant and key in self._kept:
                return self._kept[key]
            hits = await self._store.search(generation, query, where, limit, exclude)
            self._kept[key] = hits
            return hits

    async def prepare(self, generation: str, spec: IndexSpec) -> None:
        await self._store.prepare(generation, spec)

    async def upsert(self, generation: str, rows: Sequence[Row]) -> None:
        await self._store.upsert(generation, rows)

    async def read(self, generation: str, tenant: str, ids: Sequence[str]) -> list[Chunk]:
        with at_work("store"):
            return await self._store.read(generation, tenant, ids)

    async def vectors(self, generation: str, tenant: str, ids: Sequence[str]) -> dict[str, Vector]:
        return await self._store.vectors(generation, tenant, ids)

    async def remove(self, generation: str, revisions: Collection[int]) -> None:
        await self._store.remove(generation, revisions)

    async def purge(self, generation: str) -> bool:
        return await self._store.purge(generation)

    async def drop(self, generation: str) -> None:
        await self._store.drop(generation)

    async def ping(self) -> None:
        await self._store.ping()

    async def close(self) -> None:
        await self._store.close()


ANSWER = "The part in question is the first of the document, and it is the one that was asked about [1]."


class Instant:
    """A model that has its answer ready: its first word, and the rest, which `llm.vllm` would gather into one
    delta too."""

    def __init__(self, name: str) -> None:
        self._name = name
        first, rest = ANSWER.split(" ", 1)
        self._texts = (f"{first} ", rest)

    @property
    def name(self) -> str:
        return self._name

    async def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        for text in self._texts:
            yield Delta(text=text, model=self._name)
        count = len(ANSWER.split())
        yield Delta(text="", model=self._name, finish="stop", prompt_tokens=count, output_tokens=count)


class RecordedModel:
    """A model that says when it worked: while it is waited for."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model

    @property
    def name(self) -> str:
        return self._model.name

    async def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        async with aclosing(self._model.stream(call)) as deltas:
            while True:
                with at_work("model"):
                    delta = await anext(deltas, None)
                if delta is None:
                    return
                yield delta
