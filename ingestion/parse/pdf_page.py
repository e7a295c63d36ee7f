"""What PDFium says of one page: its words with their places, the lines drawn on it, its images.

Places are points in a frame in which the writing is upright and runs from left to right, y upwards. Writing
of another direction (a turned table, a stamp at the margin) has a frame of its own, so that whatever follows
need not know of turned pages.
"""

from __future__ import annotations

import ctypes
import math
import re
import struct
import sys
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium

from ingestion.parse.pdf_drawing import Box, Rule, look_at, turned
from ingestion.parse.pdf_words import Word, has_rtl, letters, logical

_BOLD = ("bold", "black", "heavy", "cmbx", "semibold", "demi")
# PDFium puts one of these for a hyphen at a line's end, and leaves the line break after it out.
_HYPHENS = "\ufffe\x02"
_SOFT_HYPHEN = "\xad"
_SPACES = " \t\xa0\u2002\u2003\u2007\u2009\u200a\u202f\u3000"
_LINE_ENDS = "\n\r\f"
_BETWEEN = _SPACES + _LINE_ENDS
_UNPRINTED = re.compile(r"[\x00\x01\x03-\x08\x0b\x0e-\x1f\ud800-\udfff]+")
_PRINTED = rf"[^\x00-\x1f\ud800-\udfff{_SPACES}{_HYPHENS}]"
_WITHIN = rf"[^{_BETWEEN}{_HYPHENS}]"
_WORD = re.compile(
    rf"(?P<word>{_PRINTED}(?:{_WITHIN}*{_PRINTED})?)(?:{_UNPRINTED.pattern})?(?P<hyphen>[{_HYPHENS}])?|[{_LINE_ENDS}]"
)
"""A word, with the hyphen that breaks it; or the end of a line."""
_NO_INK = 0.1
"""Points: a glyph that is not even so high is blank. An empty one is a thousandth of its type size high."""


_FOUR = struct.Struct("4f")


def _bare(function: Any, result: Any) -> Any:
    """A function of PDFium without the checks of its arguments, which take longer than what is called for
    every character or word does."""
    return ctypes.PYFUNCTYPE(result)(ctypes.cast(function, ctypes.c_void_p).value or 0)


_unicode = _bare(pdfium.FPDFText_GetUnicode, ctypes.c_uint)
_is_unmapped = _bare(pdfium.FPDFText_HasUnicodeMapError, ctypes.c_int)
_loose_box = _bare(pdfium.FPDFText_GetLooseCharBox, ctypes.c_int)
_char_origin = _bare(pdfium.FPDFText_GetCharOrigin, ctypes.c_int)
_char_angle = _bare(pdfium.FPDFText_GetCharAngle, ctypes.c_float)
_text_object = _bare(pdfium.FPDFText_GetTextObject, ctypes.c_void_p)


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
        by_turn = _Reader(text_page, found).words()
    finally:
        text_page.close()
    turns = sorted(by_turn, key=lambda t: (-sum(len(w.text) for w in by_turn[t]), t))
    found.words = [by_turn[turn] for turn in turns]
    drawing = look_at(page, turns[0] if turns else 0)
    found.rules, found.pictured, found.has_image = drawing.rules, drawing.pictured, drawing.has_image
    return found


