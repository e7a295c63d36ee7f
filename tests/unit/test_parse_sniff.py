from __future__ import annotations

import io
import zipfile

import pytest

from ingestion.errors import UnsupportedType
from ingestion.parse import EXTENSIONS, sniff

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
JUNK = bytes(range(256)) * 8


def archive(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as package:
        for name in names:
            package.writestr(name, "x")
    return out.getvalue()


def odf(kind: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as package:
        package.writestr("mimetype", f"application/vnd.oasis.opendocument.{kind}")
        package.writestr("content.xml", "x")
    return out.getvalue()


DOCX = archive("[Content_Types].xml", "word/document.xml")


def refusal(content: bytes, filename: str | None, media_type: str | None = None) -> str:
    with pytest.raises(UnsupportedType) as caught:
        sniff(content, filename, media_type)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "filename", "media_type", "expected"),
    [
        (b"%PDF-1.7\n", "a.pdf", None, "pdf"),
        (b"%PDF-1.7\n", None, None, "pdf"),
        (b"junk before\n%PDF-1.7\n", "a.PDF", None, "pdf"),
        (DOCX, "a.docx", "application/octet-stream", "docx"),
        (DOCX, "upload", None, "docx"),
        (b"plain", "a.txt", None, "text"),
        (b"plain", None, "text/plain", "text"),
        (b"plain", None, "text/plain; charset=latin-1", "text"),
        (b"plain", None, None, "text"),
        (b"plain", "README", None, "text"),
        (b"plain", "notes 1.2", None, "text"),
        (b"plain", "server.log.7x", "text/plain", "text"),
        (b"# Title", "a.md", "text/plain", "markdown"),
        (b"<p>hi", "a.htm", None, "html"),
        (b"<!DOCTYPE html><p>hi", None, None, "html"),
        (b"<!DOCTYPE html><p>hi", "a.txt", None, "text"),
        (b"The header of a PDF is %PDF-1.7", "a.txt", None, "text"),
        (b"MZ and BM are initials.", "a.txt", None, "text"),
        ("UTF-16 text".encode("utf-16"), "a.txt", None, "text"),
        ("UTF-16 text without a mark".encode("utf-16-le"), "a.txt", None, "text"),
        ("Grüße aus Köln".encode("cp1252"), "a.txt", None, "text"),
        ("Привет, мир".encode("cp1251"), "a.txt", None, "text"),
        (OLE + "WordDocument".encode("utf-16-le"), "a.doc", None, "doc"),
        (OLE + "WordDocument".encode("utf-16-le"), None, None, "doc"),
        (archive("ppt/presentation.xml"), "a.pptx", None, "pptx"),
        (archive("ppt/presentation.xml"), "a.zip", None, "pptx"),
        (archive("xl/workbook.xml"), None, None, "xlsx"),
        (archive("my-word/document.xml", "a.txt"), "a.zip", None, "zip"),
        (archive("a.txt"), None, None, "zip"),
        (archive("META-INF/container.xml"), "a.epub", None, "epub"),
        (odf("text"), "a.odt", None, "odt"),
        (odf("spreadsheet"), None, None, "ods"),
        (odf("presentation-template"), "a.otp", None, "odp"),
        (archive("content.xml", "META-INF/manifest.xml"), "a.ods", None, "ods"),
        (b"a,b", "a.csv", "application/vnd.ms-excel", "delimited"),
        (b"a\tb", None, "text/tab-separated-values", "delimited"),
        (b"a,b", None, None, "text"),
        (b'{"a": 1}', "a.jsonl", None, "json"),
        (b'{"a": 1}', None, None, "text"),
        ('{"a": 1}'.encode("utf-16"), "a.json", None, "json"),
        (b"From: a@b.test\n\nHi", "a.eml", None, "mail"),
        (b"From: a@b.test\n\nHi", None, "message/rfc822", "mail"),
        (b"", "a.pdf", None, "pdf"),
        (b"", None, "text/plain", "text"),
    ],
)
def test_a_file_is_read_as_what_it_is(
    content: bytes, filename: str | None, media_type: str | None, expected: str
) -> None:
    assert sniff(content, filename, media_type) == expected


