from __future__ import annotations

import pytest
from fpdf import FPDF
from PIL import Image

from ingestion.errors import Quarantined
from ingestion.parse import parse
from ingestion.types import Parsed

LOREM = (
    "Every member of staff has twenty-five days of paid leave in each calendar year. Leave is asked for in "
    "writing, at least two weeks before it begins, and the team lead answers within three working days. "
)


def new() -> FPDF:
    pdf = FPDF()
    pdf.set_font("Helvetica", size=11)
    return pdf


def add(pdf: FPDF, text: str, size: int = 11, style: str = "") -> None:
    pdf.set_font("Helvetica", style, size)
    pdf.multi_cell(0, size * 0.5, text, new_x="LMARGIN", new_y="NEXT")
    pdf.ln(4)


def handbook() -> FPDF:
    pdf = new()
    pdf.add_page()
    add(pdf, "Staff handbook", 24)
    add(pdf, "Paid leave", 16)
    add(pdf, LOREM * 2)
    add(pdf, "Carry-over is possible until March.")
    pdf.add_page()
    add(pdf, "Sick leave", 16)
    add(pdf, LOREM)
    add(pdf, "- a doctor's note\n- a call before nine")
    add(pdf, "Bold heading of its own", 11, "B")
    add(pdf, "The last words.")
    return pdf


def scan() -> FPDF:
    pdf = new()
    pdf.add_page()
    pdf.image(Image.new("RGB", (40, 40), "red"))
    return pdf


def read(pdf: FPDF) -> Parsed:
    return parse(bytes(pdf.output()), "a.pdf", "application/pdf")


def reason(content: bytes) -> str:
    with pytest.raises(Quarantined) as caught:
        parse(content, "a.pdf", None)
    return caught.value.reason


def test_paragraphs_headings_and_lists_come_back_with_their_pages() -> None:
    parsed = read(handbook())
    found = [(b.kind, b.level, b.page, parsed.text[b.span.start : b.span.end]) for b in parsed.blocks]
    assert found == [
        ("heading", 1, 1, "Staff handbook"),
        ("heading", 2, 1, "Paid leave"),
        ("paragraph", 0, 1, (LOREM * 2).strip()),
        ("paragraph", 0, 1, "Carry-over is possible until March."),
        ("heading", 2, 2, "Sick leave"),
        ("paragraph", 0, 2, LOREM.strip()),
        ("list", 0, 2, "- a doctor's note\n- a call before nine"),
        ("heading", 3, 2, "Bold heading of its own"),
        ("paragraph", 0, 2, "The last words."),
    ]


def test_the_title_is_that_of_the_properties_else_the_opening_heading() -> None:
    assert read(handbook()).title == "Staff handbook"
    pdf = handbook()
    pdf.set_title("Handbook 2026")
    assert read(pdf).title == "Handbook 2026"
    pdf = handbook()
    pdf.set_title("Microsoft Word - draft.docx")
    assert read(pdf).title == "Staff handbook"


def test_rows_of_a_table_stay_rows() -> None:
    pdf = new()
    pdf.add_page()
    add(pdf, LOREM)
    for plan, price in (("Basic plan", "84 EUR a year"), ("Plus plan", "132 EUR a year"), ("Max", "9 EUR")):
        pdf.cell(110, 6, plan)
        pdf.cell(60, 6, price, new_x="LMARGIN", new_y="NEXT")
    assert read(pdf).text.endswith("\n\nBasic plan 84 EUR a year\nPlus plan 132 EUR a year\nMax 9 EUR")


def test_a_sentence_that_goes_on_over_the_page_stays_whole() -> None:
    pdf = new()
    pdf.add_page()
    add(pdf, "This sentence begins on one page and")
    pdf.add_page()
    add(pdf, "ends on the next.")
    add(pdf, "Another page begins with")
    pdf.add_page()
    add(pdf, "A new paragraph.")
    assert read(pdf).text.split("\n\n") == [
        "This sentence begins on one page and ends on the next.",
        "Another page begins with",
        "A new paragraph.",
    ]


def test_running_headers_are_kept_once() -> None:
    pdf = new()
    for number in range(1, 7):
        pdf.add_page()
        add(pdf, "ACME confidential")
        for part in range(4):
            add(pdf, f"Paragraph {part} of chapter {'abcdef'[number - 1]}.")
        add(pdf, f"Page {number}")
    text = read(pdf).text
    assert text.count("ACME confidential") == 1
    assert text.count("Paragraph 2 of chapter") == 6


def test_progress_names_the_page() -> None:
    seen: list[str] = []
    parse(bytes(handbook().output()), "a.pdf", None, seen.append)
    assert seen == ["page 1", "page 2"]


def test_a_pdf_with_a_password_is_encrypted() -> None:
    pdf = handbook()
    pdf.set_encryption(owner_password="owner", user_password="user")
    assert reason(bytes(pdf.output())) == "encrypted"


def test_a_pdf_that_only_forbids_copying_is_read() -> None:
    pdf = handbook()
    pdf.set_encryption(owner_password="owner")
    assert "Staff handbook" in read(pdf).text


@pytest.mark.parametrize("content", [b"", b"%PDF-1.4\n", b"%PDF-1.7\n" + bytes(range(256)) * 10])
def test_a_pdf_of_no_bytes_or_wrong_ones_is_damaged(content: bytes) -> None:
    assert reason(content) == "damaged"


def test_a_scan_needs_text_recognition_and_a_blank_page_is_empty() -> None:
    blank = new()
    blank.add_page()
    assert reason(bytes(blank.output())) == "empty"
    assert reason(bytes(scan().output())) == "needs_ocr"
    with_text = scan()
    add(with_text, "One line of text.")
    assert read(with_text).text == "One line of text."
