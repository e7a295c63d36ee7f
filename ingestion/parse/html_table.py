"""HTML tables as rows of text, and which tables only lay out a page."""

from __future__ import annotations

from collections.abc import Iterator

from selectolax.lexbor import LexborNode

from ingestion.parse.builder import one_line
from ingestion.parse.html_main import DROPPED, hidden, words

_MAX_SPAN = 100
_MAX_CELLS = 500_000
_LONG_CELL = 1_500
"""Characters: a cell that holds more is a part of a page and no entry of a table."""
_SOME_TEXT = 200
_ROW_GROUPS = frozenset({"thead", "tbody", "tfoot"})
_INLINE = words(
    "a abbr acronym b bdi bdo big cite code data dfn em font i ins kbd label mark nobr q s samp small span "
    "strike strong sub sup time tt u var wbr"
)
_PARTS = "h1, h2, h3, h4, h5, h6, table, pre, ul, ol, p + p, div"


def rows(table: LexborNode) -> list[list[str]]:
    """The text of each cell in its row and column; one that spans several is in each of them, so that every
    row says all that holds of it. One across the whole table is there once; a row of nothing but cells that
    go on below is left to those below."""
    made: list[list[str]] = []
    from_above: dict[int, tuple[int, str]] = {}
    room = _MAX_CELLS
    for row in _own_rows(table):
        line: list[str] = []
        cells = [cell for cell in row.iter() if cell.tag in ("td", "th")]
        while cells or len(line) in from_above:
            if len(line) in from_above:
                left, text = from_above.pop(len(line))
                if left > 1:
                    from_above[len(line)] = left - 1, text
                line.append(text)
                continue
            cell = cells.pop(0)
            text = cell_text(cell)
            for _ in range(_span(cell, "colspan")):
                if (down := _span(cell, "rowspan")) > 1:
                    from_above[len(line)] = down - 1, text
                line.append(text)
        room -= len(line)
        if room < 0:
            break
        if any(text and from_above.get(at) is None for at, text in enumerate(line)):
            made.append(line[:1] if len(line) == _whole_width(row) else line)
    return made


def _whole_width(row: LexborNode) -> int:
    """How many columns the only cell of a row spans; 0 where it has several."""
    cells = [cell for cell in row.iter() if cell.tag in ("td", "th")]
    return _span(cells[0], "colspan") if len(cells) == 1 else 0


def is_layout(table: LexborNode) -> bool:
    """Whether it lays out a page, so that what is in it is read as if it were not there."""
    if (table.attributes.get("role") or "") in ("presentation", "none"):
        return True
    lines = [[cell for cell in row.iter() if cell.tag in ("td", "th")] for row in _own_rows(table)]
    cells = [cell for line in lines for cell in line]
    if any(child.tag in ("caption", "thead") for child in table.iter()) or any(c.tag == "th" for c in cells):
        return False
    lengths = [len(one_line(cell.text())) for cell in cells]
    if len(lines) <= 1 or max((len(line) for line in lines), default=0) <= 1:
        return sum(lengths) > _SOME_TEXT or any(cell.css_first(_PARTS) is not None for cell in cells)
    return max(lengths) > _LONG_CELL


def cell_text(cell: LexborNode) -> str:
    """What is seen in a cell, on one line; items of lists keep their marks."""
    parts: list[str] = []
    stack: list[LexborNode | str] = list(_children(cell))
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            parts.append(node)
        elif node.tag == "-text":
            parts.append(node.text_content or "")
        elif node.tag == "img":
            parts.append(f" {node.attributes.get('alt') or ''} ")
        elif node.tag not in DROPPED and node.tag != "-comment" and not hidden(node):
            inline = node.tag in _INLINE
            parts.append("" if inline else " " + _mark(node))
            stack.append("" if inline else " ")
            stack.extend(_children(node))
    return one_line("".join(parts))


def _children(node: LexborNode) -> list[LexborNode]:
    return list(node.iter(include_text=True))[::-1]


def _mark(node: LexborNode) -> str:
    if node.tag != "li" or node.parent is None:
        return ""
    if node.parent.tag != "ol":
        return "- "
    before = 1
    sibling = node.prev
    while sibling is not None:
        before += sibling.tag == "li"
        sibling = sibling.prev
    return f"{before}. "


def _own_rows(table: LexborNode) -> Iterator[LexborNode]:
    """Rows of this table, none of one inside it."""
    for child in table.iter():
        if child.tag == "tr":
            yield child
        elif child.tag in _ROW_GROUPS:
            yield from (row for row in child.iter() if row.tag == "tr")


def _span(cell: LexborNode, name: str) -> int:
    value = (cell.attributes.get(name) or "").strip()
    return min(max(int(value), 1), _MAX_SPAN) if value.isascii() and value.isdigit() else 1
