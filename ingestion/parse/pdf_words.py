"""Words of a PDF page into the pieces of its lines, each in the order in which it is read.

Files write Arabic and Hebrew in the order of their letters or in the order of their places. The places say
which it was.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_GAP = 1.1
"""In type sizes: a wider gap parts columns or cells."""
_LIGATURES = {
    code: unicodedata.normalize("NFKC", chr(code))
    for code in (
        *range(0xFB00, 0xFB07),
        *range(0xFB13, 0xFB18),
        *range(0xFB50, 0xFE00),
        *range(0xFE70, 0xFEFD),
    )
    if not unicodedata.category(chr(code)).startswith(("C", "M")) and unicodedata.decomposition(chr(code))
}
"""Ligatures and the shapes that Arabic letters take within a word, to the letters they stand for."""


class Word(NamedTuple):
    """A word as drawn; a tuple, since a book has a million of them. Places in points: its left and right
    edge, its baseline. `line` numbers PDFium's lines; `broken` says that a hyphen at the line's end parts it
    from its rest."""

    text: str
    left: float
    right: float
    bottom: float
    size: float
    bold: bool
    line: int
    broken: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line, or the piece of one that belongs to one column. Places as in `Word`; `order` is the number of
    PDFium's line, which tells the order in the file."""

    text: str
    left: float
    right: float
    bottom: float
    size: float
    bold: bool
    order: int = 0
    broken: bool = False

    @property
    def top(self) -> float:
        return self.bottom + 0.7 * self.size

    @property
    def letter(self) -> float:
        """The width of a letter on average."""
        return (self.right - self.left) / max(1, len(self.text))

    @property
    def is_row(self) -> bool:
        """Whether there are gaps in it, as between the cells of a table."""
        return self.letter > 0.65 * self.size and all(c < "\u2e80" for c in self.text)


def letters(text: str) -> str:
    return text if text.isascii() else text.translate(_LIGATURES)


def has_rtl(text: str) -> bool:
    """Whether there are letters that are written from right to left."""
    return not text.isascii() and any(unicodedata.bidirectional(c) in ("R", "AL") for c in text)


def logical(text: str, forwards: bool) -> str:
    """A right-to-left word in the order of its letters; `forwards` if it came from left to right."""
    return text[::-1] if forwards else text


def pieces(words: Sequence[Word]) -> list[Line]:
    """The words of each of PDFium's lines, parted at wide gaps; what was printed over itself, once."""
    made: list[Line] = []
    run: list[Word] = []
    for word in _once(words):
        if run and not _goes_on(run[-1], word):
            made.append(joined(run))
            run = []
        run.append(word)
    if run:
        made.append(joined(run))
    return made


def _once(words: Sequence[Word]) -> Iterator[Word]:
    """Without words that stand where the same word stands already (shadows, bold by double printing)."""
    places: dict[str, set[tuple[int, int]]] = {}
    for word in words:
        reach = 0.25 * max(1.0, word.size)
        x, y = round(word.left / reach), round(word.bottom / reach)
        seen = places.get(word.text)
        if seen is None:
            places[word.text] = {(x, y)}
        elif seen.isdisjoint([(x + i, y + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]):
            seen.add((x, y))
        else:
            continue
        yield word


def _goes_on(before: Word, word: Word) -> bool:
    if word.line != before.line or before.broken:
        return False
    size = max(before.size, word.size, 1.0)
    return max(word.left - before.right, before.left - word.right) < _GAP * size


def joined(words: Sequence[Word]) -> Line:
    """A line of the words, whose weight and size are those of most of its text."""
    ordered = in_reading_order(words)
    longest = max(words, key=lambda w: (len(w.text), w.size))
    return Line(
        text=" ".join(word.text for word in ordered),
        left=min(word.left for word in words),
        right=max(word.right for word in words),
        bottom=longest.bottom,
        size=longest.size,
        bold=2 * sum(len(w.text) for w in words if w.bold) > sum(len(w.text) for w in words),
        order=words[0].line,
        broken=words[-1].broken,
    )


def in_reading_order(words: Sequence[Word]) -> list[Word]:
    """As they came, unless some are written from right to left: then by place, runs the other way turned."""
    rtl = [has_rtl(word.text) for word in words]
    if not any(rtl):
        return list(words)
    backwards = 2 * sum(rtl) > sum(any(c.isalpha() for c in word.text) for word in words)
    placed = sorted(zip(words, rtl, strict=True), key=lambda p: p[0].left, reverse=backwards)
    ordered: list[Word] = []
    run: list[Word] = []
    for word, is_rtl in placed:
        if is_rtl == backwards:
            ordered.extend(reversed(run))
            run = []
            ordered.append(word)
        else:
            run.append(word)
    return [*ordered, *reversed(run)]
