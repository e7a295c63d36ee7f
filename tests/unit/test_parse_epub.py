from __future__ import annotations

import pytest

from ingestion.errors import Quarantined
from tests.packages import outline, package, read, texts

CONTAINER = '<container><rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>'


def chapter(heading: str, words: str) -> str:
    return f"<html><head><title>Book</title></head><body><h1>{heading}</h1><p>{words}</p></body></html>"


def book(**parts: str) -> bytes:
    items = (
        ("nav", "nav.xhtml", 'properties="nav"'),
        ("b", "two%20b.xhtml", ""),
        ("a", "text/one.xhtml", ""),
    )
    listed = "".join(
        f'<item id="{key}" href="{href}" media-type="application/xhtml+xml" {more}/>'
        for key, href, more in items
    )
    opf = (
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<dc:title>The Book</dc:title></metadata><manifest>{listed}</manifest>"
        '<spine><itemref idref="nav"/><itemref idref="a"/><itemref idref="b" linear="no"/></spine></package>'
    )
    return package(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": CONTAINER,
            "OPS/book.opf": opf,
            "OPS/nav.xhtml": chapter("Contents", "One, Two"),
            "OPS/two b.xhtml": chapter("Two", "Later."),
            "OPS/text/one.xhtml": chapter("One", "It began."),
            **parts,
        }
    )


def test_chapters_come_in_reading_order_without_the_navigation() -> None:
    parsed = read(book(), "a.epub")
    assert parsed.title == "The Book"
    assert outline(parsed) == [
        ("heading", 1, "One"),
        ("paragraph", 0, "It began."),
        ("heading", 1, "Two"),
        ("paragraph", 0, "Later."),
    ]


def test_a_protected_chapter_is_encrypted_and_a_scrambled_font_is_not() -> None:
    def locked(name: str) -> dict[str, str]:
        return {"META-INF/encryption.xml": f'<encryption><CipherReference URI="{name}"/></encryption>'}

    assert len(texts(read(book(**locked("OPS/font.otf")), "a.epub"))) == 4
    with pytest.raises(Quarantined) as caught:
        read(book(**locked("OPS/two%20b.xhtml")), "a.epub")
    assert caught.value.reason == "encrypted"


def test_a_book_without_its_list_of_parts_is_damaged() -> None:
    with pytest.raises(Quarantined) as caught:
        read(book(**{"META-INF/container.xml": "<container/>"}), "a.epub")
    assert caught.value.reason == "damaged"
