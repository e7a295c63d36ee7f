"""PDF through PDFium: text page by page, put back into reading order, tables, paragraphs and headings.

A PDF has no structure, only glyphs at places. `pdf_page` and `pdf_drawing` say what is where, `pdf_order` in
which order it is read, `pdf_grid` and `pdf_tables` what is a table; `pdf_layout` makes paragraphs of lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import pypdfium2
import pypdfium2.raw as pdfium

from ingestion.errors import Quarantined
from ingestion.parse.builder import Builder, title_of
from ingestion.parse.pdf_forms import fields
from ingestion.parse.pdf_layout import write
from ingestion.parse.pdf_order import Item, page_items
from ingestion.parse.pdf_page import PageText, page_text
from ingestion.parse.pdf_repair import repaired
from ingestion.parse.within import Within
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
_TRIED_PAGES = 20
_FEW_LETTERS = 20
_MUCH_PICTURE = 0.5
_NO_TEXT = "The PDF holds only images of text. Run it through text recognition (OCR) first."
_NO_MEANING = (
    "The PDF's fonts do not say which letters their shapes are. Run it through text recognition (OCR) first."
)


@dataclass(frozen=True, slots=True)
class _Page:
    """A page as read. `lost` says why its text, or most of it, could not be: None where it could."""

    items: list[Item]
    fields: list[str]
    lost: str | None
    has_image: bool


def read(content: bytes, within: Within) -> Parsed:
    document = _open(content)
    try:
        form = _form(document)
        pages = [_page(document, form, number, within.progress) for number in range(len(document))]
        _refuse_unreadable(pages)
        builder = Builder()
        write([page.items for page in pages], builder)
        for number, page in enumerate(pages, start=1):
            builder.add("list", "\n".join(f"- {line}" for line in page.fields), page=number)
        parsed = builder.build(_title(document) or builder.opening_heading())
        return replace(parsed, notes=tuple(_notes(pages)))
    finally:
        document.close()


def _refuse_unreadable(pages: Sequence[_Page]) -> None:
    """A document without text that people see as text is sent back for recognition; a stamp on every page
    is no text."""
    if any(page.fields or (page.items and page.lost is None) for page in pages):
        return
    if any(page.lost == "font" for page in pages):
        raise Quarantined("needs_ocr", _NO_MEANING)
    if any(page.has_image for page in pages):
        raise Quarantined("needs_ocr", _NO_TEXT)


def _notes(pages: Sequence[_Page]) -> Iterator[str]:
    """A sentence for each reason for which text of some pages is missing."""
    reasons = {
        "image": "are images of text: they need text recognition (OCR) to be found",
        "font": "hold letters that their fonts give no meaning: they need text recognition (OCR) to be found",
        "damaged": "are damaged and could not be read",
    }
    for reason, sentence in reasons.items():
        numbers = [number for number, page in enumerate(pages, start=1) if page.lost == reason]
        if numbers:
            yield f"Pages {_ranges(numbers)} {sentence}."


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as `1-3, 7`."""
    runs = [list(run) for _, run in groupby(enumerate(numbers), key=lambda p: p[1] - p[0])]
    return ", ".join(f"{r[0][1]}-{r[-1][1]}" if len(r) > 1 else str(r[0][1]) for r in runs)


def _open(content: bytes) -> pypdfium2.PdfDocument:
    document = _opened(content)
    if document is None and (again := repaired(content)) is not None:
        document = _opened(again)
    if document is None:
        raise Quarantined("damaged", "The PDF is damaged: no page of it can be opened.")
    return document


def _opened(content: bytes) -> pypdfium2.PdfDocument | None:
    """None for a file that PDFium refuses or has no page of; `Quarantined` for one with a password."""
    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
            raise Quarantined("encrypted", "The PDF needs a password. Save it without one.") from None
        return None
    if any(_loads(document, number) for number in range(min(len(document), _TRIED_PAGES))):
        return document
    document.close()
    return None


def _loads(document: pypdfium2.PdfDocument, number: int) -> bool:
    try:
        document[number].close()
    except pypdfium2.PdfiumError:
        return False
    return True


def _form(document: pypdfium2.PdfDocument) -> pypdfium2.PdfFormEnv | None:
    if document.get_formtype() == pdfium.FORMTYPE_NONE:
        return None
    document.init_forms()
    return document.formenv


def _page(
    document: pypdfium2.PdfDocument,
    form: pypdfium2.PdfFormEnv | None,
    number: int,
    progress: Callable[[str], None],
) -> _Page:
    progress(f"page {number + 1}")
    try:
        page = document[number]
        try:
            found = page_text(page)
            return _Page(page_items(found), fields(page, form), _lost(found), found.has_image)
        finally:
            page.close()
    except pypdfium2.PdfiumError:
        return _Page([], [], "damaged", False)


def _lost(page: PageText) -> str | None:
    readable = page.characters - page.unreadable
    if page.unreadable > max(_FEW_LETTERS, readable):
        return "font"
    if readable < _FEW_LETTERS and page.pictured >= _MUCH_PICTURE:
        return "image"
    return None


def _title(document: pypdfium2.PdfDocument) -> str | None:
    """The title in the file's properties, unless a program filled it in."""
    title = title_of(document.get_metadata_value("Title"))
    if title is None or title.lower().startswith(_GENERIC_TITLES) or title.lower().endswith(_FILE_ENDINGS):
        return None
    return title
