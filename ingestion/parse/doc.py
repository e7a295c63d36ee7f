"""DOC, the Word format before 2007: paragraphs, headings, list items and tables of the main text, its notes.

After [MS-DOC]: a table of pieces says where the text lies, and pages of paragraph properties what each
paragraph is. `olefile` opens the container. Deleted text is not told apart.
"""

from __future__ import annotations

import io
import re
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import olefile

from ingestion.errors import Quarantined
from ingestion.parse.builder import MAX_CHARACTERS, Builder, too_large
from ingestion.parse.package import encrypted
from ingestion.parse.tables import write_table
from ingestion.parse.within import Within
from ingestion.types import Parsed

_WORD_97 = 0x00C1
_ENCRYPTED, _TABLE_1 = 0x0100, 0x0200
_COUNTS = 0x4C
"""Where the lengths stand: of the text, footnotes, headers, macros, comments, endnotes, boxes."""
_PAPX, _CLX = 0x102, 0x1A2
_PAGE = 512
_IN_TABLE, _ROW_END, _LIST, _LIST_LEVEL = 0x2416, 0x2417, 0x460B, 0x260A
_TABLE_DEFINITION, _TABS = 0xD608, 0xC615
_OPERANDS = {0: 1, 1: 1, 2: 2, 3: 4, 4: 2, 5: 2, 7: 3}
_PARTS = re.compile(r"[\x07\x0c\r\x13-\x15]|[^\x07\x0c\r\x13-\x15]+")
_UNSEEN = "\x01\x02\x05\x08\x1f"
_MARKS = str.maketrans({"\x0b": "\n", "\x1e": "-", "\xa0": " "} | dict.fromkeys(_UNSEEN))
_TOO_OLD = "The DOC is of Word 95 or older. Open it in an office program and save as DOCX."
_BROKEN = (OSError, struct.error, IndexError, ValueError, OverflowError)


def read(content: bytes, within: Within) -> Parsed:
    builder = Builder()
    try:
        with olefile.OleFileIO(io.BytesIO(content)) as file:
            word = file.openstream("WordDocument").read()
            flags = struct.unpack_from("<H", word, 0x0A)[0]
            if flags & _ENCRYPTED:
                raise encrypted("DOC")
            if struct.unpack_from("<H", word, 2)[0] < _WORD_97:
                raise Quarantined("damaged", _TOO_OLD)
            table = file.openstream("1Table" if flags & _TABLE_1 else "0Table").read()
        document = _Document(word, _pieces(word, table), _properties(word, table))
        _Writer(builder, within).write(document)
    except _BROKEN as error:
        message = f"The DOC is damaged ({type(error).__name__}): it cannot be opened."
        raise Quarantined("damaged", message) from None
    return builder.build(builder.opening_heading())


@dataclass(frozen=True, slots=True)
class _Piece:
    """Text that lies in one place: its first character's number, its place in bytes, bytes a character."""

    start: int
    offset: int
    width: int
    text: str


@dataclass(frozen=True, slots=True)
class _Properties:
    """What a paragraph is. `heading` and `level` are 0 for none."""

    heading: int = 0
    in_table: bool = False
    row_end: bool = False
    listed: bool = False
    level: int = 0


@dataclass(frozen=True, slots=True)
class _Paragraph:
    text: str
    mark: str
    properties: _Properties


def _pieces(word: bytes, table: bytes) -> list[_Piece]:
    at, size = struct.unpack_from("<II", word, _CLX)
    clx = table[at : at + size]
    at = 0
    while clx[at] == 1:  # Properties that some pieces share.
        at += 3 + struct.unpack_from("<H", clx, at + 1)[0]
    size = struct.unpack_from("<I", clx, at + 1)[0]
    places = clx[at + 5 : at + 5 + size]
    count = (len(places) - 4) // 12
    starts = struct.unpack_from(f"<{count + 1}I", places)
    if starts[-1] > MAX_CHARACTERS or any(b < a for a, b in pairwise(starts)):
        raise too_large()  # Pieces may name the same place over and over.
    pieces = []
    for n in range(count):
        where = struct.unpack_from("<I", places, 4 * (count + 1) + 8 * n + 2)[0]
        width = 1 if where & 0x40000000 else 2
        offset = (where & 0x3FFFFFFF) // 2 if width == 1 else where
        raw = word[offset : offset + width * (starts[n + 1] - starts[n])]
        pieces.append(_Piece(starts[n], offset, width, _decoded(raw, width)))
    return pieces


