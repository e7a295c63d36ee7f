"""PPTX: slides in order, each under its title, with tables, charts, diagrams and speaker notes.

A block's page is the number of its slide. Dates, slide numbers and footers are left out, and so is what only
the layout says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lxml import etree

from ingestion.parse.builder import Builder
from ingestion.parse.package import Package, linked
from ingestion.parse.tables import Cell, spread, write_table
from ingestion.parse.within import Within
from ingestion.types import Parsed

_P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_C = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_DIAGRAM = "{http://schemas.openxmlformats.org/drawingml/2006/diagram}"
_MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_SHAPES = frozenset(_P + name for name in ("sp", "graphicFrame", "pic", "cxnSp"))
_FRAME = frozenset({"dt", "ftr", "sldNum", "hdr", "sldImg"})
_TITLES = frozenset({"title", "ctrTitle"})
_BULLETED = frozenset({"body", "obj", ""})
_CHART_TEXT = frozenset((f"{_C}v", f"{_A}t"))


def read(content: bytes, within: Within) -> Parsed:
    package = Package(content, "PPTX")
    name = package.main("ppt/presentation.xml")
    relations = package.relations(name)
    builder = Builder()
    ids = [i.get(f"{_R}id", "") for i in package.xml(name).iterfind(f"{_P}sldIdLst/{_P}sldId")]
    slides = [relations[i].target for i in ids if i in relations]
    for number, slide in enumerate(slides, 1):
        within.progress(f"slide {number}")
        _Slide(package, slide, builder, number).write()
    return builder.build(package.title() or builder.opening_heading())


@dataclass(frozen=True, slots=True)
class _Slide:
    package: Package
    name: str
    builder: Builder
    number: int

    def write(self) -> None:
        root = self.package.xml(self.name)
        relations = self.package.relations(self.name)
        shapes = list(_shapes(root))
        title = next((s for s in shapes if _placeholder(s) in _TITLES), None)
        heading = "" if title is None else " ".join(_text(title).split())
        self.builder.add("heading", heading or f"Slide {self.number}", level=1, page=self.number)
        targets = {i: r.target for i, r in relations.items()}
        for shape in shapes:
            if shape is not title and _placeholder(shape) not in _FRAME:
                self._shape(shape, targets)
        notes = self.package.optional(linked(relations, "notesSlide"))
        for shape in () if notes is None else _shapes(notes):
            if _placeholder(shape) == "body" and (text := _text(shape).strip()):
                self.builder.add("paragraph", f"Notes: {text}", page=self.number)

    def _shape(self, shape: etree._Element, targets: dict[str, str]) -> None:
        if shape.tag == f"{_P}graphicFrame":
            self._graphic(shape, targets)
        elif shape.tag == f"{_P}pic":
            name = next(shape.iter(f"{_P}cNvPr"), None)
            described = "" if name is None else name.get("descr", "")
            if " " in described.strip():  # One word is the file's name, not a description.
                self.builder.add("paragraph", described, page=self.number)
        else:
            self._paragraphs(shape)

    def _paragraphs(self, shape: etree._Element) -> None:
        """A placeholder's paragraphs are bulleted unless they say otherwise, those of a box the reverse."""
        usual = _placeholder(shape) in _BULLETED
        lines: list[str] = []
        for paragraph in shape.iterfind(f"{_P}txBody/{_A}p"):
            text = _line(paragraph).strip()
            if not text:
                continue
            if _bulleted(paragraph, usual):
                lines.append("  " * _level(paragraph) + "- " + text.replace("\n", " "))
                continue
            self._list(lines)
            self.builder.add("paragraph", text, page=self.number)
        self._list(lines)

    def _list(self, lines: list[str]) -> None:
        self.builder.add("list", "\n".join(lines), page=self.number)
        lines.clear()

    def _graphic(self, frame: etree._Element, targets: dict[str, str]) -> None:
        for table in frame.iter(f"{_A}tbl"):
            write_table(self.builder, list(_rows(table)), page=self.number)
        for chart in frame.iter(f"{_C}chart"):
            root = self.package.optional(targets.get(chart.get(f"{_R}id", "")))
            if root is not None:
                self._chart(root)
        for diagram in frame.iter(f"{_DIAGRAM}relIds"):
            root = self.package.optional(targets.get(diagram.get(f"{_R}dm", "")))
            texts = [] if root is None else [_line(p).strip() for p in root.iter(f"{_A}p")]
            self._list([f"- {text}" for text in texts if text])

    def _chart(self, root: etree._Element) -> None:
        """The title, and the numbers that the chart was last drawn with, a row for each category."""
        title = root.find(f".//{_C}chart/{_C}title")
        if title is not None:
            words = "".join(node.text or "" for node in title.iter(*_CHART_TEXT))
            self.builder.add("paragraph", words, page=self.number)
        series = [
            (_points(s, "tx"), _points(s, "cat", "xVal"), _points(s, "val", "yVal"))
            for s in root.iter(f"{_C}ser")
        ]
        names = ["", *(" ".join(name.values()) for name, _, _ in series)]
        labels = {at: text for _, categories, _ in series for at, text in categories.items()}
        places = sorted({at for _, _, values in series for at in values} | set(labels))
        rows = [[labels.get(at, ""), *(values.get(at, "") for _, _, values in series)] for at in places]
        self.builder.table([names, *rows], page=self.number)


