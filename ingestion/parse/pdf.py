"""PDF through PDFium: text page by page, put back into paragraphs and headings.

A PDF has no structure, only glyphs at places. PDFium gives lines in reading order; `pdf_layout` makes
paragraphs of them from their places and headings from their type sizes.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator

import pypdfium2
import pypdfium2.raw as pdfium

from ingestion.errors import Quarantined
from ingestion.parse.builder import Builder, title_of
from ingestion.parse.pdf_layout import Line, write
from ingestion.types import Parsed

_GENERIC_TITLES = (
    "untitled",
    "(anonymous)",
    "microsoft word",
    "microsoft powerpoint",
    "powerpoint presentation",
    "document",
)
_FILE_ENDINGS = (".doc", ".docx", ".pdf", ".tex", ".dvi", ".indd", ".qxd", ".ppt", ".pptx", ".xls", ".rtf")
_BOLD = re.compile(rb"bold|black|heavy|cmbx|medi(?!um)", re.IGNORECASE)
# PDFium marks a hyphen at a line's end, which belongs to a broken word, with one of these.
_BROKEN_WORD = ("\ufffe", "\x02", "\u00ad")
_LIGATURES = {
    0xFB00: "ff",
    0xFB01: "fi",
    0xFB02: "fl",
    0xFB03: "ffi",
    0xFB04: "ffl",
    0xFB05: "st",
    0xFB06: "st",
}


def read(content: bytes, progress: Callable[[str], None]) -> Parsed:
    document = _open(content)
    try:
        pages = [list(_page_lines(document, number, progress)) for number in range(len(document))]
        if not any(pages) and _has_images(document):
            raise Quarantined(
                "needs_ocr", "The PDF holds only images of text. Run it through text recognition (OCR) first."
            )
        builder = Builder()
        write(pages, builder)
        return builder.build(_title(document) or builder.opening_heading())
    finally:
        document.close()


def _open(content: bytes) -> pypdfium2.PdfDocument:
    try:
        document = pypdfium2.PdfDocument(content)
        pages = len(document)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
            raise Quarantined("encrypted", "The PDF needs a password. Save it without one.") from None
        raise Quarantined("damaged", "The PDF is damaged: no reader of ours can open it.") from None
    if pages == 0:
        document.close()
        raise Quarantined("damaged", "The PDF is damaged: it has no pages.")
    return document


def _page_lines(
    document: pypdfium2.PdfDocument, number: int, progress: Callable[[str], None]
) -> Iterator[Line]:
    """The lines of one page in PDFium's order; none for a page that cannot be loaded."""
    progress(f"page {number + 1}")
    try:
        page = document[number]
        text_page = page.get_textpage()
    except pypdfium2.PdfiumError:
        return
    try:
        text = text_page.get_text_range()
        at = 0
        for raw in text.split("\n"):
            line = raw.rstrip("\r")
            if line.strip():
                yield _line(text_page, line, at + len(line) - len(line.lstrip()))
            at += len(raw) + 1
    finally:
        text_page.close()
        page.close()


def _line(text_page: pypdfium2.PdfTextPage, text: str, at: int) -> Line:
    """A line with where it begins and ends and how large it is, from its first and last characters."""
    first = pdfium.FPDFText_GetCharIndexFromTextIndex(text_page, at)
    last = pdfium.FPDFText_GetCharIndexFromTextIndex(text_page, at + max(0, len(text.strip()) - 1))
    left, bottom, _ = _origin(text_page, first)
    _, end, right = _origin(text_page, last if last >= 0 else first)
    broken = text.rstrip().endswith(_BROKEN_WORD)
    clean = text.strip().rstrip("".join(_BROKEN_WORD)) if broken else text.strip()
    return Line(
        text=clean.translate(_LIGATURES),
        left=left,
        right=right,
        bottom=bottom,
        end=end,
        size=round(_height(text_page, first), 1),
        bold=_is_bold(text_page, first),
        broken=broken,
    )


def _origin(text_page: pypdfium2.PdfTextPage, index: int) -> tuple[float, float, float]:
    """Left edge, baseline and right edge of a character, in points; zeros when PDFium knows none."""
    x, y = ctypes.c_double(), ctypes.c_double()
    edges = [ctypes.c_double() for _ in range(4)]
    if index < 0 or not pdfium.FPDFText_GetCharOrigin(text_page, index, x, y):
        return 0.0, 0.0, 0.0
    pdfium.FPDFText_GetCharBox(text_page, index, *edges)
    return x.value, y.value, max(x.value, edges[1].value)


def _height(text_page: pypdfium2.PdfTextPage, index: int) -> float:
    """The type size as seen: the nominal size is 1 in files that scale by the text matrix. Upright text
    only: turned text (stamps, margin notes) counts as 0, and so as no heading."""
    if index < 0:
        return 0.0
    size = float(pdfium.FPDFText_GetFontSize(text_page, index))
    matrix = pdfium.FS_MATRIX()
    if pdfium.FPDFText_GetMatrix(text_page, index, matrix):
        size *= abs(matrix.d)
    return size


def _is_bold(text_page: pypdfium2.PdfTextPage, index: int) -> bool:
    if index < 0:
        return False
    name = ctypes.create_string_buffer(128)
    flags = ctypes.c_int()
    length = pdfium.FPDFText_GetFontInfo(text_page, index, name, 128, flags)
    return 0 < length <= 128 and bool(_BOLD.search(name.value))


def _has_images(document: pypdfium2.PdfDocument) -> bool:
    for number in range(min(len(document), 50)):
        try:
            page = document[number]
        except pypdfium2.PdfiumError:
            continue
        found = next(page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_IMAGE], max_depth=4), None)
        page.close()
        if found is not None:
            return True
    return False


def _title(document: pypdfium2.PdfDocument) -> str | None:
    """The title in the file's properties, unless a program filled it in."""
    title = title_of(document.get_metadata_value("Title"))
    if title is None or title.lower().startswith(_GENERIC_TITLES) or title.lower().endswith(_FILE_ENDINGS):
        return None
    return title
