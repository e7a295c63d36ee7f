"""The query path over documents in the memory of this process: for measurements that need no server.

Chunker, embedder, search, chat and summaries are the product's; store and ledger are replaced by what never
changes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from app.answers import Answers
from app.chat import Chat
from app.release import DEFAULT_RELEASE, Release, load_release
from app.serving import Serving
from app.similarity import Similarity
from app.summarize import Summarizer
from ingestion.chunk import header
from ingestion.chunkers import CHUNKERS
from ingestion.parse import PARSER_VERSION, parse
from ingestion.types import Piece
from llm.extractive import Extractive
from llm.outputs import MemoryOutputs
from retrieval.analyze import analyzer
from retrieval.embedders.prefixed import Prefixed
from retrieval.search import Index
from retrieval.stores.memory import MemoryStore
from retrieval.types import Chunk, Encoder, Filter, IndexSpec, Look, Row

EVERYTHING = Filter(tenant="eval", groups=None)
BATCH = 64


@dataclass(frozen=True, slots=True)
class Text:
    """A document of plain paragraphs."""

    id: str
    title: str
    text: str


class _Shown:
    """A ledger for which everything is visible and nothing changes. `held` maps a document to its revision
    and its number of chunks."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[int, int]] = {}

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
        return "0", [revision for revision, _ in self.held.values()][:limit]

    async def contents(self, generation: str, where: Filter, limit: int) -> list[tuple[str, int, int]]:
        wanted = where.document_ids or tuple(self.held)
        return [(name, *self.held[name]) for name in wanted][:limit]


class InProcess:
    """Holds what `add` was given; `chat` and `summarizer` answer from it with the built-in model, and `index`
    is searched for it."""

    def __init__(self, embedder: Encoder, release: Release | None = None) -> None:
        self._release = release or load_release(DEFAULT_RELEASE)
        prefixed = Prefixed(embedder, self._release.prefixes)
        self._embedder = prefixed
        self._shown, self._store = _Shown(), MemoryStore()
        self._spec = self._release.index_spec(embedder.spec, PARSER_VERSION)
        words = analyzer(self._spec.analyzer)
        index = Index(self._spec.generation, self._store, prefixed, words, self._shown)
        model = Extractive(Similarity(prefixed).score)
        serving = Serving(release=self._release, index=index, model=model)
        answers = Answers(MemoryOutputs(), product="eval")
        self._analyzer = words
        self.index = index
        self.chat = Chat(lambda: serving, self._shown, answers, product="eval")
        self.summarizer = Summarizer(lambda: serving, self._shown, self._store, product="eval")

    async def add(
        self,
        documents: Sequence[Text],
        progress: Callable[[str, int, int], None],
        cuts: Mapping[str, Sequence[Piece]] | None = None,
    ) -> None:
        """Index these documents: as the release cuts them, or each as `cuts` says by its id."""
        await self._store.prepare(self._spec.generation, self._spec)
        for start in range(0, len(documents), BATCH):
            await self._write(documents[start : start + BATCH], cuts)
            progress("reading", min(start + BATCH, len(documents)), len(documents))

    async def _write(self, documents: Sequence[Text], cuts: Mapping[str, Sequence[Piece]] | None) -> None:
        chunks: list[Chunk] = []
        for document in documents:
            revision = len(self._shown.held) + 1
            pieces = cuts[document.id] if cuts else cut(document, self._spec, self._embedder.encoder)
            chunks += [_chunk(document, revision, ordinal, piece) for ordinal, piece in enumerate(pieces)]
            self._shown.held[document.id] = (revision, len(pieces))
        texts = [header(self._spec, one.title, one.heading) + one.text for one in chunks]
        vectors = await self._embedder.embed(texts, "document")
        rows = [
            Row(chunk=one, vector=vector, terms=self._analyzer.terms(text))
            for one, vector, text in zip(chunks, vectors, texts, strict=True)
        ]
        await self._store.upsert(self._spec.generation, rows)


def cut(document: Text, spec: IndexSpec, embedder: Encoder) -> list[Piece]:
    """As the product cuts it."""
    parsed = parse(document.text.encode(), None, "text/plain")
    return CHUNKERS[spec.chunker](
        parsed, spec, document.title, embedder.token_spans, embedder.spec.max_tokens
    )


def _chunk(document: Text, revision: int, ordinal: int, piece: Piece) -> Chunk:
    return Chunk(
        id=f"{revision}-{ordinal}",
        tenant=EVERYTHING.tenant,
        collection="default",
        document_id=document.id,
        revision=revision,
        ordinal=ordinal,
        content_hash=hashlib.sha256(piece.text.encode()).hexdigest(),
        title=document.title,
        heading=piece.heading,
        text=piece.text,
        page=piece.page,
        span=piece.span,
        groups=frozenset(),
        metadata={},
    )
