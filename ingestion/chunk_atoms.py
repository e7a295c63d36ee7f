"""What a passage is put together from: pieces of blocks that are not cut further, and where one may begin.

A block is cut at its lines where it is a table, a list or code, else at sentence ends; what is still longer
than a passage where a clause or a sentence in small letters may end, then at white space, and at last
anywhere between two tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import pairwise

from ingestion.tokens import Tokens
from ingestion.types import Block, BlockKind
from retrieval.types import Span

_CHARACTERS_PER_TOKEN = 32
_FINEST = 8
"""Words are taken together until they weigh a passage's share of this."""


class Cut(IntEnum):
    """What is parted where a passage begins; the lower, the better."""

    BLOCK = 0
    LINE = 1
    SENTENCE = 2
    CLAUSE = 3
    WORDS = 4


@dataclass(frozen=True, slots=True)
class Atom:
    """Characters that are not cut further, and what they weigh in tokens.

    `cut` is what a passage that begins here parts, `floor` how far back it may overlap the one before.
    `header` are the names of the columns above a table's row, None where they are in the atom itself.
    """

    start: int
    end: int
    weight: int
    cut: Cut
    floor: int
    header: Span | None = None


_SENTENCE_END = re.compile(r"(?:[.!?…][\"'”’)\]]*\s+(?=[^\sa-z])|[。！？]|\n)")
_CLAUSE_END = re.compile(r"[.!?…;:][\"'”’)\]]*\s+|[，；：、]")
_LINE_END = re.compile(r"\n")
_WORD_END = re.compile(r"\s+")
Ways = tuple[tuple[Cut, re.Pattern[str]], ...]
_PROSE: Ways = ((Cut.SENTENCE, _SENTENCE_END), (Cut.CLAUSE, _CLAUSE_END), (Cut.WORDS, _WORD_END))
_LINES: Ways = ((Cut.LINE, _LINE_END), *_PROSE)
_WAYS: dict[BlockKind, Ways] = {
    "table": _LINES,
    "list": _LINES,
    "code": ((Cut.LINE, _LINE_END), (Cut.WORDS, _WORD_END)),
}


@dataclass(frozen=True, slots=True)
class Atoms:
    """Cuts the blocks of one document into atoms of at most so many tokens."""

    text: str
    tokens: Tokens

    def of(self, blocks: Sequence[Block], limit: int, overlap: int) -> list[Atom]:
        """Of neighbouring blocks, in order, each with room for what its passage may share with the one before
        it. Rows of a table are not shared: they would be without the names of their columns."""
        found: list[Atom] = []
        floor = blocks[0].span.start
        for block in blocks:
            if block.kind == "table":
                found += self._table(block, limit, overlap, floor)
                floor = block.span.end
            else:
                found += self._block(block, limit - overlap, floor)
        return found

    def weight(self, start: int, end: int) -> int:
        """Tokens, and at least some for any length, so that no passage outgrows what a store can hold."""
        return max(self.tokens.count(start, end), (end - start) // _CHARACTERS_PER_TOKEN)

    def _table(self, block: Block, limit: int, overlap: int, floor: int) -> Iterator[Atom]:
        """Its rows. Names of columns that would take half a passage are not said again in each."""
        header = block.header
        weight = self.weight(header.start, header.end) if header else 0
        if header is None or weight > limit // 2:
            yield from self._block(block, limit - overlap, floor)
            return
        start, end = block.span.start, block.span.end
        rows = self._block(replace(block, span=Span(max(start, header.end), end)), limit - weight, 0)
        if start < header.end:
            first = next(rows, None)
            if first is None:
                yield from self._block(block, limit - overlap, floor)
                return
            # The names never end a passage: the first row goes with them.
            yield Atom(header.start, first.end, weight + first.weight, Cut.BLOCK, header.start)
        for row in rows:
            yield replace(row, header=header, floor=row.start)

    def _block(self, block: Block, limit: int, floor: int) -> Iterator[Atom]:
        start, end = block.span.start, block.span.end
        yield from self._cut(start, end, limit, _WAYS.get(block.kind, _PROSE), Cut.BLOCK, floor)

    def _cut(self, start: int, end: int, limit: int, ways: Ways, cut: Cut, floor: int) -> Iterator[Atom]:
        """The text cut in the first of these ways; in the others only what is too long even so. `cut` is
        what a passage parts that begins at its start."""
        if not ways:
            yield from self._cut_anywhere(start, end, limit, cut, floor)
            return
        (parted, pattern), finer = ways[0], ways[1:]
        ends = [*(found.end() for found in pattern.finditer(self.text, start, end)), end]
        for first, last in pairwise([start, *(self._words(start, ends, limit) if not finer else ends)]):
            weight = self.weight(first, last)
            if weight > limit:
                yield from self._cut(first, last, limit, finer, cut, floor)
            elif self.tokens.touch(first, last):
                yield Atom(first, last, weight, cut, floor)
            else:
                continue
            cut = parted

    def _words(self, start: int, ends: Sequence[int], limit: int) -> Iterator[int]:
        """Of the ends of words those that part runs of about an equal share of a passage."""
        share = max(1, limit // _FINEST)
        last = start
        for this, following in pairwise(ends):
            if self.weight(last, following) > share:
                yield this
                last = this
        yield ends[-1]

    def _cut_anywhere(self, start: int, end: int, limit: int, cut: Cut, floor: int) -> Iterator[Atom]:
        """Between any two tokens; a token that is longer than a whole passage (a word that the embedder does
        not know) at any character."""
        longest = limit * _CHARACTERS_PER_TOKEN
        places = [start, *self._words(start, [*self.tokens.boundaries(start, end), end], limit)]
        for first, last in pairwise(places):
            for at in range(first, last, longest):
                until = min(at + longest, last)
                yield Atom(at, until, self.weight(at, until), cut, floor)
                cut = Cut.WORDS
