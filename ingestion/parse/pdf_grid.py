"""Tables of a PDF page drawn with lines: the grid of the lines, and the words in its cells.

A wrong table is worse than plain lines, so that a grid must hold text in two rows and two columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from ingestion.parse.pdf_drawing import Rule
from ingestion.parse.pdf_tables import Table, goes_on
from ingestion.parse.pdf_words import Word, in_reading_order, joined

_NEAR = 2.5
"""Points within which two lines meet, or are the same."""
_MAX_CROSSINGS = 100_000
_MAX_CELLS = 20_000
_MAX_CELL_LETTERS = 240
_REGULAR = 0.8
"""Of its cells, for a drawn row to be several printed ones."""


def ruled_tables(words: Sequence[Word], rules: Sequence[Rule]) -> tuple[list[Table], list[Word]]:
    """The tables drawn with lines, and the words that are in none of them."""
    across, upright = _merged(r for r in rules if r.horizontal), _merged(r for r in rules if not r.horizontal)
    if len(across) * len(upright) > _MAX_CROSSINGS:
        return [], list(words)
    tables: list[Table] = []
    left_over = list(words)
    for group in _connected(across, upright):
        grid = _Grid.of([r for r in group if r.horizontal], [r for r in group if not r.horizontal])
        if grid is None:
            continue
        inside = [w for w in left_over if grid.holds(w)]
        table = grid.filled(inside)
        if table is not None:
            tables.append(table)
            taken = set(map(id, inside))
            left_over = [w for w in left_over if id(w) not in taken]
    return tables, left_over


def _merged(rules: Iterator[Rule]) -> list[Rule]:
    """Rules that continue or cover each other made one."""
    made: list[Rule] = []
    for rule in sorted(rules, key=lambda r: (round(r.at / _NEAR), r.start)):
        last = made[-1] if made else None
        if last is not None and abs(rule.at - last.at) <= _NEAR and rule.start <= last.end + _NEAR:
            made[-1] = Rule(rule.horizontal, last.at, last.start, max(last.end, rule.end))
        else:
            made.append(rule)
    return made


def _connected(across: Sequence[Rule], upright: Sequence[Rule]) -> list[list[Rule]]:
    """Groups of rules that touch each other."""
    rules = [*across, *upright]
    parent = list(range(len(rules)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    for one, h in enumerate(across):
        for other, v in enumerate(upright, start=len(across)):
            meets = h.start - _NEAR <= v.at <= h.end + _NEAR and v.start - _NEAR <= h.at <= v.end + _NEAR
            if meets:
                parent[root(one)] = root(other)
    groups: dict[int, list[Rule]] = {}
    for at, rule in enumerate(rules):
        groups.setdefault(root(at), []).append(rule)
    return [group for group in groups.values() if len(group) >= 4]


@dataclass(frozen=True, slots=True)
class _Grid:
    """`xs` from left to right, `ys` from top to bottom: the edges of columns and rows."""

    xs: list[float]
    ys: list[float]
    across: list[Rule]
    upright: list[Rule]

    @staticmethod
    def of(across: list[Rule], upright: list[Rule]) -> _Grid | None:
        """The grid of rules that touch; its outer edges need not be drawn."""
        if not across or not upright:
            return None
        xs = _distinct([r.at for r in upright] + [e for r in across for e in (r.start, r.end)])
        ys = _distinct([r.at for r in across] + [e for r in upright for e in (r.start, r.end)])
        if len(xs) < 3 or len(ys) < 3 or len(xs) * len(ys) > _MAX_CELLS:
            return None
        return _Grid(xs, ys[::-1], across, upright)

    def holds(self, word: Word) -> bool:
        x, y = (word.left + word.right) / 2, word.bottom + 0.3 * word.size
        return self.xs[0] < x < self.xs[-1] and self.ys[-1] < y < self.ys[0]

    def filled(self, words: Sequence[Word]) -> Table | None:
        """The table with its words in its cells; None where they do not make one."""
        cells: dict[tuple[int, int], list[Word]] = {}
        heads = self._heads()
        for word in words:
            x, y = (word.left + word.right) / 2, word.bottom + 0.3 * word.size
            column = max(0, sum(edge <= x for edge in self.xs) - 1)
            row = max(0, sum(edge >= y for edge in self.ys) - 1)
            cells.setdefault(heads[row][column], []).append(word)
        lines = {place: _cell_lines(inside) for place, inside in cells.items()}
        if any(_is_frame(inside) for inside in lines.values()):
            return None
        rows: list[tuple[str, ...]] = []
        for row in range(len(self.ys) - 1):
            rows.extend(_printed_rows([lines.get((row, column), []) for column in range(len(self.xs) - 1)]))
        kept = _without_empty_columns([row for row in rows if any(row)])
        if not _is_table(kept):
            return None
        size = median(word.size for word in words)
        return Table(tuple(kept), self.xs[0], self.xs[-1], self.ys[-1], self.ys[0], size)

    def _heads(self) -> list[list[tuple[int, int]]]:
        """For each place the first place of the cell it belongs to, as cells go on where no line is drawn."""
        heads: list[list[tuple[int, int]]] = []
        for row in range(len(self.ys) - 1):
            line: list[tuple[int, int]] = []
            middle = (self.ys[row] + self.ys[row + 1]) / 2
            for column in range(len(self.xs) - 1):
                centre = (self.xs[column] + self.xs[column + 1]) / 2
                if column and not _drawn(self.upright, self.xs[column], middle):
                    line.append(line[-1])
                elif row and not _drawn(self.across, self.ys[row], centre):
                    line.append(heads[row - 1][column])
                else:
                    line.append((row, column))
            heads.append(line)
        return heads


def _distinct(places: Sequence[float]) -> list[float]:
    made: list[float] = []
    for place in sorted(places):
        if not made or place - made[-1] > _NEAR:
            made.append(place)
    return made


def _drawn(rules: Sequence[Rule], at: float, along: float) -> bool:
    return any(abs(r.at - at) <= _NEAR and r.start - _NEAR <= along <= r.end + _NEAR for r in rules)


def _is_table(rows: Sequence[tuple[str, ...]]) -> bool:
    """Whether enough cells hold text, and few hold much of it, unlike boxes of paragraphs or a drawing."""
    if len(rows) < 2 or len(rows[0]) < 2:
        return False
    filled = [cell for row in rows for cell in row if cell]
    long = sum(len(cell) > _MAX_CELL_LETTERS for cell in filled)
    wide = sum(sum(map(bool, row)) >= 2 for row in rows)
    cells = len(rows) * len(rows[0])
    return len(filled) >= 4 and wide >= 2 and 5 * long <= len(filled) and 2 * len(filled) >= cells


def _cell_lines(words: Sequence[Word]) -> list[list[Word]]:
    """The printed lines of a cell, as they came."""
    lines: list[list[Word]] = []
    for word in words:
        if lines and abs(lines[-1][-1].bottom - word.bottom) < 0.5 * max(word.size, 1.0):
            lines[-1].append(word)
        else:
            lines.append([word])
    return lines


def _is_frame(lines: Sequence[Sequence[Word]]) -> bool:
    """Whether a cell has columns of its own: then the lines drawn are boxes on a form."""
    gaps = sum(
        any(after.left - word.right > 1.5 * max(word.size, 1.0) for word, after in pairwise(line))
        for line in lines
    )
    return gaps >= 3


def _printed_rows(cells: Sequence[list[list[Word]]]) -> list[tuple[str, ...]]:
    """A drawn row as one row, or as several where most of its cells have a line at each height."""
    filled = [lines for lines in cells if lines]
    heights = _distinct([line[0].bottom for lines in filled for line in lines])[::-1]
    printed = sum(len(lines) for lines in filled)
    texts = sum(goes_on([joined(line) for line in lines]) for lines in filled)
    regular = printed >= _REGULAR * len(heights) * len(filled)
    if len(heights) < 2 or len(filled) < 2 or 2 * texts > len(filled) or not regular:
        return [tuple(map(_cell_text, cells))]
    return [
        tuple(
            _cell_text([line for line in lines if abs(line[0].bottom - height) <= _NEAR]) for lines in cells
        )
        for height in heights
    ]


def _cell_text(lines: Sequence[Sequence[Word]]) -> str:
    parts: list[str] = []
    for line in lines:
        text = " ".join(word.text for word in in_reading_order(line))
        parts.append(text if line[-1].broken else text + " ")
    return "".join(parts).strip()


def _without_empty_columns(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    kept = [at for at in range(len(rows[0])) if any(row[at] for row in rows)] if rows else []
    return [tuple(row[at] for at in kept) for row in rows]
