from __future__ import annotations

import base64
import io
from email.message import EmailMessage

import docx
import pytest

from ingestion.errors import Quarantined
from tests.packages import outline, package, read, texts


def letter(subject: str = "Grüße", body: str = "See below.\n") -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Ann <ann@x.test>"
    message["To"] = "bob@x.test"
    message["Date"] = "Fri, 16 Dec 2022 17:04:16 -0500"
    message["Subject"] = subject
    message["X-Mailer"] = "boilerplate"
    message.set_content(body)
    return message


def word(text: str) -> bytes:
    out = io.BytesIO()
    document = docx.Document()
    document.add_heading("Inside", 1)
    document.add_paragraph(text)
    document.save(out)
    return out.getvalue()


HEAD = "From: Ann <ann@x.test>\nTo: bob@x.test\nDate: Fri, 16 Dec 2022 17:04:16 -0500"


def test_a_message_is_its_subject_its_headers_and_its_text() -> None:
    parsed = read(letter().as_bytes(), "a.eml")
    assert parsed.title == "Grüße"
    assert outline(parsed) == [
        ("heading", 1, "Grüße"),
        ("paragraph", 0, HEAD),
        ("paragraph", 0, "See below."),
    ]


def test_of_two_forms_the_richer_is_read_and_of_the_other_what_it_lacks() -> None:
    message = letter(body="See the table https://x.test/abc here.\n\nOnly in plain.\n")
    rows = "<tr><td>a</td><td>b</td></tr><tr><td>1</td><td>2</td></tr>"
    page = f"<p>See the <b>table</b> here.</p><table>{rows}</table>"
    message.add_alternative(page, subtype="html")
    assert texts(read(message.as_bytes(), "a.eml"))[2:] == [
        "Only in plain.",
        "See the table here.",
        "| a | b |\n| --- | --- |\n| 1 | 2 |",
    ]


def test_attachments_are_read_by_their_own_readers_and_the_others_named() -> None:
    message = letter()
    message.add_attachment(
        word("from Word"), maintype="application", subtype="octet-stream", filename="a.docx"
    )
    message.add_attachment(b"x,y\n1,2\n", maintype="text", subtype="csv", filename="b.csv")
    message.add_attachment(
        b"\x89PNG\r\n\x1a\n" + bytes(40), maintype="image", subtype="png", filename="c.png"
    )
    parsed = read(message.as_bytes(), "a.eml")
    assert outline(parsed)[3:-1] == [
        ("heading", 2, "a.docx"),
        ("heading", 3, "Inside"),
        ("paragraph", 0, "from Word"),
        ("heading", 2, "b.csv"),
        ("table", 0, "| x | y |\n| --- | --- |\n| 1 | 2 |"),
    ]
    assert texts(parsed)[-1].startswith("Not read:\n- c.png: The file 'c.png'")
    assert "PDF (.pdf)" not in parsed.text


def test_a_forwarded_message_is_a_section_with_its_own_headers() -> None:
    message = letter("Outer")
    message.add_attachment(letter("Inner", "The inner text."))
    parsed = read(message.as_bytes(), "a.eml")
    assert ("heading", 3, "Inner") in outline(parsed)
    assert texts(parsed)[-1] == "The inner text."


def test_messages_within_messages_end_somewhere() -> None:
    message = letter("0", "text 0")
    for n in range(1, 8):
        outer = letter(str(n), f"text {n}")
        outer.add_attachment(message)
        message = outer
    parsed = read(message.as_bytes(), "a.eml")
    assert {"text 7", "text 6", "text 5"} <= set(texts(parsed))
    assert "text 3" not in parsed.text
    assert "too deep" in parsed.text


def test_broken_headers_and_encodings_are_read_as_far_as_they_go() -> None:
    source = (
        b"From someone Wed Aug  3 17:55:19 2011\n"
        b"Subject: =?utf-9?B?broken?= and =?utf-8?q?fine_=C3=BC?=\nFrom: \xff\xfe raw\n"
        b"Content-Type: text/plain; charset=no-such-thing\nContent-Transfer-Encoding: base64\n\n"
        b"UGxhaW4gdGV4dA\n"
    )
    parsed = read(source, "a.eml")
    assert "fine ü" in parsed.text
    assert texts(parsed)[-1] == "Plain text"


@pytest.mark.parametrize(
    ("named", "used", "words"),
    [
        ("iso-2022-jp", "iso-2022-jp", "これは短い手紙です"),
        ("iso-8859-8-i", "iso-8859-8", "שלום עולם"),
        ("gb2312", "gb18030", "短信"),
        ("windows-874", "cp874", "สวัสดี"),
    ],
)
def test_the_encodings_of_letters_are_read_by_the_names_that_programs_give_them(
    named: str, used: str, words: str
) -> None:
    word = base64.b64encode(words.encode(used)).decode()
    head = f"Subject: =?{named}?B?{word}?=\nContent-Type: text/plain; charset={named}\n\n".encode()
    assert texts(read(head + words.encode(used), "a.eml")) == [words, words]
    page = head.replace(b"text/plain", b"text/html") + f"<p>{words}</p>".encode(used)
    assert texts(read(page, "a.eml")) == [words, words]


def test_flowed_lines_are_joined() -> None:
    source = b"Subject: x\nContent-Type: text/plain; format=flowed\n\nOne sentence \ngoes on.\n\nNext.\n"
    assert texts(read(source, "a.eml"))[1:] == ["One sentence goes on.", "Next."]


def test_a_message_without_anything_is_empty() -> None:
    with pytest.raises(Quarantined) as caught:
        read(b"  \n\n   \n", "a.eml")
    assert caught.value.reason == "empty"


def test_an_archive_in_a_message_is_opened() -> None:
    message = letter()
    message.add_attachment(
        package({"in.txt": "in the archive"}), maintype="application", subtype="zip", filename="z.zip"
    )
    assert texts(read(message.as_bytes(), "a.eml"))[-3:] == ["z.zip", "in.txt", "in the archive"]
