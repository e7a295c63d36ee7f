"""From a file's bytes to its text and structure: `sniff` says what it is, `parse` reads it.

`sniff` is cheap and safe anywhere. `parse` opens files made by anyone, so it runs in `ingestion.sandbox`
only; each reader imports its library when it is first used, so that the API process never loads them.
"""

from __future__ import annotations

from collections.abc import Callable

from ingestion.errors import Quarantined
from ingestion.parse.formats import EXTENSIONS, FORMATS
from ingestion.parse.sniff import sniff
from ingestion.parse.within import Within
from ingestion.types import Parsed

__all__ = ["EXTENSIONS", "FORMATS", "PARSER_VERSION", "Progress", "parse", "preload", "sniff"]

PARSER_VERSION = "2"
"""Part of every generation's name: rises with every change of what `parse` makes of the same bytes."""

_TEXTS = frozenset({"text", "markdown", "rst", "html", "delimited", "json"})

Progress = Callable[[str], None]
"""Told the part that is being read (`page 12`), so that a document that kills the reader has a place."""


def parse(
    content: bytes, filename: str | None, media_type: str | None, progress: Progress = lambda part: None
) -> Parsed:
    """Read a document. Raises `UnsupportedType`, or `Quarantined` with the reason why it never can be."""
    return _parse(content, filename, media_type, Within(_parse, progress))


def _parse(content: bytes, filename: str | None, media_type: str | None, within: Within) -> Parsed:
    name = sniff(content, filename, media_type)
    if name in _TEXTS:
        parsed = _read_text(name, content, filename, media_type, within)
    else:
        parsed = _read_file(name, content, within)
    if not parsed.text or parsed.text.isspace():
        raise Quarantined("empty", "The document holds no text.")
    return parsed


def _read_text(
    name: str, content: bytes, filename: str | None, media_type: str | None, within: Within
) -> Parsed:
    """What is text in some encoding."""
    match name:
        case "text":
            from ingestion.parse.text import read as read_text

            return read_text(content, media_type)
        case "markdown":
            from ingestion.parse.markdown import read as read_markdown

            return read_markdown(content, media_type)
        case "rst":
            from ingestion.parse.rst import read as read_rst

            return read_rst(content, media_type)
        case "html":
            from ingestion.parse.html import read as read_html

            return read_html(content, media_type)
        case "delimited":
            from ingestion.parse.delimited import read as read_delimited

            return read_delimited(content, filename, media_type, within)
        case "json":
            from ingestion.parse.jsontext import read as read_json

            return read_json(content, media_type, within)
        case _:
            raise AssertionError(f"no reader for {name}")


def _read_file(name: str, content: bytes, within: Within) -> Parsed:
    """What has its own structure of bytes, or of parts."""
    match name:
        case "pdf":
            from ingestion.parse.pdf import read as read_pdf

            return read_pdf(content, within.progress)
        case "docx":
            from ingestion.parse.docx import read as read_docx

            return read_docx(content, within)
        case "doc":
            from ingestion.parse.doc import read as read_doc

            return read_doc(content, within)
        case "pptx":
            from ingestion.parse.pptx import read as read_pptx

            return read_pptx(content, within)
        case "xlsx":
            from ingestion.parse.xlsx import read as read_xlsx

            return read_xlsx(content, within)
        case "odt" | "ods" | "odp":
            from ingestion.parse import opendocument

            readers = {
                "odt": opendocument.read_text,
                "ods": opendocument.read_sheets,
                "odp": opendocument.read_slides,
            }
            return readers[name](content, within)
        case "epub":
            from ingestion.parse.epub import read as read_epub

            return read_epub(content, within)
        case "mail":
            from ingestion.parse.mail import read as read_mail

            return read_mail(content, within)
        case "zip":
            from ingestion.parse.archive import read as read_archive

            return read_archive(content, within)
        case _:
            raise AssertionError(f"no reader for {name}")


def preload() -> None:
    """Import every reader's library now: a sandboxed process does so before its limits hold."""
    import charset_normalizer  # noqa: F401

    import ingestion.parse.archive
    import ingestion.parse.delimited
    import ingestion.parse.doc
    import ingestion.parse.docx
    import ingestion.parse.epub
    import ingestion.parse.html
    import ingestion.parse.jsontext
    import ingestion.parse.mail
    import ingestion.parse.markdown
    import ingestion.parse.opendocument
    import ingestion.parse.pdf
    import ingestion.parse.pptx
    import ingestion.parse.rst
    import ingestion.parse.text
    import ingestion.parse.xlsx  # noqa: F401
