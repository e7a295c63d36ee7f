"""How readers write the canonical text: blocks one after the other, a blank line between them.

Keeps the one promise of `Parsed`: every block's span is exactly its text, and the text holds nothing that
a database or JSON refuses (control characters, lone surrogates).
"""

from __future__ import annotations

import re

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
        self._length = 0

    def add(self, kind: BlockKind, text: str, *, level: int = 0, page: int | None = None) -> None:
        """Append a block; one without visible text is left out."""
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
        self._blocks.append(Block(kind=kind, span=Span(start, self._length), level=level, page=page))

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
        return Parsed(title=title_of(title), text="\n\n".join(self._parts), blocks=tuple(self._blocks))


def table_rows(rows: list[list[str]]) -> str:
    """Rows of cells as a Markdown table; its first row is the header. Empty rows are left out."""
    kept = [[_cell(c) for c in row] for row in rows if any(c.strip() for c in row)]
    if not kept:
        return ""
    width = max(len(row) for row in kept)
    lines = ["| " + " | ".join(row + [""] * (width - len(row))) + " |" for row in kept]
    return "\n".join([lines[0], "|" + " --- |" * width, *lines[1:]])


def _cell(text: str) -> str:
    return one_line(text).replace("|", "\\|")
