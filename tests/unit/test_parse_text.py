from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.errors import Quarantined, UnsupportedType
from ingestion.parse import parse
from ingestion.types import Parsed

GERMAN = "Der Käse kostet 15 € und schmeckt süß.\n\nEr reift 90 Tage im Keller über dem Fluß.\n"


def blocks(parsed: Parsed) -> list[str]:
    return [parsed.text[b.span.start : b.span.end] for b in parsed.blocks]


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "cp1252"],
)
def test_text_reads_the_same_in_every_encoding(encoding: str) -> None:
    assert parse(GERMAN.encode(encoding), "a.txt", None).text == GERMAN


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Это обычный русский текст о погоде и о природе. Сегодня хорошая погода.", "cp1251"),
        ("Это обычный русский текст о погоде и о природе. Мы пойдём гулять в парк.", "koi8_r"),
        ("זהו טקסט רגיל בעברית. היום מזג האוויר טוב מאוד ואנחנו הולכים לטייל בפארק.", "iso8859_8"),
        ("هذا نص عادي باللغة العربية. الطقس اليوم جميل جدا وسنذهب للتنزه في الحديقة.", "cp1256"),
        ("这是一个普通的中文文本。今天天气很好，我们去公园散步吧。明天可能会下雨。", "gb18030"),
        ("これは日本語のテキストです。今日はとても良い天気ですね。散歩に行きましょう。", "shift_jis"),
        ("Zażółć gęślą jaźń, proszę bardzo. Łódź leży w środku kraju, święta już minęły.", "cp1250"),
    ],
)
def test_old_encodings_of_other_scripts_are_recognised(text: str, encoding: str) -> None:
    assert parse(text.encode(encoding), "a.txt", None).text == text


def test_a_declared_charset_decides_where_utf_8_does_not_fit() -> None:
    assert parse("ÆØÅ".encode("cp865"), None, "text/plain; charset=cp865").text == "ÆØÅ"
    assert parse("ÆØÅ".encode(), None, "text/plain; charset=cp865").text == "ÆØÅ"
    assert parse(GERMAN.encode("cp1252"), None, "text/plain; charset=no-such").text == GERMAN


def test_paragraphs_are_the_runs_between_blank_lines() -> None:
    parsed = parse(b"one\r\ntwo\r\n\r\n  \r\nthree\r\rfour", "a.txt", None)
    assert parsed.text == "one\ntwo\n\n  \nthree\n\nfour"
    assert blocks(parsed) == ["one\ntwo", "three", "four"]


def test_text_given_as_json_is_read_without_a_name() -> None:
    assert parse(b"hello", None, "text/plain").text == "hello"


def test_html_in_a_text_file_stays_text() -> None:
    assert parse(b"<html><b>x</b>", "a.txt", None).text == "<html><b>x</b>"


@pytest.mark.parametrize("content", [b"", b" \n\t\n", b"\xef\xbb\xbf", "\u2003\n".encode()])
def test_a_text_without_text_is_empty(content: bytes) -> None:
    with pytest.raises(Quarantined) as caught:
        parse(content, "a.txt", None)
    assert caught.value.reason == "empty"


@given(st.text())
def test_any_text_keeps_its_visible_characters_and_has_exact_blocks(text: str) -> None:
    content = text.encode("utf-8", "surrogatepass")
    try:
        parsed = parse(content, None, "text/plain")
    except (Quarantined, UnsupportedType):
        return
    parsed.text.encode()
    assert "\0" not in parsed.text
    assert "".join("".join(blocks(parsed)).split()) == "".join(parsed.text.split())


@given(
    st.binary(max_size=400), st.sampled_from([*"abcde", "a.txt", "a.md", "a.html", "a.docx", "a.pdf", None])
)
def test_any_bytes_end_in_text_or_a_typed_refusal(content: bytes, filename: str | None) -> None:
    try:
        parsed = parse(content, filename, None)
    except (Quarantined, UnsupportedType):
        return
    parsed.text.encode()
    for block in parsed.blocks:
        assert parsed.text[block.span.start : block.span.end].strip()
