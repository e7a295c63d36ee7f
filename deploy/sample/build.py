"""Writes the sample corpus's PDF and DOCX files from the Markdown beside this script.

`policies/expenses.docx.md` becomes `app/sample/policies/expenses.docx`. The same sources always give the
same bytes, so that the fingerprint of the data set built on them holds. Run: `python deploy/sample/build.py`.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from docx import Document
from docx.enum.text import WD_BREAK
from fpdf import FPDF
from markdown_it import MarkdownIt
from markdown_it.token import Token

HERE = Path(__file__).parent
TARGET = HERE.parents[1] / "app" / "sample"
WRITTEN = datetime(2026, 6, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Heading:
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    text: str


@dataclass(frozen=True, slots=True)
class Items:
    texts: tuple[str, ...]
    numbered: bool


@dataclass(frozen=True, slots=True)
class Table:
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class PageBreak:
    pass


Element = Heading | Paragraph | Items | Table | PageBreak


def elements(markdown: str) -> Iterator[Element]:
    """The headings, paragraphs, lists, tables and page breaks (`---`) of a Markdown text, in order."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    at = 0
    while at < len(tokens):
        end = _end(tokens, at)
        element = _element(tokens[at : end + 1])
        if element is not None:
            yield element
        at = end + 1


def _end(tokens: Sequence[Token], at: int) -> int:
    depth = 0
    for index in range(at, len(tokens)):
        depth += tokens[index].nesting
        if depth == 0:
            return index
    raise ValueError("unbalanced Markdown tokens")


def _element(tokens: Sequence[Token]) -> Element | None:
    first = tokens[0]
    texts = tuple(token.content for token in tokens if token.type == "inline")
    match first.type:
        case "heading_open":
            return Heading(int(first.tag[1]), texts[0])
        case "paragraph_open":
            return Paragraph(" ".join(texts[0].split()))
        case "bullet_list_open" | "ordered_list_open":
            return Items(texts, first.type == "ordered_list_open")
        case "table_open":
            return Table(_rows(tokens))
        case "hr":
            return PageBreak()
    raise ValueError(f"{first.type} is not supported here")


def _rows(tokens: Sequence[Token]) -> tuple[tuple[str, ...], ...]:
    rows: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            rows[-1].append(token.content)
    return tuple(tuple(row) for row in rows)


def pdf(title: str, content: Sequence[Element]) -> bytes:
    page = FPDF(format="A4")
    page.set_creation_date(WRITTEN)
    page.set_title(title)
    page.set_author("Harrow & Finch Instruments")
    page.set_margin(22)
    page.add_page()
    for element in content:
        _onto(page, element)
    return bytes(page.output())


def _onto(page: FPDF, element: Element) -> None:
    match element:
        case Heading(level, text):
            page.ln(2)
            page.set_font("Helvetica", "B", {1: 20, 2: 14}.get(level, 12))
            page.multi_cell(0, 9, text, align="L", new_x="LMARGIN", new_y="NEXT")
        case Paragraph(text):
            _lines(page, text)
        case Items(texts, numbered):
            for number, text in enumerate(texts, 1):
                _lines(page, f"{number}. {text}" if numbered else f"- {text}", after=0.5)
            page.ln(2)
        case Table(rows):
            page.set_font("Helvetica", "", 10)
            with page.table(line_height=6, text_align="L") as table:
                for row in rows:
                    table.row(row)
            page.ln(3)
        case PageBreak():
            page.add_page()


def _lines(page: FPDF, text: str, after: float = 2.5) -> None:
    page.set_font("Helvetica", "", 11)
    page.multi_cell(0, 6, text, align="L", new_x="LMARGIN", new_y="NEXT")
    page.ln(after)


def docx(title: str, content: Sequence[Element]) -> bytes:
    document = Document()
    properties = document.core_properties
    properties.title, properties.author = title, "Harrow & Finch Instruments"
    properties.created = properties.modified = WRITTEN.replace(tzinfo=None)
    for element in content:
        match element:
            case Heading(level, text):
                document.add_heading(text, level)
            case Paragraph(text):
                document.add_paragraph(text)
            case Items(texts, numbered):
                for text in texts:
                    document.add_paragraph(text, style="List Number" if numbered else "List Bullet")
            case Table(rows):
                table = document.add_table(rows=0, cols=len(rows[0]), style="Table Grid")
                for row in rows:
                    for cell, text in zip(table.add_row().cells, row, strict=True):
                        cell.text = text
            case PageBreak():
                document.add_paragraph().add_run().add_break(WD_BREAK.PAGE)
    output = io.BytesIO()
    document.save(output)
    return _undated(output.getvalue())


def _undated(archive: bytes) -> bytes:
    """The same ZIP archive without the time of writing in its entries."""
    output = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(output, "w") as target:
        for name in source.namelist():
            entry = zipfile.ZipInfo(name, date_time=WRITTEN.timetuple()[:6])
            target.writestr(entry, source.read(name), zipfile.ZIP_DEFLATED)
    return output.getvalue()


def build(target: Path) -> list[Path]:
    """Write every file; return their paths."""
    written = []
    for source in sorted(HERE.glob("*/*.md")):
        content = list(elements(source.read_text(encoding="utf-8")))
        title = next(e.text for e in content if isinstance(e, Heading))
        path = target / source.relative_to(HERE).with_suffix("")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes({".pdf": pdf, ".docx": docx}[path.suffix](title, content))
        written.append(path)
    return written


if __name__ == "__main__":
    for path in build(TARGET):
        print(f"{path.stat().st_size:>8} {path.relative_to(TARGET.parents[1])}")
