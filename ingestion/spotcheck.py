"""Looks into a generation before it takes traffic: are the rows there that the ledger counted, and are they
found by what they say? Counts alone would not notice rows that were lost, or vectors of another model.
"""

from __future__ import annotations

from collections.abc import Sequence

from ingestion.errors import IndexIncomplete
from ingestion.indexers import Indexer
from ingestion.types import Placed
from retrieval.types import Chunk, Dense, Filter, Keyword, Query, Store, Visibility

# Milvus returns no more than this.
DEEPEST = 16_384
SAME = 0.99
"""The least cosine of a stored vector and one computed now of the same text; lower precisions round."""


async def unsound(
    store: Store, visibility: Visibility, indexer: Indexer, sample: Sequence[Placed]
) -> str | None:
    """What is wrong with the first of these documents that is not whole, None if all are. Raises
    `StoreUnavailable`, `EmbedderUnavailable`, and whatever the `Visibility` raises."""
    generation = indexer.spec.generation
    for placed in sample:
        wrong = await _wrong(store, generation, indexer, placed)
        # Its rows may be gone because a newer version has taken its place.
        if wrong and await visibility.visible(
            generation, _whole(placed), [(placed.document_id, placed.revision)]
        ):
            return f"revision {placed.revision}: {wrong}"
    return None


async def require_rows(
    store: Store, visibility: Visibility, generation: str, sample: Sequence[Placed]
) -> None:
    """Raise `IndexIncomplete` when the first row of one of these documents is gone. A store that lost its
    data answers as if nothing had ever been in it."""
    for placed in sample:
        if await store.read(generation, placed.tenant, [f"{placed.revision}-0"]):
            continue
        if await visibility.visible(generation, _whole(placed), [(placed.document_id, placed.revision)]):
            told = f"Revision {placed.revision} is visible, and its rows are not in the store."
            raise IndexIncomplete(told, placed)


async def _wrong(store: Store, generation: str, indexer: Indexer, placed: Placed) -> str | None:
    ids = [f"{placed.revision}-{ordinal}" for ordinal in range(placed.chunks + 1)]
    chunks = await store.read(generation, placed.tenant, ids)
    if [chunk.id for chunk in chunks] != ids[:-1]:
        return f"{len(chunks)} rows can be read where {placed.chunks} were written"
    known = chunks[len(chunks) // 2]
    text = indexer.indexed(known.title, known.heading, known.text)
    vector = (await indexer.embed([text]))[0]
    score = await _score(store, generation, known, placed, Dense(vector))
    if score is None or score < SAME:
        return f"the passage {known.id} is not where its vector should be"
    terms = indexer.analyzer.terms(text)
    if terms and await _score(store, generation, known, placed, Keyword(terms)) is None:
        return f"the passage {known.id} is not found by its own words"
    return None


async def _score(store: Store, generation: str, known: Chunk, placed: Placed, query: Query) -> float | None:
    """The score of this passage among its document's, None if it is not found."""
    # Rows of older revisions may still be there.
    limit = min(2 * placed.chunks + 10, DEEPEST)
    hits = await store.search(generation, query, _whole(placed), limit, frozenset())
    return next((hit.score for hit in hits if hit.chunk.id == known.id), None)


def _whole(placed: Placed) -> Filter:
    return Filter(tenant=placed.tenant, groups=None, document_ids=(placed.document_id,))
