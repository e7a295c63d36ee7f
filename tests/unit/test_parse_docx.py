from __future__ import annotations

import io
import zipfile

import docx
import pytest
from docx.document import Document
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from ingestion.errors import Quarantined
from ingestion.parse import parse
from ingestion.types import Parsed


def handbook() -> Document:
    document = docx.Document()
    document.add_heading("Staff handbook", 0)
    document.add_heading("Leave", 1)
    document.add_paragraph("Staff get 25 days.")
    document.add_paragraph("ask", style="List Bullet")
    document.add_paragraph("wait", style="List Bullet")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(
        (c for row in table.rows for c in row.cells), ("Plan", "Price", "A|B", "10"), strict=True
    ):
        cell.text = text
    document.add_heading("Carry-over", 2)
    document.add_paragraph("first", style="List Number")
    document.add_paragraph("second", style="List Number")
    document.add_paragraph("The end.")
    return document


def saved(document: Document) -> bytes:
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def read(content: bytes) -> Parsed:
    return parse(content, "a.docx", None)


def reason(content: bytes) -> str:
    with pytest.raises(Quarantined) as caught:
        read(content)
    return caught.value.reason


def outline(parsed: Parsed) -> list[tuple[str, int, str]]:
    return [(b.kind, b.level, parsed.text[b.span.start : b.span.end]) for b in parsed.blocks]


def repacked(content: bytes, **changes: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            if name not in changes:
                new.writestr(name, old.read(name))
        for name, body in changes.items():
            new.writestr(name, body)
    return out.getvalue()


def test_headings_lists_and_tables_come_in_document_order() -> None:
    parsed = read(saved(handbook()))
    assert outline(parsed) == [
        ("heading", 1, "Staff handbook"),
        ("heading", 1, "Leave"),
        ("paragraph", 0, "Staff get 25 days."),
        ("list", 0, "- ask\n- wait"),
        ("table", 0, "| Plan | Price |\n| --- | --- |\n| A\\|B | 10 |"),
        ("heading", 2, "Carry-over"),
        ("list", 0, "1. first\n2. second"),
        ("paragraph", 0, "The end."),
    ]


def test_the_title_is_that_of_the_properties_else_the_opening_heading() -> None:
    document = handbook()
    assert read(saved(document)).title == "Staff handbook"
    document.core_properties.title = "Handbook 2026"
    assert read(saved(document)).title == "Handbook 2026"


def test_a_heading_can_be_known_by_its_outline_level() -> None:
    document = docx.Document()
    paragraph = document.add_paragraph("Scope")
    paragraph._p.get_or_add_pPr().append(parse_xml(f'<w:outlineLvl {nsdecls("w")} w:val="2"/>'))
    document.add_paragraph("text")
    assert outline(read(saved(document)))[0] == ("heading", 3, "Scope")


def test_inserted_text_and_content_controls_are_read_and_deleted_text_is_not() -> None:
    document = docx.Document()
    paragraph = document.add_paragraph("kept ")
    names = nsdecls("w")
    paragraph._p.append(parse_xml(f"<w:ins {names}><w:r><w:t>inserted</w:t></w:r></w:ins>"))
    paragraph._p.append(parse_xml(f"<w:del {names}><w:r><w:delText>deleted</w:delText></w:r></w:del>"))
    control = (
        f"<w:sdt {names}><w:sdtContent><w:p><w:r><w:t>controlled</w:t></w:r></w:p></w:sdtContent></w:sdt>"
    )
    document.element.body.insert(1, parse_xml(control))
    assert read(saved(document)).text == "kept inserted\n\ncontrolled"


def test_a_strict_package_is_read_like_any_other() -> None:
    content = saved(handbook())
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            body = old.read(name)
            for part in (b"officeDocument", b"wordprocessingml"):
                usual = b"http://schemas.openxmlformats.org/" + part + b"/2006/"
                body = body.replace(usual, b"http://purl.oclc.org/ooxml/" + part + b"/")
            new.writestr(name, body)
    assert outline(read(out.getvalue())) == outline(read(content))


def test_a_package_that_would_unpack_to_far_more_is_refused_before_it_is_unpacked() -> None:
    bomb = repacked(saved(handbook()), **{"word/media/image1.png": bytes(40 * 2**20)})
    assert len(bomb) < 2**20
    assert reason(bomb) == "too_large"


def test_entities_are_not_expanded() -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 20 if n else "boom"}">' for n in range(8))

    def document(text: str) -> bytes:
        body = (
            f'<?xml version="1.0"?><!DOCTYPE x [{entities}]><w:document {nsdecls("w")}><w:body>'
            f"<w:p><w:r><w:t>calm {text}</w:t></w:r></w:p></w:body></w:document>"
        )
        return repacked(saved(handbook()), **{"word/document.xml": body.encode()})

    assert "boom" not in read(document("&e0;")).text
    assert reason(document("&e7;")) == "damaged"


@pytest.mark.parametrize("keep", [40, 0.5, 0.98])
def test_a_truncated_package_is_damaged(keep: float) -> None:
    content = saved(handbook())
    assert reason(content[: int(keep if keep > 1 else keep * len(content))]) == "damaged"


