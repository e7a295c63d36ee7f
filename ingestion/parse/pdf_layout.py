"""Lines of a PDF back into paragraphs, lists and headings, from where they stand and how large they are.

Thresholds are in multiples of the document's own line distance and type size, so that they hold for double
spacing and for slides alike. Running headers and footers are kept on the first page that has them only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from ingestion.parse.builder import Builder
from ingestion.types import BlockKind

Page = list["Line"]

_BULLET = re.compile(r"^(?:[•●▪■◦○‣∙·*\uf0b7\u2043–-]|\(?\d{1,2}[.)]|\(?[a-z][.)])\s+(?=\S)")
_GLYPH = re.compile(r"^[•●▪■◦○‣∙·*\uf0b7\u2043–-]\s+")
_ENDS = (".", "!", "?", ":", ";", "。", "”", '"', ")")
_NOT_HEADING = (".", ",", ";", ":", "?", "!")
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line as PDFium gives it; places in points from the page's lower left, zeros when unknown.

    A word broken by a hyphen makes one of two printed lines: `bottom` is the baseline at its start, `end`
    the one at its end. `broken` says that its last word goes on in the next.
    """

    text: str
    left: float
    right: float
    bottom: float
    end: float
    size: float
    bold: bool
    broken: bool = False

    @property
    def letter(self) -> float:
        """The width of a letter on average."""
        return (self.right - self.left) / max(1, len(self.text))

    @property
    def is_row(self) -> bool:
        """Whether there are gaps in it, as between the cells of a table."""
        return self.letter > 0.65 * self.size and all(c < "\u2e80" for c in self.text)


@dataclass(slots=True)
class _Paragraph:
    page: int
    lines: list[Line] = field(default_factory=list)

    @property
    def first(self) -> Line:
        return self.lines[0]

    @property
    def bold(self) -> bool:
        return all(line.bold for line in self.lines)

    @property
    def is_item(self) -> bool:
        return bool(_BULLET.match(self.first.text))

    def text(self, margins: Mapping[int, float]) -> str:
        """Wrapped lines joined; lines that ended early, as in tables and addresses, kept apart.

        A line was wrapped where the next one's first word had no room before the margin.
        """
        margin = max(margins.get(_column(line), line.right) for line in self.lines)
        parts = [_GLYPH.sub("- ", self.first.text)]
        for before, line in pairwise(self.lines):
            first_word = line.text.split(maxsplit=1)[0]
            full = before.right + before.letter * (len(first_word) + 1) > margin - 0.5 * before.size
            wrapped = (full and not before.is_row) or line.text[:1].islower() or self.is_item
            parts.append("" if before.broken else " " if wrapped else "\n")
            parts.append(line.text)
        return "".join(parts)


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
        text = " ".join(line.text for line in paragraph.lines)
        letters = sum(c.isalpha() for c in text)
        if len(paragraph.lines) > 3 or len(text) > 150 or letters < 2 or text.endswith((",", ";", ".")):
            return 0
        if paragraph.first.size in self.heading_sizes:
            return self.heading_sizes.index(paragraph.first.size) + 1
        alone = paragraph.bold and not self.bold and len(paragraph.lines) <= 2 and len(text) <= 100
        same_size = abs(paragraph.first.size - self.size) < 0.2 * self.size
        if alone and same_size and not _GLYPH.match(text) and not text.endswith(_NOT_HEADING):
            return len(self.heading_sizes) + 1
        return 0


def write(pages: Sequence[Page], builder: Builder) -> None:
    """Add the document's blocks, in PDFium's reading order."""
    style = _style(pages)
    items: list[str] = []
    items_page = 0
    for paragraph in _paragraphs(_without_running_lines(pages), style):
        level = style.level(paragraph)
        if paragraph.is_item and not level:
            items_page = items_page if items else paragraph.page
            items.append(paragraph.text(style.margins))
            continue
        _flush(items, items_page, builder)
        kind: BlockKind = "heading" if level else "paragraph"
        text = " ".join(paragraph.text(style.margins).split()) if level else paragraph.text(style.margins)
        builder.add(kind, text, level=min(level, 6), page=paragraph.page)
    _flush(items, items_page, builder)


def _flush(items: list[str], page: int, builder: Builder) -> None:
    builder.add("list", "\n".join(items), page=page)
    items.clear()


def _style(pages: Sequence[Page]) -> _Style:
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


def _leading(pages: Sequence[Page], size: float) -> float:
    """The usual distance between two lines of body text: after full lines, as the next one then belongs to
    the same paragraph. A handful says nothing; single spacing is assumed then."""
    full = 0.7 * max((line.right for page in pages for line in page), default=0.0)
    gaps = [
        before.end - line.bottom
        for page in pages
        for before, line in pairwise(page)
        if line.size == before.size == size
        and before.right >= full
        and 0.5 * size < before.end - line.bottom < 4 * size
    ]
    return median(gaps) if len(gaps) >= 8 else 1.2 * size


def _paragraphs(pages: Sequence[Page], style: _Style) -> Iterator[_Paragraph]:
    current: _Paragraph | None = None
    for number, page in enumerate(pages, start=1):
        for at, line in enumerate(page):
            if current is None or _begins(current, line, style, new_page=at == 0):
                if current is not None:
                    yield current
                current = _Paragraph(number)
            current.lines.append(line)
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
    gap = before.end - line.bottom
    if new_page or gap < -0.5 * line.size:  # In the next column or page a sentence may go on.
        return ended or not line.text[:1].islower()
    if gap > 1.35 * style.leading * max(1.0, line.size / style.size):
        return True
    indent = line.left - before.left
    return ended and len(paragraph.lines) > 1 and 0.8 * line.size < indent < 5 * line.size


def _without_running_lines(pages: Sequence[Page]) -> list[Page]:
    """Drop lines that stand at the edge of most pages, apart from the first time."""
    if len(pages) < 4:
        return list(pages)
    edges = Counter(key for page in pages for key in {_key(line) for line in (*page[:2], *page[-2:])})
    running = {key for key, count in edges.items() if count * 2 >= len(pages)}
    seen: set[str] = set()
    kept = []
    for page in pages:
        inner = range(2, len(page) - 2)
        kept.append([x for at, x in enumerate(page) if at in inner or not _again(x, running, seen)])
    return kept


def _again(line: Line, running: set[str], seen: set[str]) -> bool:
    key = _key(line)
    if key not in running:
        return False
    repeated = key in seen
    seen.add(key)
    return repeated


def _key(line: Line) -> str:
    return _DIGITS.sub("#", line.text)
