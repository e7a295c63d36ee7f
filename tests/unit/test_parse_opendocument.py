from __future__ import annotations

import pytest

from ingestion.errors import Quarantined
from tests.packages import outline, package, read, texts

URN = "urn:oasis:names:tc:opendocument:xmlns"
NAMES = " ".join(
    f'xmlns:{prefix}="{URN}:{name}:1.0"'
    for prefix, name in (
        ("office", "office"),
        ("text", "text"),
        ("table", "table"),
        ("draw", "drawing"),
        ("presentation", "presentation"),
    )
)


def document(kind: str, body: str, styles: str = "", **parts: str) -> bytes:
    content = (
        f"<office:document-content {NAMES}><office:automatic-styles>{styles}</office:automatic-styles>"
        f"<office:body><office:{kind}>{body}</office:{kind}></office:body></office:document-content>"
    )
    return package(
        {
            "mimetype": f"application/vnd.oasis.opendocument.{kind}",
            "content.xml": content,
            "META-INF/manifest.xml": "<manifest/>",
            **parts,
        }
    )


def cell(words: str, more: str = "") -> str:
    return f"<table:table-cell {more}><text:p>{words}</text:p></table:table-cell>"


def row(*cells: str) -> str:
    return f"<table:table-row>{''.join(cells)}</table:table-row>"


COVERED = "<table:covered-table-cell/>"


def test_text_comes_in_its_flow_with_headings_lists_and_notes() -> None:
    body = (
        '<text:h text:outline-level="1">Guide</text:h>'
        "<text:tracked-changes><text:p>struck out</text:p></text:tracked-changes>"
        '<text:p>Two<text:s text:c="2"/>spaces<text:note><text:note-citation>1</text:note-citation>'
        "<text:note-body><text:p>A note.</text:p></text:note-body></text:note> end"
        "<office:annotation><text:p>a comment</text:p></office:annotation></text:p>"
        '<text:list text:style-name="L"><text:list-item><text:p>one</text:p></text:list-item>'
        "<text:list-item><text:p>two</text:p><text:list><text:list-item><text:p>in</text:p></text:list-item>"
        "</text:list></text:list-item></text:list>"
        "<text:section><text:p>tail</text:p></text:section>"
    )
    numbered = (
        '<text:list-style text:name="L"><text:list-level-style-number text:level="1"/></text:list-style>'
    )
    parsed = read(document("text", body, numbered), "a.odt")
    assert parsed.title == "Guide"
    assert outline(parsed) == [
        ("heading", 1, "Guide"),
        ("paragraph", 0, "Two  spaces[^1] end"),
        ("paragraph", 0, "[^1]: A note."),
        ("list", 0, "1. one\n2. two\n  - in"),
        ("paragraph", 0, "tail"),
    ]


def test_a_table_repeats_merged_cells_in_each_row_and_column() -> None:
    spanned = 'table:number-columns-spanned="2"'
    down = 'table:number-rows-spanned="2"'
    table = "".join(
        (
            row(cell("Both", spanned), COVERED, cell("Third")),
            row(cell("down", down), cell("1"), cell("2")),
            row(COVERED, cell("3"), cell("4", down)),
            row(cell("wide", spanned), COVERED, COVERED),
        )
    )
    parsed = read(document("text", f"<table:table>{table}</table:table>"), "a.odt")
    assert parsed.text.split("\n") == [
        "| Both | Both | Third |",
        "| --- | --- | --- |",
        "| down | 1 | 2 |",
        "| down | 3 | 4 |",
        "| wide | wide | 4 |",
    ]


def test_sheets_are_read_as_shown_and_a_million_empty_rows_cost_nothing() -> None:
    cells = '<table:table-cell table:number-columns-repeated="16384"/>'
    empty = f'<table:table-row table:number-rows-repeated="1048000">{cells}</table:table-row>'
    shown = '<table:table-cell office:value="0.5"><text:p>50 %</text:p></table:table-cell>'
    bare = '<table:table-cell office:value="3"/>'
    twice = '<table:table-row table:number-rows-repeated="2">' + cell("x") + bare + "</table:table-row>"
    rows = row(cell("Name"), cell("Share")) + row(cell("a"), shown) + twice + empty
    first = f'<table:table table:name="Sales">{rows}</table:table>'
    second = f'<table:table table:name="Notes">{empty}{row(cell("alone"))}</table:table>'
    parsed = read(document("spreadsheet", first + second), "a.ods")
    assert [(b.page, text) for b, text in zip(parsed.blocks, texts(parsed), strict=True)] == [
        (1, "Sales"),
        (1, "| Name | Share |\n| --- | --- |\n| a | 50 % |\n| x | 3 |\n| x | 3 |"),
        (2, "Notes"),
        (2, "alone"),
    ]


def test_repeated_cells_that_would_fill_memory_are_refused() -> None:
    wide = cell("x", 'table:number-columns-repeated="16384"')
    many = f'<table:table-row table:number-rows-repeated="1048576">{wide}</table:table-row>'
    with pytest.raises(Quarantined) as caught:
        read(document("spreadsheet", f'<table:table table:name="S">{many}</table:table>'), "a.ods")
    assert (caught.value.reason, caught.value.part) == ("too_large", "sheet 1")


def test_slides_come_under_their_titles_with_their_notes() -> None:
    def frame(words: str, kind: str = "") -> str:
        return f"<draw:frame {kind}><draw:text-box><text:p>{words}</text:p></draw:text-box></draw:frame>"

    first = (
        frame("Opening", 'presentation:class="title"')
        + "<draw:g><draw:custom-shape><text:p>in a group</text:p></draw:custom-shape></draw:g>"
        + frame("7", 'presentation:class="page-number"')
        + f"<presentation:notes>{frame('Say hello.')}</presentation:notes>"
    )
    body = f"<draw:page>{first}</draw:page><draw:page>{frame('Second')}</draw:page>"
    parsed = read(document("presentation", body), "a.odp")
    assert [(b.page, text) for b, text in zip(parsed.blocks, texts(parsed), strict=True)] == [
        (1, "Opening"),
        (1, "in a group"),
        (1, "Notes: Say hello."),
        (2, "Slide 2"),
        (2, "Second"),
    ]


def test_a_document_with_a_password_is_encrypted_and_one_without_content_damaged() -> None:
    locked = "<manifest><file-entry><encryption-data/></file-entry></manifest>"
    for parts, reason in (
        ({"META-INF/manifest.xml": locked}, "encrypted"),
        ({"content.xml": "<office"}, "damaged"),
        ({"content.xml": "<office/>"}, "damaged"),
    ):
        with pytest.raises(Quarantined) as caught:
            read(document("text", "<text:p>x</text:p>", **parts), "a.odt")
        assert caught.value.reason == reason