def test_a_package_with_a_broken_part_is_damaged() -> None:
    assert reason(repacked(saved(handbook()), **{"word/document.xml": b"<w:document"})) == "damaged"
    assert reason(repacked(saved(handbook()), **{"word/document.xml": b"<document/>"})) == "damaged"


def test_a_package_whose_lists_of_parts_are_broken_is_read_all_the_same() -> None:
    content = repacked(saved(handbook()), **{"[Content_Types].xml": b"<Types/>", "_rels/.rels": b"<"})
    assert outline(read(content)) == outline(read(saved(handbook())))


def test_a_footnote_follows_its_paragraph() -> None:
    document = docx.Document()
    names = nsdecls("w")
    document.add_paragraph("Claim")._p.append(
        parse_xml(f'<w:r {names}><w:footnoteReference w:id="2"/></w:r>')
    )
    document.add_paragraph("Next")
    note = '<w:footnote w:id="2"><w:p><w:r><w:t>Source.</w:t></w:r></w:p></w:footnote>'
    notes = f"<w:footnotes {names}>{note}</w:footnotes>"
    content = saved(document)
    with zipfile.ZipFile(io.BytesIO(content)) as made:
        links = made.read("word/_rels/document.xml.rels").decode()
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes"
    link = f'<Relationship Id="n1" Type="{kind}" Target="footnotes.xml"/></Relationships>'
    changed = {
        "word/_rels/document.xml.rels": links.replace("</Relationships>", link).encode(),
        "word/footnotes.xml": notes.encode(),
    }
    assert read(repacked(content, **changed)).text == "Claim[^1]\n\n[^1]: Source.\n\nNext"


def test_merged_cells_say_their_text_in_each_row_and_column() -> None:
    document = docx.Document()
    table = document.add_table(rows=3, cols=3)
    for row in range(3):
        for column in range(3):
            table.cell(row, column).text = f"{row}{column}"
    table.cell(0, 0).merge(table.cell(0, 1)).text = "both"
    table.cell(1, 0).merge(table.cell(2, 0)).text = "down"
    assert read(saved(document)).text.split("\n") == [
        "| both | both | 02 |",
        "| --- | --- | --- |",
        "| down | 11 | 12 |",
        "| down | 21 | 22 |",
    ]


def test_a_title_merged_over_a_table_stands_above_it() -> None:
    document = docx.Document()
    table = document.add_table(rows=3, cols=2)
    for row, texts in enumerate((("", ""), ("Plan", "Price"), ("Basic", "10"))):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    table.cell(0, 0).merge(table.cell(0, 1)).text = "Prices 2026"
    assert outline(read(saved(document))) == [
        ("paragraph", 0, "Prices 2026"),
        ("table", 0, "| Plan | Price |\n| --- | --- |\n| Basic | 10 |"),
    ]


def test_a_table_of_one_cell_is_a_frame_around_its_text() -> None:
    document = docx.Document()
    frame = document.add_table(rows=1, cols=1).cell(0, 0)
    frame.text = "framed"
    inner = frame.add_table(rows=2, cols=2)
    for cell, text in zip((c for r in inner.rows for c in r.cells), "abcd", strict=True):
        cell.text = text
    assert outline(read(saved(document))) == [
        ("paragraph", 0, "framed"),
        ("table", 0, "| a | b |\n| --- | --- |\n| c | d |"),
    ]


def test_hidden_text_is_left_out_and_formulas_are_read() -> None:
    document = docx.Document()
    names = nsdecls("w")
    math = 'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
    paragraph = document.add_paragraph("seen ")._p
    paragraph.append(parse_xml(f"<w:r {names}><w:rPr><w:vanish/></w:rPr><w:t>unseen</w:t></w:r>"))
    paragraph.append(parse_xml(f"<m:oMath {math}><m:r><m:t>x=1</m:t></m:r></m:oMath>"))
    assert read(saved(document)).text == "seen x=1"


def test_an_embedded_document_is_a_section_at_the_end() -> None:
    inner = docx.Document()
    inner.add_paragraph("embedded words")
    document = docx.Document()
    document.add_paragraph("outer words")
    content = saved(document)
    with zipfile.ZipFile(io.BytesIO(content)) as made:
        links = made.read("word/_rels/document.xml.rels").decode()
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/package"
    link = f'<Relationship Id="e1" Type="{kind}" Target="embeddings/one.docx"/></Relationships>'
    changed = {
        "word/_rels/document.xml.rels": links.replace("</Relationships>", link).encode(),
        "word/embeddings/one.docx": saved(inner),
    }
    assert outline(read(repacked(content, **changed))) == [
        ("paragraph", 0, "outer words"),
        ("heading", 1, "one.docx"),
        ("paragraph", 0, "embedded words"),
    ]


def test_a_package_with_a_password_is_encrypted() -> None:
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + "EncryptedPackage".encode("utf-16-le")
    assert reason(ole) == "encrypted"


def test_a_document_without_text_is_empty() -> None:
    assert reason(saved(docx.Document())) == "empty"
