"""Tables as office files keep them: merged cells, and rows that are no rows."""

from __future__ import annotations

from collections.abc import Sequence

from ingestion.parse.builder import Builder

MAX_SPAN = 1_000
"""Columns that one cell is taken to cover at most, whatever the file says."""

Cell = tuple[str, int]
"""A cell's text and the number of columns that it covers."""


def spread(cells: Sequence[Cell]) -> list[str]:
    """A row with the text of a merged cell in each of its columns, so that every column can be read by
    itself; but what is merged over the whole row is said once."""
    if len(cells) == 1:
        return [cells[0][0]]
    return [text for text, columns in cells for _ in range(max(1, min(columns, MAX_SPAN)))]


def write_table(builder: Builder, rows: Sequence[Sequence[str]], *, page: int | None = None) -> None:
    """Append a table. Rows with one text only, above the row that names the columns, become paragraphs."""
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    titles = 0
    while titles + 1 < len(rows) and _lone(rows[titles]):
        titles += 1
    if all(_lone(row) for row in rows):
        titles = 0
    for row in rows[:titles]:
        builder.add("paragraph", row[0], page=page)
    builder.table(rows[titles:], page=page)


def _lone(row: Sequence[str]) -> bool:
    """Whether a row has nothing but its first cell."""
    return bool(row[0].strip()) and not any(cell.strip() for cell in row[1:])
