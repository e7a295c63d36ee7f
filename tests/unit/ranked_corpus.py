"""A small index for tests of what happens to hits after they were found: words alone decide the order."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from retrieval.analyze import analyzer
from retrieval.embedders.prefixed import Prefixed
from retrieval.search import Index
from retrieval.stores.memory import MemoryStore
from retrieval.types import EmbedderSpec, Filter, Look, Matrix, Row
from tests.passages import INDEX, passage

ACME = Filter(tenant="acme", groups=None)
SPEC = replace(INDEX, embedder="same", dimension=2, analyzer="snowball")


class Same:
    """An embedder for which every text means the same."""

    spec = EmbedderSpec(name="same", artefact="same", dimension=2, max_tokens=64)

    async def embed(self, texts: Sequence[str]) -> Matrix:
        return np.tile(np.array([1, 0], dtype=np.float32), (len(texts), 1))

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        return [(n, n + 1) for n in range(len(text))]


class Open:
    """A ledger for which everything is visible and nothing changes."""

    async def visible(
        self, generation: str, where: Filter, candidates: Collection[tuple[str, int]]
    ) -> frozenset[int]:
        return frozenset(revision for _, revision in candidates)

    async def look(self, generation: str, where: Filter, candidates: Collection[tuple[str, int]]) -> Look:
        return Look(
            epoch="0", ages=dict.fromkeys(await self.visible(generation, where, candidates), math.inf)
        )

    async def epoch(self, where: Filter) -> str:
        return "0"

    async def all_visible(self, generation: str, where: Filter, limit: int) -> tuple[str, Sequence[int]]:
        return "0", []

    async def contents(self, generation: str, where: Filter, limit: int) -> list[tuple[str, int, int]]:
        return []


async def corpus_of(*texts: str) -> Index:
    """Each text is a document of one chunk."""
    words, store, embedder = analyzer(SPEC.analyzer), MemoryStore(), Same()
    await store.prepare(SPEC.generation, SPEC)
    vectors = await embedder.embed(texts)
    rows = [
        Row(
            chunk=passage(text, document_id=f"d{number}", revision=number),
            vector=vector,
            terms=words.terms(text),
        )
        for number, (text, vector) in enumerate(zip(texts, vectors, strict=True), start=1)
    ]
    await store.upsert(SPEC.generation, rows)
    return Index(SPEC.generation, store, Prefixed(embedder), words, Open())
