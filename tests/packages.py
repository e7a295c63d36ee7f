"""ZIP packages in memory, as office programs write them but with little in them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

from ingestion.parse import parse
from ingestion.types import Parsed

_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
NAMES = (
    'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" '
    'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main" '
    'xmlns:c="http://schemas.openxmlformats.org/drawingml/2006/chart" '
    'xmlns:dgm="http://schemas.openxmlformats.org/drawingml/2006/diagram" '
    f'xmlns:r="{_OFFICE}"'
)


def package(parts: Mapping[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, body in parts.items():
            made.writestr(name, body)
    return out.getvalue()


def relations(links: Mapping[str, tuple[str, str]]) -> str:
    """A part of relations: id to (last word of the type, target)."""
    inner = "".join(
        f'<Relationship Id="{key}" Type="{_OFFICE}/{kind}" Target="{target}"/>'
        for key, (kind, target) in links.items()
    )
    return f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{inner}</Relationships>'


def outline(parsed: Parsed) -> list[tuple[str, int, str]]:
    return [(b.kind, b.level, parsed.text[b.span.start : b.span.end]) for b in parsed.blocks]


def texts(parsed: Parsed) -> list[str]:
    return [parsed.text[b.span.start : b.span.end] for b in parsed.blocks]


def read(content: bytes, filename: str) -> Parsed:
    """The document; each of its blocks is at the place in the text that it names."""
    parsed = parse(content, filename, None)
    assert "\n\n".join(texts(parsed)) == parsed.text
    return parsed
