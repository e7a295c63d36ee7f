"""The reading order of a PDF page: columns one after the other, rows from top to bottom.

The order in the file is often that of the program which drew it. Here bands of lines that share a white
stripe from top to bottom are taken together; where both sides of the stripe are running text, they are
columns, and the left one is read first. Anything else is read row by row, which keeps tables in line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from ingestion.parse.pdf_grid import ruled_tables
from ingestion.parse.pdf_page import PageText
from ingestion.parse.pdf_tables import Row, Table, goes_on, with_tables
from ingestion.parse.pdf_words import Line, has_rtl, pieces

Item = Line | Table
Stripe = tuple[float, float]

_MIN_STRIPE = 0.6
"""Of a column's edge, in type sizes."""
_MIN_LINES = 3
_MIN_WIDTH = 9.0
"""Of running text in a column, in type sizes."""
_FULL = 0.8
_FULL_SHARE = 0.35
_MAX_DEPTH = 6
_MOST_COLUMNS = 12
_SMALL = 0.85
_MARK = 12
"""Letters: a longer piece in small type is no mark at a word."""
_FAR = 1e9


def page_items(page: PageText) -> list[Item]:
    """The page's lines and tables as they are read; turned writing after the upright."""
    items: list[Item] = []
    for at, words in enumerate(page.words):
        tables, left_over = ruled_tables(words, page.rules if at == 0 else ())
        found = ordered([*pieces(left_over), *tables])
        items.extend(found if at == 0 else map(_beside, found))
    return items


def _beside(item: Item) -> Item:
    """Turned writing is no heading, however large."""
    return replace(item, size=0.0, bold=False) if isinstance(item, Line) else item


def ordered(items: Sequence[Item], depth: int = 0) -> Iterator[Item]:
    """Columns parted as long as there are any, the rest row by row."""
    least = max(2.0, _MIN_STRIPE * median(i.size for i in items)) if items else 0.0
    rows: list[Item] = []
    for group in _groups(_bands(items), least):
        split = _columns(group, least) if depth < _MAX_DEPTH else None
        if split is None:
            rows.extend(group.items)
            continue
        yield from _row_by_row(rows)
        rows = []
        for side in split:
            yield from ordered(side, depth + 1)
    yield from _row_by_row(rows)


@dataclass(slots=True)
class _Group:
    """Items one below the other, and where all of them leave the page white, to the left and right without
    end. `left` and `right` are the ends of the item that ends first, and of the one that begins last."""

    items: list[Item]
    free: list[Stripe]
    left: float
    right: float

    @staticmethod
    def of(band: list[Item]) -> _Group:
        free: list[Stripe] = []
        at = -_FAR
        for item in sorted(band, key=lambda i: i.left):
            if item.left > at:
                free.append((at, item.left))
            at = max(at, item.right)
        free.append((at, _FAR))
        return _Group(band, free, min(i.right for i in band), max(i.left for i in band))

    def stripes(self, least: float) -> list[Stripe]:
        """Those wide enough to part what is on their two sides."""
        return [
            (a, b) for a, b in self.free if b - a >= least and a >= self.left - 0.1 and b <= self.right + 0.1
        ]

    def add(self, band: _Group) -> None:
        self.items.extend(band.items)
        self.free = _common(self.free, band.free)
        self.left, self.right = min(self.left, band.left), max(self.right, band.right)

    def is_parted_from(self, band: _Group, least: float) -> bool:
        """Whether a band begins another group: it ends the stripe of this one, or has one that this one lacks
        (a title above columns leaves a little of it free by chance)."""
        free = _common(self.free, band.free)
        both = _Group([], free, min(self.left, band.left), max(self.right, band.right))
        shared, begun = both.stripes(least), band.stripes(least)
        if self.stripes(least):
            return not shared
        if not begun:
            return False
        return 2 * max((b - a for a, b in shared), default=0.0) < max(b - a for a, b in begun)


def _bands(items: Sequence[Item]) -> list[list[Item]]:
    """Items that lie beside each other, from top to bottom."""
    bands: list[list[Item]] = []
    bottom = _FAR
    for item in sorted(items, key=lambda i: -i.top):
        if bands and item.top > bottom:
            bands[-1].append(item)
            bottom = min(bottom, item.bottom)
        else:
            bands.append([item])
            bottom = item.bottom
    return bands


def _groups(bands: Sequence[list[Item]], least: float) -> Iterator[_Group]:
    """Bands together as long as they share a stripe, or as long as none of them has one."""
    group: _Group | None = None
    for items in bands:
        band = _Group.of(items)
        if group is None or group.is_parted_from(band, least):
            if group is not None:
                yield group
            group = band
        else:
            group.add(band)
    if group is not None:
        yield group


