"""DOCX: paragraphs, headings, lists and tables in document order, as a reader of the page sees them.

python-docx opens the package and knows the styles; the walk over the body is ours, because its own leaves
out tracked insertions, content controls and text boxes. Deleted text is left out.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

import docx
from docx.document import Document
from docx.opc.exceptions import OpcError
from docx.oxml.ns import qn
from lxml import etree

from ingestion.errors import Quarantined
from ingestion.parse.builder import Builder, table_rows
from ingestion.parse.docx_styles import Styles
from ingestion.types import Parsed

MAX_UNPACKED = 256 * 2**20
MAX_RATIO = 200
_HARMLESS = 16 * 2**20
_MAX_PARTS = 10_000
_OLE = b"\xd0\xcf\x11\xe0"
_STRICT = b"http://purl.oclc.org/ooxml/"
_STRICT_NAMES = (
    (
        b"http://purl.oclc.org/ooxml/officeDocument/",
        b"http://schemas.openxmlformats.org/officeDocument/2006/",
    ),
    (
        b"http://purl.oclc.org/ooxml/wordprocessingml/",
        b"http://schemas.openxmlformats.org/wordprocessingml/2006/",
    ),
    (b"http://purl.oclc.org/ooxml/drawingml/", b"http://schemas.openxmlformats.org/drawingml/2006/"),
)

_P, _TBL, _TR, _TC = qn("w:p"), qn("w:tbl"), qn("w:tr"), qn("w:tc")
_TEXT, _TAB, _BREAK, _RETURN, _HYPHEN = qn("w:t"), qn("w:tab"), qn("w:br"), qn("w:cr"), qn("w:noBreakHyphen")
_BOX = qn("w:txbxContent")
_CELL, _SPAN = qn("w:tcPr"), qn("w:gridSpan")
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_SKIPPED = frozenset(
    (*map(qn, ("w:del", "w:moveFrom", "w:pPr", "w:rPr", "w:tblPr", "w:tcPr", "w:trPr", "w:sdtPr")), _FALLBACK)
)


def read(content: bytes, progress: Callable[[str], None]) -> Parsed:
    if content.startswith(_OLE):
        raise Quarantined("encrypted", "The DOCX needs a password. Save it without one.")
    document = _open(content)
    builder = Builder()
    _Writer(_styles(document), builder, progress).write(document.element.body)
    return builder.build(document.core_properties.title or builder.opening_heading())


def _styles(document: Document) -> Styles:
    related = (r.target_part for r in document.part.rels.values() if r.reltype.endswith("/numbering"))
    return Styles(document.styles.element, getattr(next(related, None), "element", None))


def _open(content: bytes) -> Document:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as package:
            _check_size(package, len(content))
            if _STRICT in package.read("[Content_Types].xml") + package.read("_rels/.rels"):
                content = _transitional(package)
        return docx.Document(io.BytesIO(content))
    except (zipfile.BadZipFile, zlib.error, struct.error, OpcError, etree.LxmlError, EOFError) as error:
        raise _damaged(error) from None
    except (KeyError, ValueError, AttributeError, NotImplementedError, OSError) as error:
        # What python-docx and zipfile raise for a part that is missing, misplaced or packed in unknown ways.
        raise _damaged(error) from None


def _damaged(error: BaseException) -> Quarantined:
    return Quarantined("damaged", f"The DOCX is damaged ({type(error).__name__}): it cannot be opened.")


def _check_size(package: zipfile.ZipFile, packed: int) -> None:
    """Refuse what would unpack to far more than it is, before anything is unpacked.

    zipfile never yields more of a part than it declares, so the declared sizes can be relied on.
    """
    parts = package.infolist()
    unpacked = sum(part.file_size for part in parts)
    bomb = unpacked > _HARMLESS and unpacked > MAX_RATIO * packed
    if len(parts) > _MAX_PARTS or unpacked > MAX_UNPACKED or bomb:
        raise Quarantined(
            "too_large", f"The DOCX would unpack to {unpacked:,} bytes in {len(parts):,} parts. Split it."
        )


def _transitional(package: zipfile.ZipFile) -> bytes:
    """The same package with the namespaces of strict OOXML replaced by those that python-docx knows."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as copy:
        for part in package.infolist():
            body = package.read(part)
            if part.filename.endswith((".xml", ".rels")):
                for strict, usual in _STRICT_NAMES:
                    body = body.replace(strict, usual)
            copy.writestr(part.filename, body)
    return out.getvalue()


