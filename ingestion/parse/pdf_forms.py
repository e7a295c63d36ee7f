"""What was filled into a PDF's form fields, and what was typed onto its pages as free text."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium

from ingestion.parse.builder import one_line

_MAX_ANNOTATIONS = 5_000
_MAX_BYTES = 2**20
_UNTOLD = frozenset({pdfium.FPDF_FORMFIELD_PUSHBUTTON, pdfium.FPDF_FORMFIELD_SIGNATURE})
_CHECKED = frozenset({pdfium.FPDF_FORMFIELD_CHECKBOX, pdfium.FPDF_FORMFIELD_RADIOBUTTON})


def fields(page: pypdfium2.PdfPage, form: pypdfium2.PdfFormEnv | None) -> list[str]:
    """A line `name: value` for each field that is filled or ticked, and the text of each note on the page."""
    count = min(pdfium.FPDFPage_GetAnnotCount(page.raw), _MAX_ANNOTATIONS)
    return list(dict.fromkeys(line for at in range(count) for line in _line(page, form, at)))


def _line(page: pypdfium2.PdfPage, form: pypdfium2.PdfFormEnv | None, at: int) -> Iterator[str]:
    annotation = pdfium.FPDFPage_GetAnnot(page.raw, at)
    if not annotation:
        return
    try:
        kind = pdfium.FPDFAnnot_GetSubtype(annotation)
        if kind == pdfium.FPDF_ANNOT_WIDGET and form is not None:
            yield from _field(form.raw, annotation)
        elif kind == pdfium.FPDF_ANNOT_FREETEXT:
            text = one_line(
                _text(lambda out, size: pdfium.FPDFAnnot_GetStringValue(annotation, b"Contents", out, size))
            )
            if text:
                yield text
    finally:
        pdfium.FPDFPage_CloseAnnot(annotation)


def _field(form: Any, annotation: Any) -> Iterator[str]:
    kind = pdfium.FPDFAnnot_GetFormFieldType(form, annotation)
    if kind in _UNTOLD or (kind in _CHECKED and not pdfium.FPDFAnnot_IsChecked(form, annotation)):
        return
    value = one_line(_text(lambda out, size: pdfium.FPDFAnnot_GetFormFieldValue(form, annotation, out, size)))
    if not value:
        return
    shown = one_line(
        _text(lambda out, size: pdfium.FPDFAnnot_GetFormFieldAlternateName(form, annotation, out, size))
    )
    name = shown or one_line(
        _text(lambda out, size: pdfium.FPDFAnnot_GetFormFieldName(form, annotation, out, size))
    )
    yield f"{name}: {value}" if name else value


def _text(get: Callable[[Any, int], int]) -> str:
    """What a function of PDFium writes into a buffer, as UTF-16, when told the buffer's size."""
    size = get(None, 0)
    if not 2 < size <= _MAX_BYTES:
        return ""
    units = (ctypes.c_ushort * (size // 2))()
    get(units, size)
    return bytes(units).decode("utf-16-le", "replace").rstrip("\0")
