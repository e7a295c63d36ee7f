"""Where a text's tokens lie, so that cutting it up is arithmetic and no second tokenization."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence

TokenSpans = Callable[[str], Sequence[tuple[int, int]]]

_STRETCH = 2**18
"""Characters that are tokenized at once, cut at white space: a tokenizer's own lists of places take a hundred
times as much memory as the text."""
_SPACE = re.compile(r"\s")
_NO_SPACE = re.compile(r"\S")


class Tokens:
    """The character ranges of a text's tokens, in order. Some tokenizers count the space before a word to
    its token; here a token begins at its first visible character."""

    def __init__(self, text: str, token_spans: TokenSpans) -> None:
        self._text = text
        self._starts, self._ends = array("I"), array("I")
        for first, last in _stretches(text):
            for start, end in token_spans(text[first:last]):
                if start < end:
                    self._add(first + start, first + end)

    def _add(self, start: int, end: int) -> None:
        if self._text[start].isspace() and (visible := _NO_SPACE.search(self._text, start, end)):
            start = visible.start()
        self._starts.append(start)
        self._ends.append(end)

    def count(self, start: int, end: int) -> int:
        """How many tokens begin in this range of characters."""
        return bisect_left(self._starts, end) - bisect_left(self._starts, start)

    def touch(self, start: int, end: int) -> bool:
        """Whether any token has a visible character in this range."""
        at = bisect_right(self._ends, start)
        while at < len(self._starts) and self._starts[at] < end:
            if not self._text[max(start, self._starts[at]) : min(end, self._ends[at])].isspace():
                return True
            at += 1
        return False

    def boundaries(self, start: int, end: int) -> list[int]:
        """Places strictly inside the range where one token has ended and the next begins."""
        first, last = bisect_right(self._starts, start), bisect_left(self._starts, end)
        return [self._starts[i] for i in range(max(1, first), last) if self._is_boundary(i)]

    def back(self, at: int, tokens: int, floor: int) -> int:
        """A place at most that many tokens before `at` and not before `floor`: the first start of a word
        there, else of a token, else `at` itself."""
        index = max(0, bisect_left(self._starts, at) - tokens)
        while tokens and index < len(self._starts) and self._starts[index] < at:
            place = self._starts[index]
            if place >= floor and self._is_boundary(index):
                return self._word_start(place, at)
            index += 1
        return at

    def _is_boundary(self, index: int) -> bool:
        return index == 0 or self._starts[index] >= self._ends[index - 1]

    def _word_start(self, place: int, at: int) -> int:
        if place == 0 or self._text[place - 1].isspace():
            return place
        space = _SPACE.search(self._text, place, at)
        return space.end() if space else place


def _stretches(text: str) -> Iterator[tuple[int, int]]:
    at = 0
    while len(text) - at > _STRETCH:
        end = at + _STRETCH
        middle = at + _STRETCH // 2
        cut = max(text.rfind("\n", middle, end), 0) or max(text.rfind(" ", middle, end), 0) or end
        yield at, cut
        at = cut
    yield at, len(text)
