"""From a file's bytes to its text and structure: `sniff` says what it is, `parse` reads it.

`sniff` is cheap and safe anywhere. `parse` opens files made by anyone, so it runs in `ingestion.sandbox`
only; each reader imports its library when it is first used, so that the API process never loads them.
"""

from __future__ import annotations

from collections.abc import Callable

from ingestion.errors import Quarantined
from ingestion.parse.formats import EXTENSIONS, FORMATS
from ingestion.parse.sniff import sniff
from ingestion.types import Parsed

__all__ = ["EXTENSIONS", "FORMATS", "PARSER_VERSION", "Progress", "parse", "preload", "sniff"]

PARSER_VERSION = "1"
"""Part of every generation's name: rises with every change of what `parse` makes of the same bytes."""

Progress = Callable[[str], None]
"""Told the part that is being read (`page 12`), so that a document that kills the reader has a place."""


def parse(
    content: bytes, filename: str | None, media_type: str | None, progress: Progress = lambda part: None
) -> Parsed:
    """Read a document. Raises `UnsupportedType`, or `Quarantined` with the reason why it never can be."""
    parsed = _read(sniff(content, filename, media_type), content, media_type, progress)
    if not parsed.text or parsed.text.isspace():
        raise Quarantined("empty", "The document holds no text.")
    return parsed


def _read(name: str, content: bytes, media_type: str | None, progress: Progress) -> Parsed:
    match name:
        case "text":
            from ingestion.parse.text import read as read_text

            return read_text(content, media_type)
        case "markdown":
            from ingestion.parse.markdown import read as read_markdown

            return read_markdown(content, media_type)
        case "html":
            from ingestion.parse.html import read as read_html

            return read_html(content, media_type)
        case "pdf":
            from ingestion.parse.pdf import read as read_pdf

            return read_pdf(content, progress)
        case "docx":
            from ingestion.parse.docx import read as read_docx

            return read_docx(content, progress)
        case _:
            raise AssertionError(f"no reader for {name}")


def preload() -> None:
    """Import every reader's library now: a sandboxed process does so before its limits hold."""
    import charset_normalizer  # noqa: F401

    import ingestion.parse.docx
    import ingestion.parse.html
    import ingestion.parse.markdown
    import ingestion.parse.pdf
    import ingestion.parse.text  # noqa: F401
