"""ODT, ODS and ODP: text in its flow, each sheet as tables, each slide under its title.

A block's page is the number of its sheet or slide. Tracked deletions, comments and tables of contents are
left out. A cell is read as it is shown.
"""

from __future__ import annotations

from collections.abc import Iterator

from lxml import etree

from ingestion.errors import Quarantined
from ingestion.parse.builder import Builder
from ingestion.parse.opendocument_text import (
    DRAW,
    OFFICE,
    PRESENTATION,
    TABLE,
    TEXT,
    Flow,
    number,
    numbered_lists,
    whole,
)
from ingestion.parse.package import Package, encrypted
from ingestion.parse.sheet import Row, Sheet
from ingestion.parse.within import Within
from ingestion.types import Parsed

_CONTENT = "content.xml"
_VALUES = (f"{OFFICE}string-value", f"{OFFICE}date-value", f"{OFFICE}value", f"{OFFICE}boolean-value")
_LAST_COLUMN = 16_383
_TOLD_ROWS = 1_000
_FRAME = frozenset({"page-number", "footer", "header", "date-time"})
_DESCRIPTION = "{urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0}desc"


def read_text(content: bytes, within: Within) -> Parsed:
    package = _open(content, "ODT")
    builder = Builder()
    root = package.xml(_CONTENT)
    Flow(builder, numbered_lists(root)).write(_body(root, "text", "ODT"))
    return builder.build(_title(package) or builder.opening_heading())


def read_sheets(content: bytes, within: Within) -> Parsed:
    package = _open(content, "ODS")
    builder = Builder()
    for sheet in _sheets(package, within):
        sheet.write(builder)
    return builder.build(_title(package))


def read_slides(content: bytes, within: Within) -> Parsed:
    package = _open(content, "ODP")
    builder = Builder()
    root = package.xml(_CONTENT)
    flow = Flow(builder, numbered_lists(root))
    for page, slide in enumerate(_body(root, "presentation", "ODP").iterfind(f"{DRAW}page"), 1):
        within.progress(f"slide {page}")
        flow.page = page
        _slide(slide, flow)
    return builder.build(_title(package) or builder.opening_heading())


def _open(content: bytes, label: str) -> Package:
    package = Package(content, label)
    manifest = package.optional("META-INF/manifest.xml")
    if manifest is not None and next(manifest.iter("{*}encryption-data"), None) is not None:
        raise encrypted(label)
    if _CONTENT not in package:
        raise Quarantined("damaged", f"The {label} is damaged: it has no content.")
    return package


def _body(root: etree._Element, kind: str, label: str) -> etree._Element:
    body = root.find(f"{OFFICE}body/{OFFICE}{kind}")
    if body is None:
        raise Quarantined("damaged", f"The {label} is damaged: it has no body.")
    return body


def _title(package: Package) -> str | None:
    meta = package.optional("meta.xml")
    return None if meta is None else meta.findtext(".//{http://purl.org/dc/elements/1.1/}title")


def _slide(slide: etree._Element, flow: Flow) -> None:
    shapes = list(_shapes(slide))
    title = next((s for s in shapes if s.get(f"{PRESENTATION}class") == "title"), None)
    words = "" if title is None else " ".join(flow.text(p) for p in title.iter(f"{TEXT}p"))
    flow.builder.add("heading", " ".join(words.split()) or f"Slide {flow.page}", level=1, page=flow.page)
    for shape in shapes:
        if shape is title or shape.get(f"{PRESENTATION}class") in _FRAME:
            continue
        flow.write(shape)
        described = shape.findtext(_DESCRIPTION) or ""
        if " " in described.strip():
            flow.builder.add("paragraph", described, page=flow.page)
    for box in slide.iterfind(f"{PRESENTATION}notes//{DRAW}text-box"):
        words = "\n".join(flow.text(p) for p in box.iter(f"{TEXT}p")).strip()
        flow.builder.add("paragraph", f"Notes: {words}" if words else "", page=flow.page)


def _shapes(slide: etree._Element) -> Iterator[etree._Element]:
    """A slide's shapes in their order, also those in groups."""
    stack = list(reversed(slide))
    while stack:
        element = stack.pop()
        if element.tag == f"{DRAW}g":
            stack.extend(reversed(element))
        elif isinstance(element.tag, str) and element.tag.startswith(DRAW):
            yield element


def _sheets(package: Package, within: Within) -> Iterator[Sheet]:
    """Each sheet when its last row was read."""
    table: etree._Element | None = None
    reader = _Rows("", 0)
    for element in package.elements(_CONTENT, f"{TABLE}table-row"):
        owner = next(element.iterancestors(f"{TABLE}table"), None)
        if owner is not table:
            if table is not None:
                yield reader.done()
            table = owner
            page = reader.page + 1
            name = "" if owner is None else owner.get(f"{TABLE}name", "")
            reader = _Rows(name or f"Sheet {page}", page)
            within.progress(f"sheet {page}")
        reader.read(element)
        if reader.next_row % _TOLD_ROWS == 0:
            within.progress(f"sheet {reader.page}, row {reader.next_row}")
    if table is not None:
        yield reader.done()


class _Rows:
    """Reads the rows of one sheet. A row that says it stands for a million is one unless it holds text."""

    def __init__(self, name: str, page: int) -> None:
        self.page = page
        self.next_row = 1
        self._sheet = Sheet(name, page)
        self._merged: list[tuple[int, int, int, int]] = []

    def read(self, element: etree._Element) -> None:
        columns, texts = self._cells(element)
        repeated = max(1, number(element.get(f"{TABLE}number-rows-repeated"), 1))
        for at in range(repeated if columns else 0):
            self._sheet.add(Row(self.next_row + at, columns, texts))
        self.next_row += repeated

    def _cells(self, element: etree._Element) -> tuple[list[int], list[str]]:
        columns: list[int] = []
        texts: list[str] = []
        column = 0
        for cell in element.iterchildren(f"{TABLE}table-cell", f"{TABLE}covered-table-cell"):
            repeated = max(1, number(cell.get(f"{TABLE}number-columns-repeated"), 1))
            text = _shown(cell)
            if text:
                places = range(column, min(column + repeated, _LAST_COLUMN + 1))
                columns.extend(places)
                texts.extend([text] * len(places))
                self._merge(cell, column)
            column += repeated
        return columns, texts

    def _merge(self, cell: etree._Element, column: int) -> None:
        across = number(cell.get(f"{TABLE}number-columns-spanned"), 1)
        down = number(cell.get(f"{TABLE}number-rows-spanned"), 1)
        if across > 1 or down > 1:
            last = min(column + across - 1, _LAST_COLUMN)
            self._merged.append((self.next_row, column, self.next_row + down - 1, last))

    def done(self) -> Sheet:
        self._sheet.merge(self._merged)
        return self._sheet


def _shown(cell: etree._Element) -> str:
    """What the cell shows; its value when the file keeps no text for it."""
    texts = [whole(p) for p in cell.iterchildren(f"{TEXT}p")]
    if not texts:
        return next((value for name in _VALUES if (value := cell.get(name))), "")
    return "\n".join(texts).strip()