def _common(some: Sequence[Stripe], others: Sequence[Stripe]) -> list[Stripe]:
    made: list[Stripe] = []
    for start, end in some:
        for left, right in others:
            if min(end, right) > max(start, left):
                made.append((max(start, left), min(end, right)))
    return made


def _columns(group: _Group, least: float) -> tuple[list[Item], list[Item]] | None:
    """Both sides of the widest stripe that has running text on either."""
    for start, end in sorted(group.stripes(least), key=lambda s: s[0] - s[1])[:_MOST_COLUMNS]:
        left = [i for i in group.items if i.right <= start + 0.1]
        right = [i for i in group.items if i.left >= end - 0.1]
        texts = _is_text(left), _is_text(right)
        if all(texts) or (any(texts) and _one_after_the_other(left, right)):
            return left, right
    return None


def _one_after_the_other(left: Sequence[Item], right: Sequence[Item]) -> bool:
    """Whether the file has the one side and then the other; it has tables row by row."""
    if min(len(left), len(right)) < _MIN_LINES:
        return False
    placed = [
        (i.order, side) for side, items in enumerate((left, right)) for i in items if isinstance(i, Line)
    ]
    sides = [side for _, side in sorted(placed)]
    turns = sum(before != after for before, after in pairwise(sides))
    return turns <= 1 + len(sides) // 10


def _is_text(items: Sequence[Item]) -> bool:
    """Whether it is running text and no column of a table: most lines are as long as there is room for, or
    go on in the middle of a sentence."""
    if any(isinstance(i, Table) for i in items):
        return True
    lines = sorted((i for i in items if isinstance(i, Line)), key=lambda i: -i.bottom)
    if len(lines) < _MIN_LINES:
        return False
    width = max(i.right for i in lines) - min(i.left for i in lines)
    full = sum(i.right - i.left >= _FULL * width for i in lines)
    wrapped = full >= _FULL_SHARE * len(lines) or goes_on(lines)
    return width >= _MIN_WIDTH * median(i.size for i in lines) and wrapped


def _row_by_row(group: Sequence[Item]) -> Iterator[Item]:
    """The lines and the tables of a group from top to bottom."""
    rows = list(_rows([i for i in group if isinstance(i, Line)]))
    found: list[Row | Table] = [*with_tables(rows), *(i for i in group if isinstance(i, Table))]
    for part in sorted(found, key=lambda p: -(p.top if isinstance(p, Table) else p[0].top)):
        yield part if isinstance(part, Table) else _one_line(part)


def _rows(lines: Sequence[Line]) -> Iterator[Row]:
    """Lines on one baseline, from left to right; raised and lowered marks are with the line they are at."""
    usual = median(line.size for line in lines) if lines else 0.0
    small = [line for line in lines if line.size < _SMALL * usual and len(line.text) <= _MARK]
    marks = set(map(id, small))
    rows: list[Row] = []
    for line in sorted((i for i in lines if id(i) not in marks), key=lambda i: -i.bottom):
        if rows and rows[-1][0].bottom - line.bottom <= 0.4 * max(1.0, min(rows[-1][0].size, line.size)):
            rows[-1].append(line)
        else:
            rows.append([line])
    for mark in small:
        _row_of(mark, rows).append(mark)
    for row in sorted(rows, key=lambda r: -r[0].bottom):
        yield sorted(row, key=lambda i: i.left)


def _row_of(mark: Line, rows: list[Row]) -> Row:
    """The row that a mark stands in; one of its own where it touches none."""
    middle = (mark.bottom + mark.top) / 2
    for row in rows:
        for line in row:
            beside = line.left - line.size <= mark.right and mark.left <= line.right + line.size
            if beside and line.bottom - 0.3 * line.size <= middle <= line.bottom + line.size:
                return row
    rows.append([])
    return rows[-1]


def _one_line(row: Row) -> Line:
    if len(row) == 1:
        return row[0]
    backwards = 2 * sum(has_rtl(i.text) for i in row) > len(row)
    longest = max(row, key=lambda i: len(i.text))
    return Line(
        text=" ".join(i.text for i in (reversed(row) if backwards else row)),
        left=row[0].left,
        right=max(i.right for i in row),
        bottom=longest.bottom,
        size=longest.size,
        bold=all(i.bold for i in row),
        order=row[0].order,
        broken=row[-1].broken,
    )
