"""Lines of a PDF back into paragraphs, lists and headings, from where they stand and how large they are.

Thresholds are in multiples of the document's own line distance and type size, so that they hold for double
spacing and for slides alike. Running headers and footers are kept on the first page that has them only, page
numbers on none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from ingestion.parse.builder import Builder
from ingestion.parse.pdf_order import Item
from ingestion.parse.pdf_tables import Table
from ingestion.parse.pdf_words import Line

Page = list[Item]

_BULLET = re.compile(r"^(?:[•●▪■◦○‣∙·*\uf0b7\u2043–-]|\(?\d{1,2}[.)]|\(?[a-z][.)])\s+(?=\S)")
_GLYPH = re.compile(r"^[•●▪■◦○‣∙·*\uf0b7\u2043–-]\s+")
_ENDS = (".", "!", "?", ":", ";", "。", "”", '"', ")")
_FEW_PAGES = 3
_NOT_HEADING = (".", ",", ";", ":", "?", "!")
_DIGITS = re.compile(r"\d+")
_PAGE_NUMBER = re.compile(r"(?:\w{1,6}\.? )?[-–(|]?\s*#\s*[-–)|]?(?:\s*(?:/|\||\w{1,5})\s*#)?")


@dataclass(frozen=True, slots=True)
class _TableAt:
    page: int
    table: Table


@dataclass(slots=True)
class _Flow:
    """Text that begins on a page, and the places in it where the pages after that begin."""

    page: int
    parts: list[str] = field(default_factory=list)
    length: int = 0
    turns: list[int] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.parts)

    def add(self, between: str, text: str, page: int) -> None:
        self.parts += [between, text]
        self.length += len(between)
        self.turns += [self.length] * (page - self.page - len(self.turns))
        self.length += len(text)


@dataclass(slots=True)
class _Paragraph:
    """`pages` are those that its lines stand on."""

    lines: list[Line] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)

    @property
    def page(self) -> int:
        return self.pages[0]

    @property
    def first(self) -> Line:
        return self.lines[0]

    @property
    def bold(self) -> bool:
        return all(line.bold for line in self.lines)

    @property
    def is_item(self) -> bool:
        return bool(_BULLET.match(self.first.text))

    def write(self, flow: _Flow, between: str, margins: Mapping[int, float]) -> None:
        """Wrapped lines joined; lines that ended early, as in tables and addresses, kept apart.

        A line was wrapped where the next one's first word had no room before the margin.
        """
        margin = max(margins.get(_column(line), line.right) for line in self.lines)
        flow.add(between, _GLYPH.sub("- ", self.first.text), self.page)
        for (before, line), page in zip(pairwise(self.lines), self.pages[1:], strict=True):
            first_word = line.text.split(maxsplit=1)[0]
            full = before.right + before.letter * (len(first_word) + 1) > margin - 0.5 * before.size
            wrapped = (full and not before.is_row) or line.text[:1].islower() or self.is_item
            flow.add("" if before.broken else " " if wrapped else "\n", line.text, page)


def _column(line: Line) -> int:
    """Lines of one column begin at about the same place."""
    return round(line.left / 8)


@dataclass(frozen=True, slots=True)
class _Style:
    """What is normal in this document: size and weight of most characters, distance of most lines, and the
    right edge of the columns."""

    size: float
    bold: bool
    leading: float
    heading_sizes: tuple[float, ...]
    margins: Mapping[int, float]

    def level(self, paragraph: _Paragraph) -> int:
        """The depth of a heading, 0 when it is none: larger than the text, or bold and on its own."""
        if len(paragraph.lines) > 3:
            return 0
        text = " ".join(line.text for line in paragraph.lines)
        if len(text) > 150 or text.endswith((",", ";", ".")) or sum(c.isalpha() for c in text) < 2:
            return 0
        if paragraph.first.size in self.heading_sizes:
            return self.heading_sizes.index(paragraph.first.size) + 1
        alone = paragraph.bold and not self.bold and len(paragraph.lines) <= 2 and len(text) <= 100
        same_size = abs(paragraph.first.size - self.size) < 0.2 * self.size
        if alone and same_size and not _GLYPH.match(text) and not text.endswith(_NOT_HEADING):
            return len(self.heading_sizes) + 1
        return 0


def write(pages: Sequence[Page], builder: Builder) -> None:
    """Add the document's blocks in reading order."""
    style = _style([[i for i in page if isinstance(i, Line)] for page in pages])
    items: _Flow | None = None
    for paragraph in _paragraphs(_without_running_lines(pages), style):
        if isinstance(paragraph, _TableAt):
            _flush(items, builder)
            items = None
            builder.table(paragraph.table.rows, page=paragraph.page)
            continue
        level = style.level(paragraph)
        if paragraph.is_item and not level:
            between = "\n" if items else ""
            items = items or _Flow(paragraph.page)
            paragraph.write(items, between, style.margins)
            continue
        _flush(items, builder)
        items = None
        flow = _Flow(paragraph.page)
        paragraph.write(flow, "", style.margins)
        if level:
            builder.add("heading", " ".join(flow.text.split()), level=min(level, 6), page=flow.page)
        else:
            builder.add("paragraph", flow.text, page=flow.page, turns=flow.turns)
    _flush(items, builder)


