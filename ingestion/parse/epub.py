"""EPUB: the chapters in reading order, each read as the HTML that it is. The navigation page is left out."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote

from lxml import etree

from ingestion.errors import Quarantined
from ingestion.parse import html
from ingestion.parse.builder import Builder
from ingestion.parse.package import Package
from ingestion.parse.within import Within
from ingestion.types import Parsed

_PAGES = frozenset({"application/xhtml+xml", "text/html"})
_TITLE = ".//{http://purl.org/dc/elements/1.1/}title"


def read(content: bytes, within: Within) -> Parsed:
    package = Package(content, "EPUB")
    opf = _book(package)
    book = package.xml(opf)
    pages = _pages(book, posixpath.dirname(opf))
    locked = _locked(package)
    builder = Builder()
    for number, page in enumerate(pages, 1):
        within.progress(f"part {number}: {posixpath.basename(page)}")
        if page in locked:
            raise Quarantined(
                "encrypted", "The EPUB is protected (DRM). Use a copy without protection.", page
            )
        if page in package:
            builder.include(html.page(package.read(page), None), 0)
    return builder.build(book.findtext(_TITLE) or builder.opening_heading())


def _book(package: Package) -> str:
    """The name of the part that lists the others."""
    container = package.xml("META-INF/container.xml")
    named = (root.get("full-path", "") for root in container.iter("{*}rootfile"))
    found = next((name for name in named if name in package), None)
    if found is None:
        raise Quarantined("damaged", "The EPUB is damaged: it has no list of its parts.")
    return found


def _pages(book: etree._Element, folder: str) -> list[str]:
    """The names of the parts in reading order, those aside the main line as well."""
    items = {item.get("id", ""): item for item in book.iterfind("{*}manifest/{*}item")}
    pages = []
    for reference in book.iterfind("{*}spine/{*}itemref"):
        item = items.get(reference.get("idref", ""))
        if (
            item is None
            or item.get("media-type", "") not in _PAGES
            or "nav" in item.get("properties", "").split()
        ):
            continue
        pages.append(posixpath.normpath(posixpath.join(folder, unquote(item.get("href", "")))))
    return list(dict.fromkeys(pages))


def _locked(package: Package) -> frozenset[str]:
    """Parts that only a certain program can open. Fonts often are, chapters only in protected books."""
    root = package.optional("META-INF/encryption.xml")
    if root is None:
        return frozenset()
    return frozenset(unquote(reference.get("URI", "")) for reference in root.iter("{*}CipherReference"))
