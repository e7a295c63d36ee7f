"""Tables of a PDF page without drawn lines, told by the columns that their words keep to.

A wrong table is worse than plain lines, so that there must be three columns, over three rows, of short cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from ingestion.parse.pdf_words import Line

_SHORT_CELL = 30
_MIN_GAP = 3.0
"""Points between two columns."""
_MIN_ROWS = 3
_MIN_COLUMNS = 3

Row = list[Line]
Column = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Table:
    """Cells row by row; a cell over several columns or rows is at its first place, the others are empty."""

    rows: tuple[tuple[str, ...], ...]
    left: float
    right: float
    bottom: float
    top: float
    size: float


def with_tables(rows: Sequence[Row]) -> Iterator[Row | Table]:
    """The same rows, with those that make a table without lines put together."""
    run: list[Row] = []
    for row in rows:
        follows = bool(run) and _follows(run[-1], row)
        if (len(row) >= 2 and not run) or (follows and (len(row) >= 2 or _in_later_column(row[0], run))):
            run.append(row)
        else:
            yield from _table_or_rows(run)
            run = [row] if len(row) >= 2 else []
            if not run:
                yield row
    yield from _table_or_rows(run)


def _follows(before: Row, row: Row) -> bool:
    gap = before[0].bottom - row[0].bottom
    return 0 < gap < 3.2 * max(1.0, before[0].size, row[0].size)


def _in_later_column(line: Line, run: Sequence[Row]) -> bool:
    """Whether a line goes on with a cell of the row above that is not its first."""
    row = next(r for r in reversed(run) if len(r) >= 2)
    return any(abs(piece.left - line.left) < 0.5 * max(1.0, line.size) for piece in row[1:])


def _table_or_rows(run: list[Row]) -> Iterator[Row | Table]:
    start, end, columns = _stretch(run)
    table = _aligned(run[start:end], columns) if end - start >= _MIN_ROWS else None
    if table is None:
        yield from run
    else:
        yield from run[:start]
        yield table
        yield from run[end:]


def _stretch(rows: Sequence[Row]) -> tuple[int, int, list[Column]]:
    """The longest stretch of rows that keep to the columns of most of them."""
    columns = _columns([row for row in rows[1:] if len(row) >= 2])
    if len(columns) < _MIN_COLUMNS:
        return 0, 0, []
    best = start = end = 0
    for at, row in enumerate([*rows, []]):
        if row and (_keeps_to(row, columns) or (at == start and len(row) == len(columns))):
            continue
        if at - start > best:
            best, end = at - start, at
        start = at + 1
    begin = end - best
    while begin < end and len(rows[begin]) == 1:
        begin += 1
    return begin, end, columns


def _keeps_to(row: Row, columns: Sequence[Column]) -> bool:
    """Whether no piece of the row lies in two columns."""
    return all(sum(p.left < end and p.right > start for start, end in columns) <= 1 for p in row)


def _aligned(rows: Sequence[Row], columns: Sequence[Column]) -> Table | None:
    """A table of rows whose pieces stand in columns of their own."""
    whole = [row for row in rows if len(row) >= 2]
    if len(columns) < _MIN_COLUMNS or len(whole) < _MIN_ROWS or not _evenly_set(whole):
        return None
    pieces = [piece for row in rows for piece in row]
    filled = [_placed(row, columns) for row in whole]
    least = min(sum(bool(row[at]) for row in filled) for at in range(len(columns)))
    short = median(len(piece.text) for piece in pieces) <= _SHORT_CELL
    longest = max(len(piece.text) for piece in pieces)
    down = [[p for p in pieces if a <= (p.left + p.right) / 2 <= b] for a, b in columns]
    if not short or longest > 4 * _SHORT_CELL or 5 * least < 2 * len(whole) or sum(map(goes_on, down)) >= 2:
        return None
    bottom, top = min(p.bottom for p in pieces), max(p.top for p in pieces)
    left, right = min(p.left for p in pieces), max(p.right for p in pieces)
    cells = tuple(map(tuple, _with_continuations(rows, columns)))
    return Table(cells, left, right, bottom, top, median(p.size for p in pieces))


def _evenly_set(rows: Sequence[Row]) -> bool:
    """In type of one size, with room between the rows, unlike a formula."""
    sizes = [piece.size for row in rows for piece in row]
    usual = median(sizes)
    same = sum(abs(size - usual) <= 0.15 * usual for size in sizes)
    gaps = [before[0].bottom - row[0].bottom for before, row in pairwise(rows)]
    return same >= 0.8 * len(sizes) and min(gaps) >= 0.9 * usual


def goes_on(lines: Sequence[Line]) -> bool:
    """Whether lines, from top to bottom, often begin in the middle of a sentence."""
    begun = sum(line.text[:1].islower() for line in lines[1:])
    return len(lines) >= 3 and 5 * begun >= 2 * (len(lines) - 1)


def _with_continuations(rows: Sequence[Row], columns: Sequence[Column]) -> list[list[str]]:
    """The cells of each row; a line of its own below a cell is added to it."""
    made: list[list[str]] = []
    for row in rows:
        cells = _placed(row, columns)
        if len(row) >= 2:
            made.append(cells)
        else:
            made[-1] = [f"{above} {below}".strip() for above, below in zip(made[-1], cells, strict=True)]
    return made


def _columns(rows: Sequence[Row]) -> list[Column]:
    """The stretches that pieces cover in more than a few of the rows."""
    edges = sorted(edge for row in rows for p in row for edge in ((p.left, 1), (p.right, -1)))
    least = len(rows) // 10
    made: list[Column] = []
    covered = 0
    for place, change in edges:
        before, covered = covered, covered + change
        if before <= least < covered:
            if made and place - made[-1][1] < _MIN_GAP:
                start, _ = made.pop()
            else:
                start = place
            made.append((start, place))
        elif covered <= least < before:
            made[-1] = (made[-1][0], place)
    return made


def _placed(row: Row, columns: Sequence[Column]) -> list[str]:
    """A row's texts, each in the column that it overlaps most or is nearest to."""
    edges = [(end + start) / 2 for (_, end), (start, _) in pairwise(columns)]
    cells = [""] * len(columns)
    for piece in row:
        middle = (piece.left + piece.right) / 2
        at = sum(edge < middle for edge in edges)
        cells[at] = f"{cells[at]} {piece.text}".strip()
    return cells
