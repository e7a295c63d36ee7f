from __future__ import annotations

import pytest
from fpdf import FPDF
from PIL import Image

from ingestion.errors import Quarantined
from ingestion.parse import parse
from ingestion.parse.pdf_repair import repaired
from ingestion.parse.pdf_words import Word, in_reading_order, letters, logical
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


def put(pdf: FPDF, x: float, y: float, text: str) -> None:
    """One line at a place, in millimetres from the upper left."""
    pdf.set_font("Helvetica", "", 11)
    pdf.text(x, y, text)


def made(*objects: bytes) -> bytes:
    """A PDF of objects numbered from 1, the first its catalog, without a table of them."""
    numbered = (b"%d 0 obj %s endobj" % (number, body) for number, body in enumerate(objects, start=1))
    return b"\n".join((b"%PDF-1.7", *numbered, b"trailer <</Root 1 0 R>>", b"%%EOF"))


def table_blocks(parsed: Parsed) -> list[str]:
    return [parsed.text[b.span.start : b.span.end] for b in parsed.blocks if b.kind == "table"]


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


def test_two_words_to_a_row_are_lines_and_no_table() -> None:
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


def test_running_headers_are_kept_once_and_page_numbers_not_at_all() -> None:
    pdf = new()
    for number in range(1, 7):
        pdf.add_page()
        add(pdf, "ACME confidential" if number % 2 else "Staff rules")
        for part in range(4):
            add(pdf, f"Paragraph {part} of chapter {'abcdef'[number - 1]}.")
        add(pdf, f"Page {number} of 6")
    text = read(pdf).text
    assert text.count("ACME confidential") == 1
    assert text.count("Staff rules") == 1
    assert text.count("Paragraph 2 of chapter") == 6
    assert "Page" not in text


LEFT = (
    "The left column is read first, from its first line to",
    "its last one, although the file has the lines of the",
    "two columns by turns, as they stand side by side, and",
    "only then does the reader go on to the other column.",
)
RIGHT = (
    "The right column is read after it, also from its top",
    "to its bottom, and below both of the columns there is",
    "a line that goes across the page, which is read after",
    "everything that is above it, as people do read pages.",
)


def test_columns_are_read_one_after_the_other() -> None:
    pdf = new()
    pdf.add_page()
    put(pdf, 60, 20, "A title across both columns")
    for at, (left, right) in enumerate(zip(LEFT, RIGHT, strict=True)):
        put(pdf, 10, 40 + 5 * at, left)
        put(pdf, 110, 40 + 5 * at, right)
    put(pdf, 10, 80, "A line that goes across the whole page, from one margin to the other one, and ends it.")
    text = " ".join(read(pdf).text.split())
    assert text.index("A title") < text.index(" ".join(LEFT)) < text.index(" ".join(RIGHT))
    assert text.index(" ".join(RIGHT)) < text.index("A line that goes across")


def test_a_table_with_lines_is_markdown_and_names_its_columns() -> None:
    pdf = new()
    pdf.add_page()
    add(pdf, LOREM)
    with pdf.table() as table:
        for row in (("Plan", "Price | net"), ("Basic", "84 EUR"), ("Plus", "132 EUR")):
            table.row(row)
    parsed = read(pdf)
    block = parsed.blocks[-1]
    assert table_blocks(parsed) == [
        "| Plan | Price \\| net |\n| --- | --- |\n| Basic | 84 EUR |\n| Plus | 132 EUR |"
    ]
    assert block.page == 1
    assert block.header is not None
    assert parsed.text[block.header.start : block.header.end] == "| Plan | Price \\| net |\n| --- | --- |\n"


def test_a_cell_over_two_columns_is_at_its_first_place() -> None:
    pdf = new()
    pdf.add_page()
    with pdf.table() as table:
        row = table.row()
        row.cell("Year", colspan=2)
        row.cell("Cost")
        table.row(("2025", "March", "10"))
    assert table_blocks(read(pdf)) == ["| Year |  | Cost |\n| --- | --- | --- |\n| 2025 | March | 10 |"]


def test_three_columns_without_lines_are_a_table() -> None:
    pdf = new()
    pdf.add_page()
    add(pdf, LOREM)
    rows = (
        ("Item", "Units", "Price"),
        ("Desk", "2", "180"),
        ("Chair with arms", "4", "95"),
        ("Lamp", "", "20"),
    )
    for at, row in enumerate(rows):
        for column, cell in enumerate(row):
            put(pdf, 15 + 60 * column, 60 + 6 * at, cell)
    assert table_blocks(read(pdf)) == [
        "| Item | Units | Price |\n| --- | --- | --- |\n| Desk | 2 | 180 |\n"
        "| Chair with arms | 4 | 95 |\n| Lamp |  | 20 |"
    ]


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_turned_pages_read_as_upright_ones(turn: int) -> None:
    pdf = new()
    pdf.add_page()
    with pdf.rotation(turn, 105, 148):
        for at, line in enumerate(LEFT):
            put(pdf, 60, 120 + 6 * at, line)
    assert " ".join(read(pdf).text.split()) == " ".join(LEFT)


def test_writing_at_the_margin_comes_after_the_text_and_is_no_heading() -> None:
    pdf = new()
    pdf.add_page()
    with pdf.rotation(90, 10, 200):
        pdf.set_font("Helvetica", "B", 24)
        pdf.text(10, 200, "DRAFT 7")
    for at, line in enumerate(LEFT):
        put(pdf, 40, 40 + 5 * at, line)
    parsed = read(pdf)
    assert parsed.text.endswith("DRAFT 7")
    assert all(block.kind == "paragraph" for block in parsed.blocks)