def _points(series: etree._Element, *names: str) -> dict[int, str]:
    """The cached points of a series' name, categories or values, by their place."""
    found: dict[int, str] = {}
    for part in (p for name in names for p in series.iterfind(_C + name)):
        for at, value in enumerate(part.iter(f"{_C}v")):
            point = value.getparent()
            place = "" if point is None else point.get("idx", "")
            found[int(place) if place.isdigit() else at] = value.text or ""
    return found


def _shapes(root: etree._Element) -> Iterator[etree._Element]:
    """The shapes of a slide in the order in which they are read out, also those in groups."""
    tree = root.find(f"{_P}cSld/{_P}spTree")
    stack = [] if tree is None else list(reversed(tree))
    while stack:
        element = stack.pop()
        if element.tag in _SHAPES:
            yield element
        elif element.tag != _FALLBACK and isinstance(element.tag, str):
            stack.extend(reversed(element))


def _placeholder(shape: etree._Element) -> str | None:
    """What place of the layout the shape fills: "" is the usual one; None for a shape of its own."""
    place = shape.find(f"*/{_P}nvPr/{_P}ph")
    return None if place is None else place.get("type", "")


def _rows(table: etree._Element) -> Iterator[list[str]]:
    above: dict[int, str] = {}
    for row in table.iterfind(f"{_A}tr"):
        cells: list[Cell] = []
        for column, cell in enumerate(row.iterfind(f"{_A}tc")):
            text = _text(cell)
            if cell.get("hMerge") in ("1", "true") and cells:
                cells[-1] = (cells[-1][0], cells[-1][1] + 1)
                continue
            if cell.get("vMerge") in ("1", "true"):
                text = above.get(column, "")
            above[column] = text
            cells.append((text, 1))
        yield spread(cells)


def _text(element: etree._Element) -> str:
    return "\n".join(_line(p) for p in element.iter(f"{_A}p"))


def _line(paragraph: etree._Element) -> str:
    out: list[str] = []
    for node in paragraph.iter(f"{_A}t", f"{_MATH}t", f"{_A}br"):
        out.append("\n" if node.tag == f"{_A}br" else node.text or "")
    return "".join(out)


def _bulleted(paragraph: etree._Element, usual: bool) -> bool:
    own = paragraph.find(f"{_A}pPr")
    if own is None:
        return usual
    if own.find(f"{_A}buNone") is not None:
        return False
    marked = any(own.find(_A + name) is not None for name in ("buChar", "buAutoNum", "buBlip"))
    return usual or marked


def _level(paragraph: etree._Element) -> int:
    own = paragraph.find(f"{_A}pPr")
    level = "0" if own is None else own.get("lvl", "0")
    return min(int(level), 8) if level.isdigit() else 0
