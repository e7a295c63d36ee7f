"""From a file's bytes to its text and structure: `sniff` says what it is, `parse` reads it.

`sniff` is cheap and safe anywhere. `parse` opens files made by anyone, so it runs in `ingestion.sandbox`
only; each reader imports its library when it is first used, so that the API process never loads them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from ingestion.errors import Quarantined
from ingestion.parse.formats import EXTENSIONS, FORMATS, Format
from ingestion.parse.sniff import sniff
from ingestion.parse.within import Reader, Within
from ingestion.types import Parsed

__all__ = ["EXTENSIONS", "FORMATS", "PARSER_VERSION", "Progress", "parse", "preload", "sniff"]

PARSER_VERSION = "2"
"""Part of every generation's name: rises with every change of what `parse` makes of the same bytes."""

Progress = Callable[[str], None]
"""Told the part that is being read (`page 12`), so that a document that kills the reader has a place."""


def parse(
    content: bytes, filename: str | None, media_type: str | None, progress: Progress = lambda part: None
) -> Parsed:
    """Read a document. Raises `UnsupportedType`, or `Quarantined` with the reason why it never can be."""
    return _parse(content, Within(_parse, progress, filename, media_type))


def _parse(content: bytes, within: Within) -> Parsed:
    parsed = _reader(FORMATS[sniff(content, within.filename, within.media_type)])(content, within)
    if not parsed.text or parsed.text.isspace():
        raise Quarantined("empty", "The document holds no text.")
    return parsed


def preload() -> None:
    """Import every reader's library now: a sandboxed process does so before its limits hold."""
    import charset_normalizer  # noqa: F401

    for one in FORMATS.values():
        _reader(one)


def _reader(kind: Format) -> Reader:
    module, _, function = kind.reader.partition(":")
    reader: Reader = getattr(import_module(f"ingestion.parse.{module}"), function or "read")
    return reader
