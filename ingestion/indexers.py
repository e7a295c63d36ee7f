"""What writes each index generation, opened when a job first needs it: so a worker follows releases.

The ledger says what a generation is; the composition root, which knows embedders by their names, opens it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ingestion.chunk import header
from ingestion.chunkers import CHUNKERS
from ingestion.ledger import Ledger
from ingestion.parse import PARSER_VERSION
from ingestion.types import Generation, Parsed, Piece
from retrieval.analyze import ANALYZERS
from retrieval.embedders.prefixed import behind
from retrieval.errors import EmbedderUnavailable
from retrieval.types import Analyzer, Encoder, IndexSpec, Matrix, Store


@dataclass(frozen=True, slots=True)
class Indexer:
    """What it takes to write one generation."""

    spec: IndexSpec
    embedder: Encoder
    analyzer: Analyzer

    def texts(self, parsed: Parsed, title: str) -> list[tuple[Piece, str]]:
        """The document's chunks, each with the text that is embedded and analyzed for it."""
        window = self.embedder.spec.max_tokens
        cut = CHUNKERS[self.spec.chunker]
        pieces = cut(parsed, self.spec, title, self.embedder.token_spans, window)
        return [(piece, self.indexed(title, piece.heading, piece.text)) for piece in pieces]

    def indexed(self, title: str, heading: str, text: str) -> str:
        """What is embedded and analyzed for a chunk."""
        return header(self.spec, title, heading) + text

    def embedded(self, indexed: str) -> str:
        """What the model reads of it."""
        return self.spec.document_prefix + indexed

    async def embed(self, indexed: Sequence[str]) -> Matrix:
        return await self.embedder.embed(behind(self.spec.document_prefix, indexed))


def is_of_this_version(known: Generation) -> bool:
    """Whether what runs here reads, cuts and analyzes documents as this generation's were."""
    spec = known.spec
    return (
        spec.generation == known.id
        and spec.parser == PARSER_VERSION
        and spec.chunker in CHUNKERS
        and spec.analyzer in ANALYZERS
    )


class Indexers(Protocol):
    async def get(self, generation: str) -> Indexer:
        """Raises `EmbedderUnavailable` where this generation cannot be written, `StoreUnavailable`."""
        ...


Open = Callable[[Generation], Awaitable[Indexer]]


class OpenIndexers:
    """Implements `Indexers`. `open_` raises `EmbedderUnavailable` where the embedder is not here."""

    def __init__(self, ledger: Ledger, store: Store, open_: Open) -> None:
        self._ledger = ledger
        self._store = store
        self._open = open_
        self._opened: dict[str, Indexer] = {}
        # One that takes long to open, or never does, keeps no other waiting.
        self._opening: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def get(self, generation: str) -> Indexer:
        async with self._opening[generation]:
            if generation not in self._opened:
                self._opened[generation] = await self._opened_now(generation)
            indexer = self._opened[generation]
            # It may have been dropped and be built again.
            await self._store.prepare(generation, indexer.spec)
            return indexer

    async def _opened_now(self, generation: str) -> Indexer:
        known = await self._ledger.generation(generation)
        if known is None:
            raise EmbedderUnavailable(f"The index generation {generation} is not registered any more.")
        return await self._open(known)
