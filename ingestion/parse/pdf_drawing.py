"""What is drawn on a PDF page: straight lines, which may be a table's, and how much of it images cover."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium

_MAX_OBJECTS = 4_000
"""Looked at on a page: what has more is a drawing, whose lines are no table's."""
_MAX_DEPTH = 4
_MAX_SEGMENTS = 400
_THIN = 3.0
"""Points: what is narrower is a line, however it was drawn."""

Matrix = tuple[float, float, float, float, float, float]
Box = tuple[float, float, float, float]
"""Left, bottom, right and top."""
_IDENTITY: Matrix = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Rule:
    """A straight line drawn along an axis: at `at` across it, from `start` to `end` along it."""

    horizontal: bool
    at: float
    start: float
    end: float


@dataclass(slots=True)
class Drawing:
    """`pictured` is the share of the page that images cover."""

    rules: list[Rule] = field(default_factory=list)
    pictured: float = 0.0
    has_image: bool = False


def look_at(page: pypdfium2.PdfPage, turn: int) -> Drawing:
    """What is drawn on a page, its rules in the frame of writing turned by so many quarter turns."""
    found = Drawing()
    width, height = page.get_size()
    area = max(1.0, width * height)
    for handle, matrix in _objects(page.raw):
        kind = pdfium.FPDFPageObj_GetType(handle)
        if kind == pdfium.FPDF_PAGEOBJ_IMAGE:
            left, bottom, right, top = _bounds(handle, matrix)
            found.has_image = True
            found.pictured = min(1.0, found.pictured + (right - left) * (top - bottom) / area)
        elif kind == pdfium.FPDF_PAGEOBJ_PATH:
            found.rules.extend(_rules(handle, matrix, turn))
    return found


def turned(box: Box, turn: int) -> Box:
    """A box in the frame in which writing turned by so many quarter turns is upright."""
    if not turn:
        return box
    left, bottom, right, top = box
    for _ in range(turn):
        left, bottom, right, top = bottom, -right, top, -left
    return left, bottom, right, top


def _objects(page: Any) -> Iterator[tuple[Any, Matrix]]:
    """Every object with the matrix of the form that it is in; a drawing of very many is left at that."""
    stack = [
        (pdfium.FPDFPage_GetObject(page, at), _IDENTITY, 0)
        for at in range(min(pdfium.FPDFPage_CountObjects(page), _MAX_OBJECTS))
    ]
    stack.reverse()
    seen = 0
    while stack and seen < _MAX_OBJECTS:
        handle, matrix, depth = stack.pop()
        seen += 1
        if pdfium.FPDFPageObj_GetType(handle) != pdfium.FPDF_PAGEOBJ_FORM:
            yield handle, matrix
        elif depth < _MAX_DEPTH:
            inner = _times(_matrix_of(handle), matrix)
            count = min(pdfium.FPDFFormObj_CountObjects(handle), _MAX_OBJECTS)
            stack.extend((pdfium.FPDFFormObj_GetObject(handle, at), inner, depth + 1) for at in range(count))


def _matrix_of(handle: Any) -> Matrix:
    raw = pdfium.FS_MATRIX()
    if not pdfium.FPDFPageObj_GetMatrix(handle, raw):
        return _IDENTITY
    return raw.a, raw.b, raw.c, raw.d, raw.e, raw.f


def _times(first: Matrix, then: Matrix) -> Matrix:
    a, b, c, d, e, f = first
    p, q, r, s, t, u = then
    return a * p + b * r, a * q + b * s, c * p + d * r, c * q + d * s, e * p + f * r + t, e * q + f * s + u


def _moved(x: float, y: float, matrix: Matrix) -> tuple[float, float]:
    a, b, c, d, e, f = matrix
    return a * x + c * y + e, b * x + d * y + f


def _bounds(handle: Any, matrix: Matrix) -> Box:
    edges = [ctypes.c_float() for _ in range(4)]
    if not pdfium.FPDFPageObj_GetBounds(handle, *edges):
        return 0.0, 0.0, 0.0, 0.0
    left, bottom, right, top = (edge.value for edge in edges)
    corners = [_moved(x, y, matrix) for x in (left, right) for y in (bottom, top)]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return min(xs), min(ys), max(xs), max(ys)


def _rules(handle: Any, matrix: Matrix, turn: int) -> Iterator[Rule]:
    """The straight lines along an axis in one path: thin bars, and the edges of boxes and of zigzags."""
    if not _visible(handle):
        return
    box = turned(_bounds(handle, matrix), turn)
    left, bottom, right, top = box
    if right - left <= _THIN or top - bottom <= _THIN:
        yield from _rule(left, bottom, right, top)
        return
    count = pdfium.FPDFPath_CountSegments(handle)
    if not 2 <= count <= _MAX_SEGMENTS:
        return
    whole = _times(_matrix_of(handle), matrix)
    for (x0, y0), (x1, y1) in _strokes(handle, count, whole):
        edge = turned((x0, y0, x1, y1), turn)
        edge = (min(edge[0], edge[2]), min(edge[1], edge[3]), max(edge[0], edge[2]), max(edge[1], edge[3]))
        if edge[2] - edge[0] <= 0.5 or edge[3] - edge[1] <= 0.5:
            yield from _rule(*edge)


def _rule(left: float, bottom: float, right: float, top: float) -> Iterator[Rule]:
    if right - left >= top - bottom and right - left > _THIN:
        yield Rule(True, (bottom + top) / 2, left, right)
    elif top - bottom > right - left and top - bottom > _THIN:
        yield Rule(False, (left + right) / 2, bottom, top)


def _visible(handle: Any) -> bool:
    fill, stroke = ctypes.c_int(), ctypes.c_int()
    pdfium.FPDFPath_GetDrawMode(handle, fill, stroke)
    return bool(fill.value or stroke.value)


def _strokes(
    handle: Any, count: int, matrix: Matrix
) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    x, y = ctypes.c_float(), ctypes.c_float()
    start = at = (0.0, 0.0)
    for index in range(count):
        segment = pdfium.FPDFPath_GetPathSegment(handle, index)
        pdfium.FPDFPathSegment_GetPoint(segment, x, y)
        to = _moved(x.value, y.value, matrix)
        kind = pdfium.FPDFPathSegment_GetType(segment)
        if kind == pdfium.FPDF_SEGMENT_MOVETO:
            start = to
        elif kind == pdfium.FPDF_SEGMENT_LINETO:
            yield at, to
        at = to
        if pdfium.FPDFPathSegment_GetClose(segment):
            yield at, start
