"""What PDFium says of one page: its words with their places, the lines drawn on it, its images.

Places are points in a frame in which the writing is upright and runs from left to right, y upwards. Writing
of another direction (a turned table, a stamp at the margin) has a frame of its own, so that whatever follows
need not know of turned pages.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pypdfium2
import pypdfium2.raw as pdfium

from ingestion.parse.pdf_drawing import Box, Rule, look_at, turned
from ingestion.parse.pdf_words import Word, has_rtl, letters, logical

_BOLD = ("bold", "black", "heavy", "cmbx", "semibold", "demi")
# PDFium puts one of these for a hyphen at a line's end, and leaves the line break after it out.
_HYPHENS = frozenset({0xFFFE, 0x02})
_SOFT_HYPHEN = 0xAD
_SPACES = frozenset({0x20, 0x09, 0xA0, 0x2002, 0x2003, 0x2007, 0x2009, 0x200A, 0x202F, 0x3000})
_LINE_ENDS = frozenset({0x0A, 0x0D, 0x0C})


@dataclass(slots=True)
class PageText:
    """`words` by direction of writing, the one with most text first; `rules` in the first one's frame.
    `unreadable` counts glyphs whose meaning the file does not give; `pictured` is the share of the page
    that images cover."""

    words: list[list[Word]] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    characters: int = 0
    unreadable: int = 0
    pictured: float = 0.0
    has_image: bool = False


def page_text(page: pypdfium2.PdfPage) -> PageText:
    found = PageText()
    text_page = page.get_textpage()
    try:
        by_turn: dict[int, list[Word]] = {}
        for turn, word in _with_hyphens(_Reader(text_page, found).words()):
            by_turn.setdefault(turn, []).append(word)
    finally:
        text_page.close()
    turns = sorted(by_turn, key=lambda t: (-sum(len(w.text) for w in by_turn[t]), t))
    found.words = [by_turn[turn] for turn in turns]
    drawing = look_at(page, turns[0] if turns else 0)
    found.rules, found.pictured, found.has_image = drawing.rules, drawing.pictured, drawing.has_image
    return found


def _with_hyphens(words: Iterator[tuple[int, Word]]) -> Iterator[tuple[int, Word]]:
    """A word that was broken gets its hyphen back where that belongs to it, as in `EU-Kommission`."""
    held: tuple[int, Word] | None = None
    for turn, word in words:
        if held is not None:
            compound = word.text[:1].isupper() or word.text[:1].isdigit()
            yield held[0], replace(held[1], text=held[1].text + "-") if compound else held[1]
        held = (turn, word) if word.broken else None
        if held is None:
            yield turn, word
    if held is not None:
        yield held


@dataclass(slots=True)
class _Begun:
    """A word being gathered. `first` and `last` are indexes of its outermost characters."""

    text: list[str]
    first: int
    last: int
    line: int


class _Reader:
    """Walks over PDFium's characters, which come in the order of the file with line ends put in."""

    def __init__(self, text_page: pypdfium2.PdfTextPage, found: PageText) -> None:
        self._page = text_page.raw
        self._found = found
        self._box = pdfium.FS_RECTF()
        self._x, self._y = ctypes.c_double(), ctypes.c_double()
        self._name = ctypes.create_string_buffer(128)
        self._matrix = pdfium.FS_MATRIX()
        self._styles: dict[int, tuple[float, bool]] = {}

    def words(self) -> Iterator[tuple[int, Word]]:
        page, unicode, unmapped = self._page, pdfium.FPDFText_GetUnicode, pdfium.FPDFText_HasUnicodeMapError
        begun: _Begun | None = None
        line = 0
        for index in range(pdfium.FPDFText_CountChars(page)):
            code = unicode(page, index)
            ends = code in _LINE_ENDS
            broken = code in _HYPHENS and begun is not None
            if code in _SPACES or ends or broken:
                if begun is not None:
                    yield self._finished(begun, broken)
                    begun = None
                line += ends or broken
                continue
            self._found.characters += 1
            if unmapped(page, index) == 1:
                self._found.unreadable += 1
                continue
            if code < 0x20 or 0xD800 <= code < 0xE000 or code > 0x10FFFF or code in _HYPHENS:
                continue
            if begun is None:
                begun = _Begun([], index, index, line)
            begun.text.append(chr(code))
            begun.last = index
        if begun is not None:
            yield self._finished(begun, False)

    def _finished(self, begun: _Begun, broken: bool) -> tuple[int, Word]:
        text = "".join(begun.text)
        soft = text.endswith(chr(_SOFT_HYPHEN))
        first, last = self._edges(begun.first), self._edges(begun.last)
        size, bold = self._style(begun.first)
        pdfium.FPDFText_GetCharOrigin(self._page, begun.first, self._x, self._y)
        turn = _turn(pdfium.FPDFText_GetCharAngle(self._page, begun.first))
        origin = turned((self._x.value, self._y.value) * 2, turn)
        box = turned(_joined(first, last), turn)
        text = text.replace(chr(_SOFT_HYPHEN), "")
        if has_rtl(text):
            text = logical(text, forwards=turned(first, turn)[0] < turned(last, turn)[0])
        word = Word(
            text=letters(text),
            left=box[0],
            right=box[2],
            bottom=origin[1],
            size=size or round(box[3] - box[1], 1),
            bold=bold,
            line=begun.line,
            broken=broken or soft,
        )
        return turn, word

    def _edges(self, index: int) -> Box:
        """Left, bottom, right and top of a character with the room its font gives it."""
        if not pdfium.FPDFText_GetLooseCharBox(self._page, index, self._box):
            return 0.0, 0.0, 0.0, 0.0
        box = self._box
        left, right = sorted((box.left, box.right))
        bottom, top = sorted((box.bottom, box.top))
        return left, bottom, right, top

    def _style(self, index: int) -> tuple[float, bool]:
        """Type size as seen (the nominal one is 1 in files that scale by the text matrix), and weight."""
        handle = pdfium.FPDFText_GetTextObject(self._page, index)
        key = ctypes.cast(handle, ctypes.c_void_p).value or 0
        style = self._styles.get(key)
        if style is None:
            size = float(pdfium.FPDFText_GetFontSize(self._page, index))
            if pdfium.FPDFText_GetMatrix(self._page, index, self._matrix):
                size *= math.hypot(self._matrix.c, self._matrix.d)
            flags = ctypes.c_int()
            length = pdfium.FPDFText_GetFontInfo(self._page, index, self._name, 128, flags)
            name = self._name.value.decode("latin-1").lower() if 0 < length <= 128 else ""
            style = self._styles[key] = round(size, 1), any(mark in name for mark in _BOLD)
        return style


def _turn(angle: float) -> int:
    """The quarter turns to the left that the writing is turned by; PDFium's angles turn to the right."""
    return round(-angle / (math.pi / 2)) % 4


def _joined(one: Box, other: Box) -> Box:
    return (
        min(one[0], other[0]),
        min(one[1], other[1]),
        max(one[2], other[2]),
        max(one[3], other[3]),
    )
