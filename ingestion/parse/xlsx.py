"""XLSX: each sheet under its name, its cells as they are shown, as tables.

A block's page is the number of its sheet. Formulas are read as their values at the last save; merged cells
say their text in each row and column; sheets that are hidden are read too. Rows are read as a stream, so
that the size of a sheet costs no more than what it holds.
"""

from __future__ import annotations

import re

from lxml import etree

from ingestion.parse.builder import Builder
from ingestion.parse.package import Package, linked
from ingestion.parse.sheet import Row, Sheet
from ingestion.parse.within import Within
from ingestion.parse.xlsx_numbers import BUILT_IN, Formats, plain
from ingestion.types import Parsed

_REFERENCE = re.compile(r"\$?([A-Z]{1,3})\$?([0-9]{1,7})")
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_TRUE = ("1", "true")
_LAST_COLUMN = 16_383
_TOLD_ROWS = 1_000


def read(content: bytes, within: Within) -> Parsed:
    package = Package(content, "XLSX")
    name = package.main("xl/workbook.xml")
    relations = package.relations(name)
    workbook = package.xml(name)
    properties = workbook.find("{*}workbookPr")
    from_1904 = properties is not None and properties.get("date1904") in _TRUE
    book = _Book(
        package,
        _strings(package, linked(relations, "sharedStrings")),
        _formats(package, linked(relations, "styles"), from_1904),
        within,
    )
    builder = Builder()
    for number, sheet in enumerate(workbook.iterfind("{*}sheets/{*}sheet"), 1):
        relation = relations.get(sheet.get(_RELATION, ""))
        if relation is not None and relation.kind == "worksheet" and relation.target in package:
            book.sheet(relation.target, sheet.get("name", f"Sheet {number}"), number).write(builder)
    return builder.build(package.title())


def _strings(package: Package, name: str | None) -> list[str]:
    if name is None or name not in package:
        return []
    return [_rich(item) for item in package.elements(name, "{*}si")]


def _rich(element: etree._Element) -> str:
    """The text of a string with runs, without the reading aids of East Asian text."""
    parts = []
    for text in element.iter("{*}t"):
        parent = text.getparent()
        if parent is None or not parent.tag.endswith("}rPh"):
            parts.append(text.text or "")
    return "".join(parts)


def _formats(package: Package, name: str | None, from_1904: bool) -> Formats:
    root = package.optional(name)
    if root is None:
        return Formats([], from_1904=from_1904)
    own = {f.get("numFmtId", ""): f.get("formatCode", "") for f in root.iterfind("{*}numFmts/{*}numFmt")}
    codes = []
    for style in root.iterfind("{*}cellXfs/{*}xf"):
        number = style.get("numFmtId", "0")
        codes.append(own.get(number) or BUILT_IN.get(int(number) if number.isdigit() else 0, ""))
    return Formats(codes, from_1904=from_1904)


class _Book:
    def __init__(self, package: Package, strings: list[str], formats: Formats, within: Within) -> None:
        self._package = package
        self._strings = strings
        self._formats = formats
        self._within = within
        self._columns: dict[str, int] = {}

    def sheet(self, part: str, name: str, number: int) -> Sheet:
        sheet = Sheet(name, number)
        merged: list[tuple[int, int, int, int]] = []
        last = 0
        self._within.progress(f"sheet {number}")
        for element in self._package.elements(part, "{*}row", "{*}mergeCell"):
            if element.tag.endswith("}row"):
                row = self._row(element, last)
                if row.number > last:  # Rows come in order; what repeats one is no sheet's.
                    sheet.add(row)
                    last = row.number
                if last % _TOLD_ROWS == 0:
                    self._within.progress(f"sheet {number}, row {last}")
            elif area := self._area(element.get("ref", "")):
                merged.append(area)
        sheet.merge(merged)
        return sheet

    def _row(self, element: etree._Element, last: int) -> Row:
        number = element.get("r", "")
        row = Row(int(number) if number.isdigit() else last + 1, [], [])
        column = -1
        for cell in element:
            column = self._column(cell.get("r"), column)
            text = self._text(cell)
            if text and (not row.columns or column > row.columns[-1]) and column <= _LAST_COLUMN:
                row.columns.append(column)
                row.texts.append(text)
        return row

    def _column(self, reference: str | None, last: int) -> int:
        """From 0; a cell without a reference follows the last one."""
        name = (reference or "").rstrip("0123456789")
        if not name:
            return last + 1
        found = self._columns.get(name)
        if found is None:
            found = self._columns[name] = _column_number(name)
        return found

    def _text(self, cell: etree._Element) -> str:
        kind = cell.get("t", "n")
        if kind == "inlineStr":
            return _rich(cell).strip()
        value = None
        for child in cell:
            if child.tag.endswith("}v"):
                value = child.text
        if not value:
            return ""
        if kind == "n":
            style = cell.get("s", "")
            return self._formats.show(value, int(style)) if style.isdigit() else plain(value)
        if kind == "s":
            return (
                self._strings[int(value)].strip()
                if value.isdigit() and int(value) < len(self._strings)
                else ""
            )
        if kind == "b":
            return "TRUE" if value in _TRUE else "FALSE"
        return value.strip()

    def _area(self, reference: str) -> tuple[int, int, int, int] | None:
        corners = [_REFERENCE.fullmatch(corner) for corner in reference.split(":")]
        if len(corners) != 2 or corners[0] is None or corners[1] is None:
            return None
        first, last = corners[0], corners[1]
        return int(first[2]), _column_number(first[1]), int(last[2]), _column_number(last[1])


def _column_number(name: str) -> int:
    number = 0
    for letter in name.upper():
        number = number * 26 + ord(letter) - 64
    return max(0, number - 1)
