"""An index is looked into before it takes traffic: rows that are lost, too many, or not where they belong."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from ingestion import spotcheck
from ingestion.errors import IndexIncomplete
from ingestion.indexers import Indexer
from ingestion.types import Placed
from retrieval.analyze import analyzer
from retrieval.stores.memory import MemoryStore
from retrieval.types import Chunk, EmbedderSpec, Filter, IndexSpec, Matrix, Row, Span, Visibility

SPEC = IndexSpec(
    embedder="letters",
    dimension=26,
    chunker="structure",
    chunk_tokens=64,
    chunk_overlap=0,
    header_template="{title}\n",
    analyzer="plain",
    parser="1",
)
WORDS = ("gateway", "kiln", "orchard")


class Letters:
    """A text is where its letters are."""

    spec = EmbedderSpec(name="letters", artefact="letters", dimension=26, max_tokens=256)

    async def embed(self, texts: Sequence[str]) -> Matrix:
        vectors = np.full((len(texts), 26), 1e-6, dtype=np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            for letter in re.findall("[a-z]", text.lower()):
                vector[ord(letter) - ord("a")] += 1
            vector /= np.linalg.norm(vector)
        return vectors

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\w+", text)]


class Seen:
    """A ledger by which these revisions are visible, as far as it is asked."""

    def __init__(self, *revisions: int) -> None:
        self._revisions = frozenset(revisions)

    async def visible(
        self, generation: str, where: Filter, candidates: Collection[tuple[str, int]]
    ) -> frozenset[int]:
        return self._revisions & {revision for _, revision in candidates}


def seen(*revisions: int) -> Visibility:
    return cast(Visibility, Seen(*revisions))


INDEXER = Indexer(SPEC, Letters(), analyzer("plain"))
FIRST, SECOND = (Placed("acme", f"doc-{n}", n, len(WORDS)) for n in (1, 2))
BOTH = seen(1, 2)


async def _rows(revision: int) -> list[Row]:
    chunks = [
        Chunk(
            id=f"{revision}-{ordinal}",
            tenant="acme",
            collection="default",
            document_id=f"doc-{revision}",
            revision=revision,
            ordinal=ordinal,
            content_hash="",
            title="Title",
            heading="",
            text=word,
            page=None,
            span=Span(0, len(word)),
            groups=frozenset(),
            metadata={},
        )
        for ordinal, word in enumerate(WORDS)
    ]
    texts = [INDEXER.indexed(one.title, one.heading, one.text) for one in chunks]
    vectors = await INDEXER.embed(texts)
    return [
        Row(chunk=chunk, vector=vector, terms=INDEXER.analyzer.terms(text))
        for chunk, vector, text in zip(chunks, vectors, texts, strict=True)
    ]


@pytest.fixture
async def store() -> MemoryStore:
    """Two documents of three passages each."""
    store = MemoryStore()
    await store.prepare(SPEC.generation, SPEC)
    for revision in (1, 2):
        await store.upsert(SPEC.generation, await _rows(revision))
    return store


async def _rewrite(store: MemoryStore, rows: Sequence[Row]) -> None:
    """Have the second document hold these rows and no others."""
    await store.remove(SPEC.generation, [2])
    await store.upsert(SPEC.generation, rows)


async def test_an_index_whose_rows_are_all_there_is_sound(store: MemoryStore) -> None:
    assert await spotcheck.unsound(store, BOTH, INDEXER, [FIRST, SECOND]) is None


async def test_rows_that_are_lost_or_too_many_are_told(store: MemoryStore) -> None:
    rows = await _rows(2)
    await _rewrite(store, rows[:2])
    told = "revision 2: 2 rows can be read where 3 were written"
    assert await spotcheck.unsound(store, BOTH, INDEXER, [FIRST, SECOND]) == told
    more = replace(rows[2].chunk, id="2-3", ordinal=3)
    await _rewrite(store, [*rows, replace(rows[2], chunk=more)])
    told = "revision 2: 4 rows can be read where 3 were written"
    assert await spotcheck.unsound(store, BOTH, INDEXER, [FIRST, SECOND]) == told


async def test_a_row_that_is_not_found_by_what_it_says_is_told(store: MemoryStore) -> None:
    rows = await _rows(2)
    await _rewrite(store, [rows[0], replace(rows[1], vector=rows[0].vector), rows[2]])
    told = "revision 2: the passage 2-1 is not where its vector should be"
    assert await spotcheck.unsound(store, BOTH, INDEXER, [FIRST, SECOND]) == told
    await _rewrite(store, [rows[0], replace(rows[1], terms="another"), rows[2]])
    told = "revision 2: the passage 2-1 is not found by its own words"
    assert await spotcheck.unsound(store, BOTH, INDEXER, [FIRST, SECOND]) == told


async def test_rows_of_what_was_replaced_meanwhile_may_be_gone(store: MemoryStore) -> None:
    await store.remove(SPEC.generation, [2])
    assert await spotcheck.unsound(store, seen(1), INDEXER, [FIRST, SECOND]) is None
    await spotcheck.require_rows(store, seen(1), SPEC.generation, [FIRST, SECOND])


async def test_a_document_whose_first_row_is_gone_says_that_the_index_was_lost(store: MemoryStore) -> None:
    await spotcheck.require_rows(store, BOTH, SPEC.generation, [FIRST, SECOND])
    await store.remove(SPEC.generation, [2])
    with pytest.raises(IndexIncomplete, match="Revision 2 is visible"):
        await spotcheck.require_rows(store, BOTH, SPEC.generation, [FIRST, SECOND])
