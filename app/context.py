"""From hits to the passages of a prompt, within the release's budget and in the release's order."""

from __future__ import annotations

from collections.abc import Sequence

from app.release import ContextPart
from app.types import Citation
from llm.types import Passage
from retrieval.types import Chunk, Hit


def arranged(hits: Sequence[Hit], part: ContextPart) -> tuple[Hit, ...]:
    """The best hits that fit, in the order in which a prompt numbers them.

    The canonical order is that of documents and of the passages in them, not of scores: two prompts that
    share sources then begin with the same text, which a server with a prefix cache reads only once.
    """
    chosen = fit(hits, part.max_characters)
    if part.order == "score":
        return chosen
    return tuple(sorted(chosen, key=lambda hit: (hit.chunk.document_id, hit.chunk.ordinal)))


def fit(hits: Sequence[Hit], max_characters: int) -> tuple[Hit, ...]:
    """The best hits whose text fits the budget together; at least one, if there is one."""
    chosen: list[Hit] = []
    used = 0
    for hit in hits:
        used += len(hit.chunk.text)
        if chosen and used > max_characters:
            break
        chosen.append(hit)
    return tuple(chosen)


def passages(chunks: Sequence[Chunk]) -> tuple[Passage, ...]:
    """Numbered from 1 in the given order; the title carries the headings above the passage."""
    return tuple(
        Passage(number=number, title=_title(chunk), text=chunk.text)
        for number, chunk in enumerate(chunks, start=1)
    )


def citation(number: int, chunk: Chunk) -> Citation:
    return Citation(
        number=number,
        document_id=chunk.document_id,
        chunk_id=chunk.id,
        title=chunk.title,
        heading=chunk.heading,
        page=chunk.page,
        span=chunk.span,
        text=chunk.text,
    )


def _title(chunk: Chunk) -> str:
    path = [part for part in chunk.heading.split(" > ") if part]
    return " > ".join([chunk.title, *(path[1:] if path[:1] == [chunk.title] else path)])