def _flush(items: _Flow | None, builder: Builder) -> None:
    if items is not None:
        builder.add("list", items.text, page=items.page, turns=items.turns)


def _style(pages: Sequence[Sequence[Line]]) -> _Style:
    characters: Counter[float] = Counter()
    weights: Counter[bool] = Counter()
    for line in (line for page in pages for line in page):
        characters[line.size] += len(line.text)
        weights[line.bold] += len(line.text)
    if not characters:
        return _Style(1.0, False, 1.2, (), {})
    size = characters.most_common(1)[0][0] or 1.0
    larger = sorted((s for s in characters if s >= 1.15 * size), reverse=True)
    margins: dict[int, float] = {}
    for line in (line for page in pages for line in page):
        margins[_column(line)] = max(margins.get(_column(line), 0.0), line.right)
    bold = weights[True] > weights[False]
    return _Style(size, bold, _leading(pages, size), tuple(larger[:5]), margins)


def _leading(pages: Sequence[Sequence[Line]], size: float) -> float:
    """The usual distance between two lines of body text: after full lines, as the next one then belongs to
    the same paragraph. A handful says nothing; single spacing is assumed then."""
    full = 0.7 * max((line.right for page in pages for line in page), default=0.0)
    gaps = [
        before.bottom - line.bottom
        for page in pages
        for before, line in pairwise(page)
        if line.size == before.size == size
        and before.right >= full
        and 0.5 * size < before.bottom - line.bottom < 4 * size
    ]
    return median(gaps) if len(gaps) >= 8 else 1.2 * size


def _paragraphs(pages: Sequence[Page], style: _Style) -> Iterator[_Paragraph | _TableAt]:
    current: _Paragraph | None = None
    for number, page in enumerate(pages, start=1):
        for at, item in enumerate(page):
            if isinstance(item, Table):
                if current is not None:
                    yield current
                    current = None
                yield _TableAt(number, item)
                continue
            if current is None or _begins(current, item, style, new_page=at == 0):
                if current is not None:
                    yield current
                current = _Paragraph()
            current.lines.append(item)
            current.pages.append(number)
    if current is not None:
        yield current


def _begins(paragraph: _Paragraph, line: Line, style: _Style, new_page: bool) -> bool:
    """Whether the line begins a paragraph of its own."""
    before = paragraph.lines[-1]
    if _BULLET.match(line.text) or abs(line.size - before.size) > 0.08 * max(line.size, before.size):
        return True
    ended = before.text.endswith(_ENDS)
    if line.bold != before.bold and ((paragraph.bold and len(paragraph.lines) <= 3) or (line.bold and ended)):
        return True
    gap = before.bottom - line.bottom
    if new_page or gap < -0.5 * line.size:  # In the next column or page a sentence may go on.
        return ended or not line.text[:1].islower()
    if gap > 1.35 * style.leading * max(1.0, line.size / style.size):
        return True
    indent = line.left - before.left
    return ended and len(paragraph.lines) > 1 and 0.8 * line.size < indent < 5 * line.size


def _without_running_lines(pages: Sequence[Page]) -> list[Page]:
    """Drop lines that stand at the edge of a third of the pages (left and right ones may differ), apart from
    the first time; page numbers always."""
    if len(pages) < _FEW_PAGES:
        return list(pages)
    edges = Counter(key for page in pages for key in {_key(item) for item in (*page[:2], *page[-2:])})
    running = {key for key, count in edges.items() if key and count >= max(3, len(pages) / 3)}
    seen = {key for key in running if _PAGE_NUMBER.fullmatch(key)}
    kept = []
    for page in pages:
        inner = range(2, len(page) - 2)
        kept.append([x for at, x in enumerate(page) if at in inner or not _again(x, running, seen)])
    return kept


def _again(item: Item, running: set[str], seen: set[str]) -> bool:
    key = _key(item)
    if key not in running:
        return False
    repeated = key in seen
    seen.add(key)
    return repeated


def _key(item: Item) -> str:
    """What is the same in a line on every page; nothing for a table."""
    return _DIGITS.sub("#", item.text) if isinstance(item, Line) else ""
