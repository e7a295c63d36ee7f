"""Ways to cut a text that others use, beside the product's own, to be measured against it.

Each gives exact places in the text. Sizes are in tokens of the embedder that embeds the passages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from langchain_text_splitters import RecursiveCharacterTextSplitter

from eval.inprocess import Text, cut
from ingestion.types import Piece
from retrieval.types import Encoder, IndexSpec, Matrix, Span

Chunker = Callable[[Text], Awaitable[list[Piece]]]

_SMALL = 50
_SEPARATORS = ["\n\n", "\n", ".", "?", "!", " ", ""]


def structure(spec: IndexSpec, embedder: Encoder) -> Chunker:
    """The product's chunker."""

    async def made(document: Text) -> list[Piece]:
        return cut(document, spec, embedder)

    return made


def characters(size: int) -> Chunker:
    """Every so many characters, wherever that is."""

    async def made(document: Text) -> list[Piece]:
        text = document.text
        return [_piece(text, Span(at, min(at + size, len(text)))) for at in range(0, len(text), size)]

    return made


def recursive(tokens: int, embedder: Encoder) -> Chunker:
    """LangChain's splitter: at the coarsest of several separators that gives parts which are short enough."""

    async def made(document: Text) -> list[Piece]:
        return [_piece(document.text, span) for span in _split(document.text, tokens, embedder)]

    return made


def clusters(tokens: int, embedder: Encoder) -> Chunker:
    """Runs of neighbouring small parts whose vectors are most alike: the semantic chunker of Chroma's study.
    A text is embedded twice."""

    async def made(document: Text) -> list[Piece]:
        parts = _split(document.text, _SMALL, embedder)
        vectors = await embedder.embed([document.text[part.start : part.end] for part in parts])
        starts = [*_segments(vectors, max(1, tokens // _SMALL)), len(parts)]
        spans = (Span(parts[first].start, parts[last - 1].end) for first, last in pairwise(starts))
        return [_piece(document.text, span) for span in spans]

    return made


def _split(text: str, tokens: int, embedder: Encoder) -> list[Span]:
    splitter = RecursiveCharacterTextSplitter(
        separators=_SEPARATORS,
        chunk_size=tokens,
        chunk_overlap=0,
        length_function=lambda part: len(embedder.token_spans(part)),
        strip_whitespace=False,
    )
    return list(_places(text, splitter.split_text(text)))


def _places(text: str, parts: Sequence[str]) -> Iterator[Span]:
    """Of parts in their order; white space, which weighs nothing, may be in two of them."""
    at = 0
    for part in parts:
        blank = len(part) - len(part.lstrip())
        start = text.index(part, max(0, at - blank))
        at = start + len(part)
        yield Span(start, at)


def _segments(vectors: Matrix, most: int) -> list[int]:
    """Where the runs of at most `most` parts begin that together hold the most likeness above the mean."""
    count = len(vectors)
    total = vectors.sum(axis=0)
    mean = (float(total @ total) - count) / max(1, count * (count - 1))
    best, begins = [0.0] * (count + 1), [0] * (count + 1)
    for end in range(1, count + 1):
        near = vectors[max(0, end - most) : end]
        likeness = near @ near.T - mean
        np.fill_diagonal(likeness, 0.0)
        scores = [
            best[end - size] + float(likeness[-size:, -size:].sum()) for size in range(1, len(near) + 1)
        ]
        size = int(np.argmax(scores)) + 1
        best[end], begins[end] = scores[size - 1], end - size
    starts: list[int] = []
    at = count
    while at:
        at = begins[at]
        starts.append(at)
    return starts[::-1]


def _piece(text: str, span: Span) -> Piece:
    return Piece(text=text[span.start : span.end], heading="", page=None, span=span)