def test_text_printed_over_itself_is_read_once() -> None:
    pdf = new()
    pdf.add_page()
    for shift in (0.0, 0.2):
        put(pdf, 20 + shift, 30, "Bold by printing twice")
        for at, line in enumerate((*LEFT, *RIGHT)):
            put(pdf, 20, 40 + 5 * at + shift, line)
    text = " ".join(read(pdf).text.split())
    assert text == " ".join(("Bold by printing twice", *LEFT, *RIGHT))


def word(text: str, left: float) -> Word:
    return Word(text=text, left=left, right=left + 8, bottom=0, size=10, bold=False, line=0, broken=False)


def test_right_to_left_words_come_in_the_order_of_reading() -> None:
    assert logical("םולש", forwards=True) == "שלום"
    assert logical("שלום", forwards=False) == "שלום"
    drawn = [word("עולם", 0), word("2026", 10), word("March", 20), word("שלום", 30)]
    assert [w.text for w in in_reading_order(drawn)] == ["שלום", "2026", "March", "עולם"]
    english = [word("say", 0), word("עולם", 10), word("שלום", 20), word("now", 30)]
    assert [w.text for w in in_reading_order(english)] == ["say", "שלום", "עולם", "now"]


def test_ligatures_are_letters_and_other_signs_stay() -> None:
    assert letters("eﬃcient ﬂow ﬆ") == "efficient flow st"
    assert letters("ﻻ") == "لا"
    assert letters("x² ½ Å ㎏") == "x² ½ Å ㎏"


FORM = (
    b"<</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[4 0 R 5 0 R 6 0 R]>>>>",
    b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
    b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Annots[4 0 R 5 0 R 6 0 R]>>",
    b"<</Type/Annot/Subtype/Widget/FT/Tx/T(name)/TU(Full name)/V(Ada Lovelace)/Rect[10 250 200 270]>>",
    b"<</Type/Annot/Subtype/Widget/FT/Tx/T(empty)/Rect[10 200 200 220]/P 3 0 R>>",
    b"<</Type/Annot/Subtype/FreeText/Contents(Received on Monday)/Rect[10 100 200 120]/P 3 0 R>>",
)


def test_what_was_filled_into_a_form_is_read_with_its_name() -> None:
    parsed = parse(made(*FORM), "a.pdf", None)
    assert parsed.text == "- Full name: Ada Lovelace\n- Received on Monday"
    assert parsed.blocks[0].page == 1


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


def test_scanned_pages_among_others_are_named() -> None:
    pdf = handbook()
    for _ in range(2):
        pdf.add_page()
        pdf.image(Image.new("RGB", (40, 40), "red"), x=0, y=0, w=210, h=297)
    parsed = read(pdf)
    assert parsed.text.startswith("Staff handbook")
    assert parsed.notes == ("Pages 3-4 are images of text: they need text recognition (OCR) to be found.",)
    assert read(handbook()).notes == ()


def test_a_scan_with_a_stamp_on_it_needs_text_recognition() -> None:
    pdf = new()
    for _ in range(3):
        pdf.add_page()
        pdf.image(Image.new("RGB", (40, 40), "red"), x=0, y=0, w=210, h=297)
        put(pdf, 20, 290, "Scanned by Acme")
    assert reason(bytes(pdf.output())) == "needs_ocr"


def test_letters_without_a_meaning_need_text_recognition() -> None:
    shapes = b"".join(b"%04x" % number for number in range(40, 90))
    drawing = b"BT /F1 12 Tf 20 200 Td <%s> Tj ET" % shapes
    content = made(
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 900 300]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(drawing), drawing),
        b"<</Type/Font/Subtype/Type0/BaseFont/Odd/Encoding/Identity-H/DescendantFonts[6 0 R]>>",
        b"<</Type/Font/Subtype/CIDFontType2/BaseFont/Odd/FontDescriptor 7 0 R"
        b"/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>>>",
        b"<</Type/FontDescriptor/FontName/Odd/Flags 4/FontBBox[0 0 1000 1000]/ItalicAngle 0/Ascent 800"
        b"/Descent -200/CapHeight 700/StemV 80>>",
    )
    assert reason(content) == "needs_ocr"


def test_a_blank_without_a_meaning_is_a_space_whatever_its_code() -> None:
    """The codes are those of a hyphen that ends a line, of a line end and of a letter."""
    drawing = b"BT /F1 12 Tf 20 200 Td (Perceived\\002ease\\012of\\101use of a system) Tj ET"
    content = made(
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 900 300]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(drawing), drawing),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding 6 0 R>>",
        b"<</Type/Encoding/BaseEncoding/WinAnsiEncoding/Differences[2/g3 10/g3 65/g3]>>",
    )
    assert parse(content, "a.pdf", None).text == "Perceived ease of use of a system"


def test_a_word_broken_at_the_end_of_a_line_is_whole_and_a_compound_keeps_its_hyphen() -> None:
    pdf = new()
    pdf.add_page()
    lines = ("The members of the board of the EU-", "Kommission answer within three work-", "ing days.")
    for at, line in enumerate(lines):
        put(pdf, 20, 40 + 5 * at, line)
    text = " ".join(read(pdf).text.split())
    assert text == "The members of the board of the EU-Kommission answer within three working days."


def test_a_file_that_lost_its_pages_is_repaired() -> None:
    content = bytes(handbook().output())
    broken = content[: content.rindex(b"xref")].replace(b"/Pages 1 0 R", b"/Pages 99 0 R")
    assert broken != content
    assert parse(broken, "a.pdf", None).text == read(handbook()).text
    assert repaired(b"%PDF-1.7\n1 0 obj <</Type/Catalog>> endobj") is None