class _Reader:
    """Walks over PDFium's characters, which come in the order of the file with line ends put in."""

    def __init__(self, text_page: pypdfium2.PdfTextPage, found: PageText) -> None:
        self._page = text_page.raw
        self._found = found
        self._box = (ctypes.c_float * 4)()
        self._x, self._y = ctypes.c_double(), ctypes.c_double()
        self._at_box, self._at_x, self._at_y = map(ctypes.byref, (self._box, self._x, self._y))
        self._name = ctypes.create_string_buffer(128)
        self._matrix = pdfium.FS_MATRIX()
        self._styles: dict[int, tuple[float, bool]] = {}

    def words(self) -> dict[int, list[Word]]:
        """By the quarter turns that they are turned by."""
        text, odd = self._text()
        by_turn: dict[int, list[Word]] = {}
        words: list[Word] | None = None
        line = breaks = 0
        for match in _WORD.finditer(text):
            printed, hyphen = match.groups()
            if printed:
                first, end = match.span(1)
                turn, word = self._word(printed, first, end - 1, line, hyphen is not None)
                if words and words[-1].broken:
                    words[-1] = _with_hyphen(words[-1], word.text)
                words = by_turn.setdefault(turn, [])
                words.append(word)
            breaks += hyphen is not None
            line += not printed or hyphen is not None
        self._found.characters += len(text) - sum(map(text.count, _BETWEEN)) - breaks
        self._found.unreadable += odd
        return by_turn

    def _text(self) -> tuple[str, int]:
        """The page's characters, with nothing printed in place of those that the file gives no meaning, and
        how many these are. Such a one is no hyphen or line end, whatever its code; a blank one is a space."""
        page, places = self._page, range(pdfium.FPDFText_CountChars(self._page))
        codes = list(map(_unicode, repeat(page), places))
        if max(codes, default=0) > sys.maxunicode:
            codes = [code if code <= sys.maxunicode else 0 for code in codes]
        text = "".join(map(chr, codes))
        unmapped = list(map(_is_unmapped, repeat(page), places))
        if 1 not in unmapped:
            return text, 0
        text = "".join(
            c if unmapped[at] != 1 else " " if self._is_blank(at) else "\0" for at, c in enumerate(text)
        )
        return text, text.count("\0")

    def _is_blank(self, index: int) -> bool:
        """Whether a character leaves no ink."""
        left, right, bottom, top = (ctypes.c_double() for _ in range(4))
        pdfium.FPDFText_GetCharBox(self._page, index, left, right, bottom, top)
        return top.value - bottom.value < _NO_INK

    def _word(self, text: str, first: int, last: int, line: int, broken: bool) -> tuple[int, Word]:
        """The word with these outermost characters, and the quarter turns that it is turned by."""
        begin = self._edges(first)
        end = self._edges(last) if last != first else begin
        size, bold = self._style(first)
        _char_origin(self._page, first, self._at_x, self._at_y)
        bottom = self._y.value
        angle = _char_angle(self._page, first)
        turn = _turn(angle) if angle else 0
        left, right = min(begin[0], end[0]), max(begin[2], end[2])
        if turn or not size:
            box = turned(_joined(begin, end), turn)
            left, right, size = box[0], box[2], size or round(box[3] - box[1], 1)
            bottom = turned((self._x.value, bottom) * 2, turn)[1]
        if not (text.isascii() and text.isprintable()):
            text = _UNPRINTED.sub("", text)
            broken = broken or text.endswith(_SOFT_HYPHEN)
            text = text.replace(_SOFT_HYPHEN, "")
            if has_rtl(text):
                text = logical(text, forwards=turned(begin, turn)[0] < turned(end, turn)[0])
            text = letters(text)
        return turn, Word(text, left, right, bottom, size, bold, line, broken)

    def _edges(self, index: int) -> Box:
        """Left, bottom, right and top of a character with the room its font gives it."""
        if not _loose_box(self._page, index, self._at_box):
            return 0.0, 0.0, 0.0, 0.0
        left, top, right, bottom = _FOUR.unpack_from(self._box)
        if right < left:
            left, right = right, left
        if top < bottom:
            bottom, top = top, bottom
        return left, bottom, right, top

    def _style(self, index: int) -> tuple[float, bool]:
        """Type size as seen (the nominal one is 1 in files that scale by the text matrix), and weight."""
        key = _text_object(self._page, index) or 0
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


def _with_hyphen(broken: Word, rest: str) -> Word:
    """A word that was broken gets its hyphen back where that belongs to it, as in `EU-Kommission`."""
    return broken._replace(text=broken.text + "-") if rest[:1].isupper() or rest[:1].isdigit() else broken


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
