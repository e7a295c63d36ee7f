"""The visible text of a DOCX: runs, notes, text boxes and the rows of tables. Deleted text is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lxml import etree

from ingestion.parse.tables import MAX_SPAN, Cell, spread

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
PARAGRAPH, TABLE = f"{W}p", f"{W}tbl"
BOX = f"{W}txbxContent"
_ROW, _CELL = f"{W}tr", f"{W}tc"
_CELL_SPAN, _CELL_MERGE = f"{W}tcPr/{W}gridSpan", f"{W}tcPr/{W}vMerge"
_LATE = f"{W}trPr/{W}gridBefore"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_WORDS = frozenset((f"{W}t", f"{_MATH}t"))
_CHARACTERS = {
    f"{W}tab": "\t",
    f"{W}ptab": "\t",
    f"{W}noBreakHyphen": "-",
    f"{W}br": "\n",
    f"{W}cr": "\n",
}
_NOTES = {f"{W}footnoteReference": "footnote", f"{W}endnoteReference": "endnote"}
_SKIPPED = frozenset(
    (
        *(W + n for n in ("del", "moveFrom", "pPr", "rPr", "tblPr", "tcPr", "trPr", "sdtPr", "rt")),
        _FALLBACK,
    )
)


@dataclass(slots=True)
class Texts:
    """Reads text; notes are numbered as they are met, and wait until they are written.

    `notes` are the elements of notes by kind and id.
    """

    notes: Mapping[tuple[str, str], etree._Element]
    _met: int = 0
    _waiting: list[str] = field(default_factory=list)

    def pending(self) -> list[str]:
        """The notes met since the last call, each with its mark."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def of(self, element: etree._Element) -> str:
        """The text of a paragraph, without that of the boxes anchored in it."""
        out: list[str] = []
        stack = list(reversed(element))
        while stack:
            node = stack.pop()
            tag = node.tag
            if tag in _WORDS:
                out.append(node.text or "")
            elif tag in _CHARACTERS:
                out.append(_CHARACTERS[tag])
            elif tag in _NOTES:
                out.append(self._mark(_NOTES[tag], node.get(f"{W}id", "")))
            elif tag not in _SKIPPED and tag != BOX and isinstance(tag, str) and not _hidden(node):
                stack.extend(reversed(node))
        return "".join(out)

    def _mark(self, kind: str, number: str) -> str:
        note = self.notes.get((kind, number))
        if note is None:
            return ""
        self._met += 1
        mark = f"[^{self._met}]"
        # A note within a note has no place in it: its mark would never be explained.
        text = " ".join(Texts({}).of(p) for p in note.iter(PARAGRAPH))
        self._waiting.append(f"{mark}: {text.strip()}")
        return mark

    def rows(self, table: etree._Element) -> Iterator[list[str]]:
        """A row's cells as text. A merged cell says its text in each of its columns and rows; a table within
        a cell is read as part of the cell."""
        above: dict[int, str] = {}
        for row in within(table, _ROW):
            column = _number(row.find(_LATE), 0)
            cells: list[Cell] = [("", 1)] * column
            for cell in within(row, _CELL):
                merge, columns = cell.find(_CELL_MERGE), _number(cell.find(_CELL_SPAN), 1)
                if merge is not None and merge.get(f"{W}val", "continue") == "continue":
                    text = above.get(column, "")
                else:
                    text = " ".join(self.of(p) for p in cell.iter(PARAGRAPH))
                above[column] = text
                cells.append((text, columns))
                column += columns
            yield spread(cells)


def children(parent: etree._Element) -> Iterator[etree._Element]:
    """Paragraphs and tables in document order, also those wrapped in content controls and the like."""
    stack = list(reversed(parent))
    while stack:
        element = stack.pop()
        if element.tag in (PARAGRAPH, TABLE):
            yield element
        elif element.tag not in _SKIPPED and isinstance(element.tag, str):
            stack.extend(reversed(element))


def boxes(paragraph: etree._Element) -> Iterator[etree._Element]:
    """The text boxes anchored in a paragraph; the older form that follows each is left out."""
    for box in paragraph.iter(BOX):
        if not any(a.tag == _FALLBACK for a in box.iterancestors()):
            yield box


def within(parent: etree._Element, tag: str) -> Iterator[etree._Element]:
    """The nearest descendants with this tag, none inside another."""
    stack = list(reversed(parent))
    while stack:
        element = stack.pop()
        if element.tag == tag:
            yield element
        elif element.tag not in (*_SKIPPED, PARAGRAPH, TABLE):
            stack.extend(reversed(element))


def only_cell(table: etree._Element) -> etree._Element | None:
    """The cell of a table that has but one: a frame around text."""
    cells = [cell for row in within(table, _ROW) for cell in within(row, _CELL)]
    return cells[0] if len(cells) == 1 else None


def _hidden(run: etree._Element) -> bool:
    if run.tag != f"{W}r":
        return False
    vanish = run.find(f"{W}rPr/{W}vanish")
    return vanish is not None and vanish.get(f"{W}val", "true") not in ("0", "false", "off")


def _number(element: etree._Element | None, default: int) -> int:
    value = "" if element is None else element.get(f"{W}val", "")
    return min(int(value), MAX_SPAN) if value.isascii() and value.isdigit() and len(value) < 10 else default