class _Writer:
    """Writes a body's blocks; consecutive list items become one list."""

    def __init__(self, styles: Styles, builder: Builder, progress: Callable[[str], None]) -> None:
        self._styles = styles
        self._builder = builder
        self._progress = progress
        self._items: list[str] = []
        self._count = 0

    def write(self, body: etree._Element) -> None:
        for element in _children(body):
            if element.tag == _P:
                self._paragraph(element)
            else:
                self._flush()
                self._builder.add("table", table_rows(list(_rows(element))))
        self._flush()

    def _paragraph(self, paragraph: etree._Element) -> None:
        self._count += 1
        self._progress(f"paragraph {self._count}")
        text = _text(paragraph)
        if text.strip():
            self._block(paragraph, text.strip())
        for box in paragraph.iter(_BOX):
            if not any(a.tag == _FALLBACK for a in box.iterancestors()):
                for inner in _children(box):
                    self._builder.add("paragraph", _text(inner))

    def _block(self, paragraph: etree._Element, text: str) -> None:
        level = self._styles.heading_level(paragraph)
        mark = None if level else self._styles.list_mark(paragraph)
        if mark is not None:
            self._items.append(f"{mark} {text}")
            return
        self._flush()
        if level:
            self._builder.add("heading", " ".join(text.split()), level=level)
        else:
            self._builder.add("paragraph", text)

    def _flush(self) -> None:
        self._builder.add("list", "\n".join(self._items))
        self._items.clear()


def _children(parent: etree._Element) -> Iterator[etree._Element]:
    """Paragraphs and tables in document order, also those wrapped in content controls and the like."""
    stack = list(reversed(parent))
    while stack:
        element = stack.pop()
        if element.tag in (_P, _TBL):
            yield element
        elif element.tag not in _SKIPPED and isinstance(element.tag, str):
            stack.extend(reversed(element))


def _text(element: etree._Element) -> str:
    """The visible text of a paragraph, without that of the boxes anchored in it."""
    out: list[str] = []
    stack = list(reversed(element))
    while stack:
        node = stack.pop()
        if node.tag == _TEXT:
            out.append(node.text or "")
        elif node.tag in (_TAB, _HYPHEN):
            out.append("\t" if node.tag == _TAB else "-")
        elif node.tag in (_BREAK, _RETURN):
            out.append("\n")
        elif node.tag not in _SKIPPED and node.tag != _BOX and isinstance(node.tag, str):
            stack.extend(reversed(node))
    return "".join(out)


def _rows(table: etree._Element) -> Iterator[list[str]]:
    """A row's cells as text; a table within a cell is read as part of the cell, and a cell over several
    columns is followed by empty ones, so that columns stay in line."""
    for row in _within(table, _TR):
        cells: list[str] = []
        for cell in _within(row, _TC):
            cells.append(" ".join(_text(p) for p in cell.iter(_P)))
            span = cell.find(f"{_CELL}/{_SPAN}")
            width = "" if span is None else span.get(qn("w:val"), "")
            cells.extend([""] * (min(int(width), 100) - 1 if width.isdigit() else 0))
        yield cells


def _within(parent: etree._Element, tag: str) -> Iterator[etree._Element]:
    """The nearest descendants with this tag, none inside another."""
    stack = list(reversed(parent))
    while stack:
        element = stack.pop()
        if element.tag == tag:
            yield element
        elif element.tag not in (*_SKIPPED, _P, _TBL):
            stack.extend(reversed(element))
