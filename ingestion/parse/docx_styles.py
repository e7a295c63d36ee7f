"""What a DOCX paragraph is: heading or list item, by its own properties or by its chain of styles."""

from __future__ import annotations

import re
from collections import defaultdict

from lxml import etree

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_VAL = f"{_W}val"
_HEADING = re.compile(r"^heading\s*([1-9])$", re.IGNORECASE)
_MAX_CHAIN = 20


class Styles:
    """The paragraph styles and numberings of one document, from the roots of their parts. List counters
    advance as items are read."""

    def __init__(self, styles: etree._Element, numbering: etree._Element | None) -> None:
        self._styles = {style.get(f"{_W}styleId"): style for style in styles.iterfind(f"{_W}style")}
        self._levels: dict[str | None, int] = {}
        self._formats = _number_formats(numbering)
        self._counters: defaultdict[tuple[str, int], int] = defaultdict(int)

    def heading_level(self, paragraph: etree._Element) -> int:
        """1 for a title or top heading, and so on; 0 for other text."""
        properties = paragraph.find(f"{_W}pPr")
        if properties is None:
            return 0
        outline = _value(properties, "outlineLvl")
        if outline is not None and outline.isdigit():
            return int(outline) + 1 if int(outline) < 9 else 0
        style = _value(properties, "pStyle")
        if style not in self._levels:
            self._levels[style] = self._style_level(style)
        return self._levels[style]

    def _style_level(self, style_id: str | None) -> int:
        for style in self._chain(style_id):
            name = _value(style, "name") or ""
            if name.lower() == "title":
                return 1
            if match := _HEADING.match(name):
                return int(match.group(1))
            properties = style.find(f"{_W}pPr")
            outline = None if properties is None else _value(properties, "outlineLvl")
            if outline is not None and outline.isdigit():
                return int(outline) + 1 if int(outline) < 9 else 0
        return 0

    def list_mark(self, paragraph: etree._Element) -> str | None:
        """`-` or a number with its dot, indented by level; None for text that is no list item."""
        properties = paragraph.find(f"{_W}pPr")
        if properties is None:
            return None
        number = properties.find(f"{_W}numPr")
        style = _value(properties, "pStyle")
        if number is None:
            number = next((n for s in self._chain(style) for n in s.iter(f"{_W}numPr")), None)
        if number is None:
            return "-" if (style or "").lower().startswith("list") else None
        num_id, level = _value(number, "numId") or "0", _value(number, "ilvl") or "0"
        if num_id == "0" or not level.isdigit():
            return None
        return self._mark(num_id, min(int(level), 8))

    def _mark(self, num_id: str, level: int) -> str:
        indent = "  " * level
        if self._formats.get((num_id, level), "bullet") in ("bullet", "none"):
            return indent + "-"
        self._counters[num_id, level] += 1
        for deeper in range(level + 1, 9):
            self._counters[num_id, deeper] = 0
        return f"{indent}{self._counters[num_id, level]}."

    def _chain(self, style_id: str | None) -> list[etree._Element]:
        """A style and those it is based on."""
        chain: list[etree._Element] = []
        while style_id in self._styles and len(chain) < _MAX_CHAIN:
            chain.append(self._styles[style_id])
            style_id = _value(chain[-1], "basedOn")
        return chain


def _number_formats(root: etree._Element | None) -> dict[tuple[str, int], str]:
    """(numbering id, level) to the format of its numbers."""
    if root is None:
        return {}
    levels = {
        abstract.get(f"{_W}abstractNumId"): {
            int(level.get(f"{_W}ilvl", "0")): _value(level, "numFmt") or "bullet"
            for level in abstract.iterfind(f"{_W}lvl")
        }
        for abstract in root.iterfind(f"{_W}abstractNum")
    }
    return {
        (number.get(f"{_W}numId", ""), level): kind
        for number in root.iterfind(f"{_W}num")
        for level, kind in levels.get(_value(number, "abstractNumId"), {}).items()
    }


def _value(parent: etree._Element, tag: str) -> str | None:
    child = parent.find(_W + tag)
    return None if child is None else child.get(_VAL)
