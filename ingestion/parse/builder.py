"""How readers write the canonical text: blocks one after the other, a blank line between them.

Keeps the one promise of `Parsed`: every block's span is exactly its text, and the text holds nothing that
a database or JSON refuses (control characters, lone surrogates).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ingestion.errors import Quarantined
from ingestion.types import Block, BlockKind, Parsed
from retrieval.types import Span

MAX_CHARACTERS = 2**26
_TITLE_LENGTH = 300
_NEWLINES = re.compile(r"\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_UNWANTED = re.compile(r"[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")


def clean(text: str) -> str:
    """Newlines as `\\n`, control characters gone, lone surrogates replaced."""
    if text.isascii() and text.isprintable():
        return text
    text = _UNWANTED.sub("", _NEWLINES.sub("\n", text))
    return _SURROGATES.sub("\ufffd", text)


def one_line(text: str) -> str:
    return " ".join(text.split())


def title_of(text: str | None) -> str | None:
    """A title as one line of bounded length, or None when there is nothing in it."""
    line = one_line(clean(text or ""))
    return line[:_TITLE_LENGTH].rstrip() or None


def too_large() -> Quarantined:
    return Quarantined("too_large", f"The document holds more than {MAX_CHARACTERS:,} characters. Split it.")


class Builder:
    """Collects blocks in reading order."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._blocks: list[Block] = []
        self._notes: list[str] = []
        self._length = 0

    def table(self, rows: Iterable[Sequence[str]], *, page: int | None = None) -> None:
        """Append a table as Markdown; its first row names the columns."""
        self.add("table", table_rows(rows), page=page, header_lines=2)

    def add(
        self,
        kind: BlockKind,
        text: str,
        *,
        level: int = 0,
        page: int | None = None,
        turns: Sequence[int] = (),
        header_lines: int = 0,
    ) -> None:
        """Append a block; one without visible text is left out. Of a table with more than that many lines,
        `header_lines` are its header. `turns` are the places in the text where the pages after `page` begin.
        """
        text = clean(text).strip("\n").rstrip()
        if kind != "code":
            text = text.lstrip()
        if not text.strip():
            return
        start = self._length + 2 if self._parts else 0
        self._parts.append(text)
        self._length = start + len(text)
        if self._length > MAX_CHARACTERS:
            raise too_large()
        head = _lines_length(text, header_lines)
        header = Span(start, start + head) if head else None
        span = Span(start, self._length)
        places = tuple(min(start + turn, self._length) for turn in turns)
        self._blocks.append(Block(kind=kind, span=span, level=level, page=page, header=header, turns=places))

    def note(self, text: str) -> None:
        """Say what a reader of the document should know about how it was read."""
        self._notes.append(one_line(clean(text)))

    def include(self, parsed: Parsed, level: int, name: str = "") -> None:
        """Append the blocks of a document within this one, its headings below those of `level`, and its
        notes under its name."""
        for note in parsed.notes:
            self.note(f"{name}: {note}" if name else note)
        for block in parsed.blocks:
            start, end = block.span.start, block.span.end
            head = parsed.text[start : block.header.end].count("\n") if block.header else 0
            deeper = level if block.kind == "heading" else 0
            text = parsed.text[start:end]
            turns = [turn - start for turn in block.turns]
            self.add(
                block.kind,
                text,
                level=block.level + deeper,
                page=block.page,
                turns=turns,
                header_lines=head,
            )

    def first_heading(self) -> str | None:
        """The text of the first heading of level 1."""
        for part, block in zip(self._parts, self._blocks, strict=True):
            if block.kind == "heading" and block.level == 1:
                return part
        return None

    def opening_heading(self) -> str | None:
        """The most important heading among the first few blocks."""
        opening = zip(self._parts[:4], self._blocks[:4], strict=True)
        headings = [(block.level, part) for part, block in opening if block.kind == "heading"]
        return min(headings, key=lambda h: h[0])[1] if headings else None

    def build(self, title: str | None) -> Parsed:
        text = "\n\n".join(self._parts)
        notes = tuple(self._notes)
        return Parsed(title=title_of(title), text=text, blocks=tuple(self._blocks), notes=notes)


def _lines_length(text: str, lines: int) -> int:
    """Characters in the first lines of a text, with their line ends; 0 unless something follows them."""
    parts = text.split("\n", lines)
    return len(text) - len(parts[-1]) if lines and len(parts) > lines else 0


def table_rows(rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells as a Markdown table; its first row is the header. Empty rows are left out.

    Holds lines, not cells: a table of millions of cells takes little more memory than its text."""
    lines: list[str] = []
    widths: list[int] = []
    length = 0
    for row in rows:
        cells = [_cell(c) for c in row]
        if not any(cells):
            continue
        lines.append("| " + " | ".join(cells) + " |")
        widths.append(len(cells))
        length += len(lines[-1])
        if length > MAX_CHARACTERS:
            raise too_large()
    if not lines:
        return ""
    width = max(widths)
    if sum(width - w for w in widths) * 3 + length > MAX_CHARACTERS:
        raise too_large()
    for at, missing in enumerate(widths):
        lines[at] += "  |" * (width - missing)
    lines.insert(1, "|" + " --- |" * width)
    return "\n".join(lines)


def _cell(text: str) -> str:
    return one_line(text).replace("|", "\\|")
