"""From hits to the passages of a prompt: different ones, within the release's budget and the model's window,
in the release's order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from app.evidence import Statement
from app.release import ContextPart, Release
from app.types import Citation
from llm.prompts import render_passages
from llm.superseded import current_first, holds_no_more
from llm.tokens import Tokens, estimate, estimated
from llm.types import Message, Passage
from retrieval.types import Chunk, Found, Hit, SearchParams

NEAR = 0.9
"""Cosine from which one passage may repeat another, so that few are compared word by word. Any from 0.7 to
0.95 finds as much on the open sets; with none, a short one is lost whose words stand in a long one about
something else."""
_SIGNED = re.compile(r"[-−+±<>≤≥$€£¥]\s?\d[\d.,]*|\d[\d.,]*\s?[%‰°$€£¥]")
"""Numbers with a sign, which is no part of a word: -5 is not 5, and 10 $ not 10 €."""

TokensOf = Callable[[Release], Tokens | None]
"""The token budget of a release's first model; None where it has no server."""


def untold(release: Release) -> Tokens | None:
    """Nothing is known of any model's tokens."""
    return None


def depth(params: SearchParams) -> int:
    """How many hits to ask a search for, so that others can take the place of repetitions: as many as it
    looks up anyway."""
    return max(params.limit, params.smoothing_depth)


def in_force(found: Found, question: str, part: ContextPart, most: int) -> Found:
    """With passages of texts that no longer hold where the release wants them. Where none is among the best
    `most`, none takes the place of another."""
    best = found.hits[:most]
    if part.superseded == "alike" or not any(holds_no_more(h.chunk.title, h.chunk.heading) for h in best):
        return found
    paths = [[hit.chunk.title, *hit.chunk.heading.split(" > ")] for hit in found.hits]
    return replace(found, hits=tuple(found.hits[at] for at in current_first(question, paths)))


def chosen(hits: Sequence[Hit], part: ContextPart, most: int) -> tuple[Hit, ...]:
    """The best hits whose text fits the budget together, best first: at most `most`, at least one if there
    is one, and where the release wants it none that says nothing but what a better one says."""
    kept: list[_Said] = []
    used = 0
    distinct = part.distinct and _any_near(hits[:most])
    for said in map(_Said, hits):
        if len(kept) == most:
            break
        if distinct and any(said.repeats(better) for better in kept):
            continue
        used += len(said.hit.chunk.text)
        if kept and used > part.max_characters:
            break
        kept.append(said)
    return tuple(said.hit for said in kept)


def _any_near(hits: Sequence[Hit]) -> bool:
    """Whether any of these may repeat another. Mostly none may, which one product tells of all of them."""
    vectors = [hit.vector for hit in hits if hit.vector is not None]
    if len(vectors) < 2:
        return False
    stacked = np.concatenate(vectors).reshape(len(vectors), -1)
    cosines = stacked @ stacked.T
    np.fill_diagonal(cosines, 0)
    return bool(cosines.max() >= NEAR)


async def fitting(
    hits: tuple[Hit, ...], tokens: Tokens, rest: Sequence[Message], answer: int
) -> tuple[Hit, ...]:
    """The first of these that fit the model's window together with the `rest` of the prompt and an answer of
    so many tokens; at least one if there is one, since only the model knows for sure.

    Nothing is counted where an estimate from above fits.
    """
    window = await tokens.window()
    if window is None:
        return hits
    texts = [render_passages(passages([hit.chunk])) + "\n" for hit in hits]
    if estimated(rest) + sum(map(estimate, texts)) + answer <= window:
        return hits
    room = window - answer - await tokens.count(rest)
    return hits[: max(1, await tokens.fitting(texts, room))]


def ordered(hits: Sequence[Hit], part: ContextPart) -> tuple[Hit, ...]:
    """In the order in which a prompt numbers them.

    The canonical order is that of documents and of the passages in them, not of scores: two prompts that
    share sources then begin with the same text, which a server with a prefix cache reads only once.
    """
    if part.order == "score":
        return tuple(hits)
    return tuple(sorted(hits, key=lambda hit: (hit.chunk.document_id, hit.chunk.ordinal)))


@dataclass(frozen=True)
class _Said:
    """What a reader of a passage is told, by its words and by every three of them in a row."""

    hit: Hit

    def repeats(self, better: _Said) -> bool:
        """Whether it says nothing that the better one does not: a word of it, its title and headings
        included, or three words in a row that are new keep it. So no other number or name is lost, nor one
        in another place."""
        return self._near(better) and self._words <= better._words and self._runs <= better._runs

    def _near(self, other: _Said) -> bool:
        mine, others = self.hit.vector, other.hit.vector
        return mine is not None and others is not None and float(mine @ others) >= NEAR

    @cached_property
    def _words(self) -> frozenset[str]:
        chunk = self.hit.chunk
        text = f"{chunk.title}\n{chunk.heading}\n{chunk.text}"
        return frozenset(Statement(text).words).union(_SIGNED.findall(text))

    @cached_property
    def _runs(self) -> frozenset[tuple[str, ...]]:
        return Statement(self.hit.chunk.text).triples


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
