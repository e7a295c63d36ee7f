"""A sheet's cells as tables: empty rows and columns are left out, and part tables where that is clear."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ingestion.errors import Quarantined
from ingestion.parse.builder import Builder
from ingestion.parse.tables import write_table

MAX_CELLS = 1_500_000
_MAX_MERGED = 200_000
_SPARSE_AREA = 20_000
_SPARSE_SHARE = 20
_LONG = 60


@dataclass(frozen=True, slots=True)
class Row:
    """A row's cells that hold something: ascending columns from 0, and their texts."""

    number: int
    columns: list[int]
    texts: list[str]


class Sheet:
    """Collects the rows of one sheet, in ascending order, and writes them."""

    def __init__(self, name: str, page: int) -> None:
        self._name = name
        self._page = page
        self._rows: list[Row] = []
        self._cells = 0
        self._merged: dict[tuple[int, int], tuple[int, str]] = {}

    def add(self, row: Row) -> None:
        if not row.columns:
            return
        self._cells += len(row.columns)
        if self._cells > MAX_CELLS:
            raise Quarantined(
                "too_large",
                f"The sheet {self._name[:80]!r} has more than {MAX_CELLS:,} cells. Split it.",
                f"sheet {self._page}",
            )
        self._rows.append(row)

    def merge(self, areas: Sequence[tuple[int, int, int, int]]) -> None:
        """Give the text of merged cells to all that they cover: first row, first column, last row, last
        column of each. Called when all rows are there."""
        rows = {row.number: row for row in self._rows}
        for top, left, bottom, right in areas:
            row = rows.get(top)
            if row is None or left not in row.columns:
                continue
            text = row.texts[row.columns.index(left)]
            covered = (
                [n for n in rows if top <= n <= bottom]
                if bottom - top > len(rows)
                else range(top, bottom + 1)
            )
            for number in covered:
                if len(self._merged) + right - left > _MAX_MERGED:
                    return
                self._merged.update({(number, column): (top, text) for column in range(left, right + 1)})

    def write(self, builder: Builder) -> None:
        if not self._rows:
            return
        builder.add("heading", self._name, level=1, page=self._page)
        for band in _bands(self._rows):
            for part in _parts(band):
                for table in _bands(part) if part is not band else [part]:
                    self._table(builder, table)

    def _table(self, builder: Builder, rows: list[Row]) -> None:
        columns = sorted({column for row in rows for column in row.columns})
        cells = sum(len(row.columns) for row in rows)
        area = len(rows) * len(columns)
        if area > _SPARSE_AREA and area > _SPARSE_SHARE * cells:
            lines = (
                f"{letters(c)}{r.number}: {' '.join(t.split())}"
                for r in rows
                for c, t in zip(r.columns, r.texts, strict=True)
            )
            builder.add("list", "\n".join(lines), page=self._page)
        elif len(columns) == 1 and (len(rows) == 1 or len(rows[0].texts[0]) > _LONG):
            builder.add("paragraph", "\n".join(row.texts[0] for row in rows), page=self._page)
        else:
            places = {column: at for at, column in enumerate(columns)}
            write_table(builder, [self._line(row, places) for row in rows], page=self._page)

    def _line(self, row: Row, places: Mapping[int, int]) -> list[str]:
        line = [""] * len(places)
        if self._merged:
            single = len(row.columns) == 1
            for column, at in places.items():
                top, text = self._merged.get((row.number, column), (0, ""))
                if not (single and top == row.number):
                    line[at] = text
        for column, text in zip(row.columns, row.texts, strict=True):
            line[places[column]] = text
        return line


def letters(column: int) -> str:
    """A column's name: A, B, ... Z, AA from 0, 1, ... 25, 26."""
    name = ""
    column += 1
    while column:
        column, letter = divmod(column - 1, 26)
        name = chr(65 + letter) + name
    return name


def _bands(rows: list[Row]) -> list[list[Row]]:
    """Rows parted where rows are empty, unless what follows looks like more of the same table."""
    edges = [0, *(at for at, (a, b) in enumerate(pairwise(rows), 1) if b.number > a.number + 1), len(rows)]
    bands: list[list[Row]] = []
    for start, end in pairwise(edges):
        band = rows[start:end]
        if bands and _goes_on(bands[-1], band):
            bands[-1].extend(band)
        else:
            bands.append(band)
    return bands


def _goes_on(above: list[Row], band: list[Row]) -> bool:
    """Whether rows after one empty row belong to the table above: they lie in its columns, and do not begin
    with a row of words under columns of numbers."""
    if band[0].number - above[-1].number > 2 or len(above) < 2:
        return False
    edge = (min(r.columns[0] for r in above), max(r.columns[-1] for r in above))
    if (min(r.columns[0] for r in band), max(r.columns[-1] for r in band)) != edge:
        return False
    numbers = any(_is_number(text) for row in above[1:] for text in row.texts)
    return not numbers or any(_is_number(text) for text in band[0].texts)


def _is_number(text: str) -> bool:
    return any(c.isdigit() for c in text) and sum(c.isalpha() for c in text) <= 3


def _parts(band: list[Row]) -> list[list[Row]]:
    """Tables side by side, parted by empty columns; the band itself unless each has two columns or more."""
    columns = sorted({column for row in band for column in row.columns})
    edges = [0, *(at for at, (a, b) in enumerate(pairwise(columns), 1) if b > a + 1), len(columns)]
    sides = [(columns[start], columns[end - 1]) for start, end in pairwise(edges)]
    if len(sides) == 1 or len(band) == 1 or any(last == first for first, last in sides):
        return [band]
    return [list(_between(band, first, last)) for first, last in sides]


def _between(band: list[Row], first: int, last: int) -> Iterator[Row]:
    for row in band:
        inside = [at for at, column in enumerate(row.columns) if first <= column <= last]
        if inside:
            yield Row(row.number, [row.columns[i] for i in inside], [row.texts[i] for i in inside])
