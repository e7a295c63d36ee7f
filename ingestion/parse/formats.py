"""Which file types are read, and the names they go by.

The one list behind the refusal sentences, the upload check and the command line's pick of files in a folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Format:
    """A type we read. `extensions` are lower case, with their dot; `reader` names the function of this folder
    that reads it, as `module` (its `read`) or `module:function`. Formats of `text`, in any encoding, are told
    from each other by their names only."""

    name: str
    label: str
    reader: str
    extensions: tuple[str, ...]
    media_types: tuple[str, ...]
    text: bool = False


def _openxml(application: str, kind: str) -> tuple[str, ...]:
    return (f"application/vnd.openxmlformats-officedocument.{application}.{kind}",)


def _opendocument(kind: str) -> tuple[str, ...]:
    name = f"application/vnd.oasis.opendocument.{kind}"
    return name, f"{name}-template"


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        f.name: f
        for f in (
            Format("text", "plain text", "text", (".txt", ".text", ".log"), ("text/plain",), text=True),
            Format(
                "markdown",
                "Markdown",
                "markdown",
                (".md", ".markdown"),
                ("text/markdown", "text/x-markdown"),
                text=True,
            ),
            Format(
                "rst",
                "reStructuredText",
                "rst",
                (".rst", ".rest"),
                ("text/x-rst", "text/prs.fallenstein.rst"),
                text=True,
            ),
            Format(
                "html",
                "HTML",
                "html",
                (".html", ".htm", ".xhtml"),
                ("text/html", "application/xhtml+xml"),
                text=True,
            ),
            Format("pdf", "PDF", "pdf", (".pdf",), ("application/pdf", "application/x-pdf")),
            Format(
                "docx", "DOCX", "docx", (".docx", ".docm", ".dotx"), _openxml("wordprocessingml", "document")
            ),
            Format("doc", "DOC", "doc", (".doc", ".dot"), ("application/msword",)),
            Format(
                "pptx",
                "PPTX",
                "pptx",
                (".pptx", ".pptm", ".ppsx"),
                _openxml("presentationml", "presentation"),
            ),
            Format("xlsx", "XLSX", "xlsx", (".xlsx", ".xlsm", ".xltx"), _openxml("spreadsheetml", "sheet")),
            Format("odt", "ODT", "opendocument:read_text", (".odt", ".ott"), _opendocument("text")),
            Format("ods", "ODS", "opendocument:read_sheets", (".ods", ".ots"), _opendocument("spreadsheet")),
            Format("odp", "ODP", "opendocument:read_slides", (".odp", ".otp"), _opendocument("presentation")),
            Format("epub", "EPUB", "epub", (".epub",), ("application/epub+zip",)),
            Format(
                "delimited",
                "CSV",
                "delimited",
                (".csv", ".tsv", ".tab"),
                ("text/csv", "text/tab-separated-values", "application/csv"),
                text=True,
            ),
            Format(
                "json",
                "JSON",
                "jsontext",
                (".json", ".jsonl", ".ndjson"),
                ("application/json", "application/jsonl", "application/x-ndjson", "application/ld+json"),
                text=True,
            ),
            Format("mail", "e-mail", "mail", (".eml",), ("message/rfc822",), text=True),
            Format("zip", "ZIP", "archive", (".zip",), ("application/zip", "application/x-zip-compressed")),
        )
    }
)

EXTENSIONS: frozenset[str] = frozenset(e for f in FORMATS.values() for e in f.extensions)
"""Lower-case file name endings that are read, with their dot."""

WE_READ = (
    "Plumbline reads " + ", ".join(f"{f.label} ({' '.join(f.extensions)})" for f in FORMATS.values()) + "."
)

_BY_EXTENSION = {e: f.name for f in FORMATS.values() for e in f.extensions}
_BY_MEDIA_TYPE = {m: f.name for f in FORMATS.values() for m in f.media_types}
_NO_CLAIM = frozenset(
    {"", "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded"}
)


def extension(filename: str | None) -> str:
    """The file name's ending in lower case, or the empty string. A version number is no ending."""
    if not filename:
        return ""
    suffix = PurePosixPath(filename.replace("\\", "/")).suffix.lower()
    return suffix if any(c.isalpha() for c in suffix) else ""


def claimed(filename: str | None, media_type: str | None) -> str | None:
    """The format that the name says, else the one that the media type says; None when neither says one."""
    by_name = _BY_EXTENSION.get(extension(filename))
    return by_name or _BY_MEDIA_TYPE.get(bare(media_type))


def claims_nothing(filename: str | None, media_type: str | None) -> bool:
    """Whether neither the name nor the media type says anything about the type."""
    return not extension(filename) and bare(media_type) in _NO_CLAIM


def bare(media_type: str | None) -> str:
    """The media type in lower case without its parameters."""
    return (media_type or "").split(";", 1)[0].strip().lower()


def charset(media_type: str | None) -> str | None:
    """The `charset` parameter of a media type, if it has one."""
    for part in (media_type or "").split(";")[1:]:
        name, _, value = part.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip("\"'") or None
    return None
