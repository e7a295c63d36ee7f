"""DOCX: paragraphs, headings, lists, tables and notes in document order, as a reader of the page sees them.

Running headers and footers, deleted and hidden text are left out; footnotes follow the paragraph that they
belong to; documents embedded in this one are sections at its end.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from lxml import etree

from ingestion.errors import Quarantined
from ingestion.parse.builder import Builder
from ingestion.parse.docx_styles import Styles
from ingestion.parse.docx_text import PARAGRAPH, Texts, W, boxes, children, only_cell
from ingestion.parse.package import Package, Relation, linked
from ingestion.parse.tables import write_table
from ingestion.parse.within import Within, write_unread
from ingestion.types import Parsed


def read(content: bytes, within: Within) -> Parsed:
    package = Package(content, "DOCX")
    name = package.main("word/document.xml")
    body = package.xml(name).find(f"{W}body")
    if body is None:
        raise Quarantined("damaged", "The DOCX is damaged: it has no body.")
    relations = package.relations(name)
    builder = Builder()
    _Writer(_styles(package, relations), Texts(_notes(package, relations)), builder, within).write(body)
    _embedded(package, relations, builder, within)
    return builder.build(package.title() or builder.opening_heading())


def _styles(package: Package, relations: Mapping[str, Relation]) -> Styles:
    styles = package.optional(linked(relations, "styles"))
    if styles is None:
        styles = etree.Element(f"{W}styles")
    return Styles(styles, package.optional(linked(relations, "numbering")))


def _notes(package: Package, relations: Mapping[str, Relation]) -> dict[tuple[str, str], etree._Element]:
    notes = {}
    for kind in ("footnote", "endnote"):
        root = package.optional(linked(relations, f"{kind}s"))
        for note in () if root is None else root.iterfind(f"{W}{kind}"):
            if note.get(f"{W}type", "normal") == "normal":
                notes[kind, note.get(f"{W}id", "")] = note
    return notes


def _embedded(package: Package, relations: Mapping[str, Relation], builder: Builder, within: Within) -> None:
    unread = []
    for name in sorted(r.target for r in relations.values() if r.kind == "package"):
        if name in package and not within.deepest:
            content = package.read(name)
            within.spend(len(content))
            base = posixpath.basename(name)
            if reason := within.add(builder, content, base):
                unread.append((base, reason))
    write_unread(builder, unread)


class _Writer:
    """Writes a body's blocks; consecutive list items become one list."""

    def __init__(self, styles: Styles, texts: Texts, builder: Builder, within: Within) -> None:
        self._styles = styles
        self._texts = texts
        self._builder = builder
        self._within = within
        self._items: list[str] = []
        self._count = 0

    def write(self, body: etree._Element) -> None:
        self._children(body)
        self._flush()

    def _children(self, parent: etree._Element) -> None:
        for element in children(parent):
            if element.tag == PARAGRAPH:
                self._paragraph(element)
            elif (frame := only_cell(element)) is not None:
                self._children(frame)
            else:
                self._flush()
                self._table(element)

    def _table(self, table: etree._Element) -> None:
        write_table(self._builder, list(self._texts.rows(table)))
        for paragraph in table.iter(PARAGRAPH):
            self._boxes(paragraph)
        self._pending()

    def _paragraph(self, paragraph: etree._Element) -> None:
        self._count += 1
        self._within.progress(f"paragraph {self._count}")
        text = self._texts.of(paragraph)
        if text.strip():
            self._block(paragraph, text.strip())
        self._boxes(paragraph)

    def _boxes(self, paragraph: etree._Element) -> None:
        for box in boxes(paragraph):
            for inner in children(box):
                self._builder.add("paragraph", self._texts.of(inner))

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
        self._pending()

    def _flush(self) -> None:
        if self._items:
            self._builder.add("list", "\n".join(self._items))
            self._items.clear()
            self._pending()

    def _pending(self) -> None:
        for note in self._texts.pending():
            self._builder.add("paragraph", note)
