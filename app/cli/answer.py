"""An answer as lines of text: what was said, its numbered sources, and what it had to do without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def answer_lines(text: str, told: Mapping[str, Any]) -> Iterator[str]:
    yield from text.strip().splitlines()
    yield from source_lines(told)


def source_lines(told: Mapping[str, Any]) -> Iterator[str]:
    """The `plumbline` object of an answer: sources by number, then degradations."""
    if told["citations"]:
        yield ""
    for citation in told["citations"]:
        yield f"[{citation['number']}] {place(citation)}"
    if told["degraded"]:
        yield ""
        yield f"(answered without: {', '.join(told['degraded'])})"


def place(found: Mapping[str, Any]) -> str:
    """Where a passage stands: title, heading, page and document."""
    title = found.get("title") or ""
    heading = (found.get("heading") or "").removeprefix(f"{title} > ")
    page = f"page {found['page']}" if found.get("page") else ""
    parts = [title, heading, page, found.get("document_id") or ""]
    return " · ".join(dict.fromkeys(part for part in parts if part))