def test_an_image_named_pdf_is_refused_with_what_it_is_and_what_is_read() -> None:
    message = refusal(PNG, "invoice.pdf", "application/pdf")
    assert "invoice.pdf" in message
    assert "says it is PDF" in message
    assert "a PNG image" in message
    assert "DOCX (.docx .docm .dotx)" in message


@pytest.mark.parametrize(
    ("content", "filename", "says"),
    [
        (b"just text", "a.pdf", "plain text"),
        (DOCX, "a.pdf", "DOCX"),
        (b"%PDF-1.7\n", "a.docx", "PDF"),
        (b"%PDF-1.7\n", "a.txt", "PDF"),
        (archive("xl/workbook.xml"), "a.docx", "XLSX"),
        (archive("xl/workbook.bin"), "a.xlsx", "a binary Excel workbook"),
        (archive("holiday.jpg"), "a.docx", "ZIP"),
        (archive("holiday.jpg"), "a.epub", "ZIP"),
        (archive("META-INF/MANIFEST.MF"), "a.zip", "a Java archive"),
        (b"{\\rtf1 hello}", "a.txt", "an RTF document"),
        (b"\x7fELF" + bytes(50), "a.txt", "a program"),
        (JUNK, "a.txt", "no type we know"),
        (JUNK, None, "binary data of no known type"),
        (b"a,b\n1,2\n", "a.xyz", "'.xyz', which is not read"),
        (JUNK, "a.csv", "no type we know"),
        (PNG, "a.eml", "a PNG image"),
        (b"hello", "a.json", "text that is no JSON"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused_with_a_sentence(
    content: bytes, filename: str | None, says: str
) -> None:
    assert says in refusal(content, filename)


@pytest.mark.parametrize(
    ("stream", "filename", "way"),
    [
        ("", "letter.docx", "save as DOCX"),
        ("WordDocument", "letter.docx", "save as DOCX"),
        ("", "letter.doc", "save as DOCX"),
        ("Workbook", "a.xls", "save as XLSX"),
        ("", "a.xls", "save as XLSX"),
        ("PowerPoint Document", "a.pptx", "save as PPTX"),
        ("__substg1.0_001A", "a.msg", "Save it as EML"),
        ("EncryptedPackage", None, "with a password"),
    ],
)
def test_an_old_office_file_is_refused_with_the_way_out(stream: str, filename: str | None, way: str) -> None:
    assert way in refusal(OLE + stream.encode("utf-16-le"), filename)


@pytest.mark.parametrize("kind", ["docx", "pptx", "xlsx"])
def test_an_office_file_with_a_password_is_left_to_the_parser_to_report(kind: str) -> None:
    assert sniff(OLE + "EncryptedPackage".encode("utf-16-le"), f"a.{kind}", None) == kind


def test_a_damaged_docx_is_left_to_the_parser_to_report() -> None:
    assert sniff(DOCX[:30], "a.docx", None) == "docx"
    assert "damaged ZIP" in refusal(DOCX[:30], "a")


def test_a_refusal_shows_no_folder_and_no_control_characters() -> None:
    message = refusal(PNG, "/home/somebody/secret/a\x1b[31m.pdf")
    assert "secret" not in message
    assert "\x1b" not in message


def test_the_command_line_picks_the_endings_that_are_read() -> None:
    assert {".txt", ".md", ".html", ".pdf", ".docx"} <= EXTENSIONS
    assert {".pptx", ".xlsx", ".odt", ".epub", ".csv", ".jsonl", ".eml", ".zip"} <= EXTENSIONS
    assert not {".xls", ".ppt", ".png", ""} & EXTENSIONS