def _decoded(raw: bytes, width: int) -> str:
    """A character for each of the file's, so that they can be counted; pairs are joined later."""
    if width == 1:
        return raw.decode("cp1252", "replace")
    return "".join(map(chr, array("H", raw[: len(raw) // 2 * 2])))


def _properties(word: bytes, table: bytes) -> dict[int, _Properties]:
    """Where runs of paragraphs begin in the file, in bytes, ascending, and what they are."""
    at, size = struct.unpack_from("<II", word, _PAPX)
    count = (size - 4) // 8
    numbers = struct.unpack_from(f"<{count}I", table, at + 4 * (count + 1))
    found: dict[int, _Properties] = {}
    for number in numbers:
        page = word[number * _PAGE : (number + 1) * _PAGE]
        runs = page[_PAGE - 1]
        for run, start in enumerate(struct.unpack_from(f"<{runs}I", page)):
            offset = 2 * page[4 * (runs + 1) + 13 * run]
            found[start] = _run(page[offset:]) if offset else _Properties()
    return dict(sorted(found.items()))


def _run(stored: bytes) -> _Properties:
    size = 2 * stored[0] - 1 if stored[0] else 2 * stored[1]
    begin = 1 if stored[0] else 2
    style = struct.unpack_from("<H", stored, begin)[0]
    set_to = dict(_changes(stored[begin + 2 : begin + size]))
    return _Properties(
        heading=style if 1 <= style <= 9 else 0,  # These styles have the same numbers in every file.
        in_table=bool(set_to.get(_IN_TABLE)),
        row_end=bool(set_to.get(_ROW_END)),
        listed=bool(set_to.get(_LIST)),
        level=min(set_to.get(_LIST_LEVEL, 0), 8),
    )


def _changes(stored: bytes) -> Iterator[tuple[int, int]]:
    """The properties that a run changes, each with the first byte of its value."""
    at = 0
    while at + 3 <= len(stored):
        code = struct.unpack_from("<H", stored, at)[0]
        at += 2
        yield code, stored[at]
        size = _OPERANDS.get(code >> 13)
        if size is None and code == _TABLE_DEFINITION and at + 2 <= len(stored):
            size = struct.unpack_from("<H", stored, at)[0] + 1
        elif size is None:
            size = stored[at] + 1
            if code == _TABS and size == 256:
                return
        at += size


class _Document:
    def __init__(self, word: bytes, pieces: list[_Piece], properties: dict[int, _Properties]) -> None:
        self._pieces = pieces
        self._starts = [piece.start for piece in pieces]
        self._text = "".join(piece.text for piece in pieces)
        self._places = list(properties)
        self._properties = list(properties.values())
        text, footnotes, headers, _, comments, endnotes, boxes = struct.unpack_from("<7I", word, _COUNTS)
        notes = text + footnotes + headers + comments
        self._spans = (
            (0, text),
            (text, text + footnotes),
            (notes, notes + endnotes),
            (notes + endnotes, notes + endnotes + boxes),
        )

    def paragraphs(self) -> Iterator[_Paragraph]:
        """Those of the text, then of notes and boxes. The instructions of fields are left out."""
        for start, end in self._spans:
            words: list[str] = []
            fields: list[bool] = []
            for part in _PARTS.finditer(self._text, start, min(end, len(self._text))):
                mark = part[0]
                if mark == "\x13":
                    fields.append(True)
                elif mark == "\x14" and fields:
                    fields[-1] = False
                elif mark == "\x15" and fields:
                    fields.pop()
                elif any(fields):
                    continue
                elif mark in "\r\x07\x0c":
                    yield _Paragraph(_joined(words), mark, self._at(part.start()))
                    words.clear()
                elif mark not in "\x14\x15":
                    words.append(mark)
            yield _Paragraph(_joined(words), "\r", _Properties())

    def _at(self, character: int) -> _Properties:
        piece = self._pieces[bisect_right(self._starts, character) - 1]
        place = piece.offset + piece.width * (character - piece.start)
        run = bisect_right(self._places, place) - 1
        return self._properties[run] if run >= 0 else _Properties()


def _joined(words: list[str]) -> str:
    text = "".join(words).translate(_MARKS)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").strip()


class _Writer:
    """Writes blocks; the rows of a table and the items of a list gather until something else comes."""

    def __init__(self, builder: Builder, within: Within) -> None:
        self._builder = builder
        self._within = within
        self._items: list[str] = []
        self._rows: list[list[str]] = []
        self._cells: list[str] = []
        self._cell: list[str] = []

    def write(self, document: _Document) -> None:
        for number, paragraph in enumerate(document.paragraphs(), 1):
            self._within.progress(f"paragraph {number}")
            if paragraph.mark == "\x07" or paragraph.properties.in_table:
                self._list()
                self._in_table(paragraph)
            else:
                self._table()
                self._beside(paragraph)
        self._table()
        self._list()

    def _in_table(self, paragraph: _Paragraph) -> None:
        if paragraph.properties.row_end:
            self._rows.append(self._cells)
            self._cells = []
            return
        self._cell.append(paragraph.text)
        if paragraph.mark == "\x07":
            self._cells.append(" ".join(self._cell))
            self._cell = []

    def _beside(self, paragraph: _Paragraph) -> None:
        is_a = paragraph.properties
        if is_a.listed and paragraph.text and not is_a.heading:
            self._items.append("  " * is_a.level + "- " + paragraph.text.replace("\n", " "))
            return
        self._list()
        if is_a.heading:
            self._builder.add("heading", " ".join(paragraph.text.split()), level=is_a.heading)
        else:
            self._builder.add("paragraph", paragraph.text)

    def _list(self) -> None:
        self._builder.add("list", "\n".join(self._items))
        self._items.clear()

    def _table(self) -> None:
        rest = [*self._cells, *self._cell]
        write_table(self._builder, [row for row in (*self._rows, rest) if row])
        self._rows, self._cells, self._cell = [], [], []
