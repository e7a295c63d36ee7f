"""The flow of text in an OpenDocument file: headings, paragraphs, lists, tables, notes, boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lxml import etree

from ingestion.parse.builder import Builder
from ingestion.parse.tables import MAX_SPAN, Cell, spread, write_table

_URN = "urn:oasis:names:tc:opendocument:xmlns:"
TEXT, TABLE, DRAW = (f"{{{_URN}{name}:1.0}}" for name in ("text", "table", "drawing"))
OFFICE, PRESENTATION = (f"{{{_URN}{name}:1.0}}" for name in ("office", "presentation"))
PARAGRAPH, HEADING, LIST = f"{TEXT}p", f"{TEXT}h", f"{TEXT}list"
_SKIPPED = frozenset(
    (
        f"{TEXT}tracked-changes",
        f"{TEXT}table-of-content",
        f"{TEXT}ruby-text",
        f"{TEXT}note",
        f"{OFFICE}annotation",
        f"{OFFICE}forms",
        f"{PRESENTATION}notes",
    )
)
_MOST_SPACES = 100
_MAX_DEPTH = 50


def numbered_lists(root: etree._Element) -> Mapping[str, frozenset[int]]:
    """Names of list styles with the levels that are numbered, from 1."""
    return {
        style.get(f"{TEXT}name", style.get(f"{{{_URN}style:1.0}}name", "")): frozenset(
            number(level.get(f"{TEXT}level"), 1) for level in style.iterfind(f"{TEXT}list-level-style-number")
        )
        for style in root.iter(f"{TEXT}list-style")
    }


@dataclass(slots=True)
class Flow:
    """Writes text in document order; a note follows the block that it belongs to."""

    builder: Builder
    numbered: Mapping[str, frozenset[int]]
    page: int | None = None
    _met: int = 0
    _notes: list[str] = field(default_factory=list)

    def write(self, parent: etree._Element) -> None:
        stack = list(reversed(parent))
        while stack:
            element = stack.pop()
            tag = element.tag
            if tag in (PARAGRAPH, HEADING):
                self._paragraph(element)
            elif tag == LIST:
                self._list(element)
            elif tag == f"{TABLE}table":
                write_table(self.builder, list(self._rows(element)), page=self.page)
                self._boxes(element)
            elif isinstance(tag, str) and tag not in _SKIPPED:
                stack.extend(reversed(element))

    def text(self, element: etree._Element) -> str:
        """The text of a paragraph, without that of the boxes anchored in it; notes leave their marks."""
        out = [element.text or ""]
        stack: list[etree._Element | str] = list(reversed(element))
        while stack:
            node = stack.pop()
            if isinstance(node, str):
                out.append(node)
                continue
            tail = [node.tail] if node.tail else []
            if node.tag == f"{TEXT}s":
                out.append(" " * min(number(node.get(f"{TEXT}c"), 1), _MOST_SPACES))
            elif node.tag in (f"{TEXT}tab", f"{TEXT}line-break"):
                out.append("\t" if node.tag == f"{TEXT}tab" else "\n")
            elif node.tag == f"{TEXT}note":
                out.append(self._mark(node))
            elif isinstance(node.tag, str) and node.tag not in _SKIPPED and not node.tag.startswith(DRAW):
                out.append(node.text or "")
                stack.extend([*tail, *reversed(node)])
                continue
            stack.extend(tail)
        return "".join(out)

    def _paragraph(self, element: etree._Element) -> None:
        text = self.text(element).strip()
        if element.tag == HEADING:
            level = number(element.get(f"{TEXT}outline-level"), 1)
            self.builder.add("heading", " ".join(text.split()), level=max(1, min(level, 10)), page=self.page)
        else:
            self.builder.add("paragraph", text, page=self.page)
        self._pending()
        self._boxes(element)

    def _mark(self, note: etree._Element) -> str:
        self._met += 1
        body = note.find(f"{TEXT}note-body")
        words = "" if body is None else " ".join(whole(p) for p in body.iter(PARAGRAPH))
        self._notes.append(f"[^{self._met}]: {words}")
        return f"[^{self._met}]"

    def _pending(self) -> None:
        for note in self._notes:
            self.builder.add("paragraph", note, page=self.page)
        self._notes.clear()

    def _boxes(self, element: etree._Element) -> None:
        """Text boxes anchored in this element, none inside another."""
        stack = list(reversed(element))
        while stack:
            node = stack.pop()
            if node.tag == f"{DRAW}text-box":
                self.write(node)
            elif isinstance(node.tag, str) and node.tag not in _SKIPPED:
                stack.extend(reversed(node))

    def _list(self, element: etree._Element) -> None:
        lines = list(self._items(element, element.get(f"{TEXT}style-name", ""), 1))
        self.builder.add("list", "\n".join(lines), page=self.page)
        self._pending()

    def _items(self, element: etree._Element, style: str, level: int) -> Iterator[str]:
        style = element.get(f"{TEXT}style-name", style)
        for count, item in enumerate(element.iterfind(f"{TEXT}list-item"), 1):
            mark = f"{count}." if level in self.numbered.get(style, ()) else "-"
            for child in item:
                if child.tag in (PARAGRAPH, HEADING):
                    if text := self.text(child).strip():
                        yield "  " * (level - 1) + f"{mark} " + text.replace("\n", " ")
                        mark = " " * len(mark)
                elif child.tag == LIST and level < _MAX_DEPTH:
                    yield from self._items(child, style, level + 1)

    def _rows(self, table: etree._Element) -> Iterator[list[str]]:
        """Merged cells say their text in each column and row; a table within a cell is read as its text."""
        above: dict[int, tuple[str, int]] = {}
        for row in rows(table):
            line: list[Cell] = []
            column = hidden = 0
            for cell in row:
                if cell.tag == f"{TABLE}covered-table-cell" and hidden:
                    hidden -= 1  # Beside the cell that covers it, not below.
                    continue
                if cell.tag == f"{TABLE}covered-table-cell":
                    text, left = above.get(column, ("", 1))
                    columns, down = 1, left - 1
                elif cell.tag == f"{TABLE}table-cell":
                    text = " ".join(self.text(p) for p in cell.iter(PARAGRAPH, HEADING))
                    columns = min(number(cell.get(f"{TABLE}number-columns-spanned"), 1), MAX_SPAN)
                    down, hidden = number(cell.get(f"{TABLE}number-rows-spanned"), 1), columns - 1
                else:
                    continue
                above.update({column + at: (text if down > 0 else "", down) for at in range(columns)})
                line.append((text if down > 0 else "", columns))
                column += columns
            yield spread(line) if line else []


def rows(table: etree._Element) -> Iterator[etree._Element]:
    """The rows of a table, also those in groups, none of a table within a cell."""
    stack = list(reversed(table))
    while stack:
        element = stack.pop()
        if element.tag == f"{TABLE}table-row":
            yield element
        elif isinstance(element.tag, str) and element.tag.startswith(f"{TABLE}table-"):
            stack.extend(reversed(element))


def whole(element: etree._Element) -> str:
    """All text in an element, whatever it is in."""
    return "".join(str(text) for text in element.itertext())


def number(text: str | None, default: int) -> int:
    """An attribute that counts something; what is no such number is taken as absent."""
    return int(text) if text and len(text) < 10 and text.isascii() and text.isdigit() else default
