from __future__ import annotations

import pytest

from ingestion.errors import Quarantined
from ingestion.parse import parse
from ingestion.types import Parsed

PAGE = """<!doctype html><html><head><title>Leave - Acme</title><style>p{}</style></head>
<body><nav>Home Products</nav><header><p>Acme banner</p></header>
<main><article><header><h1>Leave <em>policy</em><a href="#l">¶</a></h1></header>
<p>Paid   leave is
<b>25</b>&nbsp;days.<br>Ask early.<span hidden>HIDDEN</span><i style="display: none">GONE</i></p>
Loose text
<ul><li><p>one</p></li><li>two<ol><li>sub a<li>sub b</ol></li></ul>
<table><caption>Prices</caption><tr><th>Plan<th>Price | net</tr><tr><td>Basic<td>10<br>EUR</tr></table>
<pre>if x:
    y</pre>
<table><tr><td><h2>Framed</h2><p>by a layout table</p></td></tr></table>
<script>evil()</script></article></main>
<aside>Related</aside><footer>Imprint</footer></body></html>"""


def outline(parsed: Parsed) -> list[tuple[str, int, str]]:
    return [(b.kind, b.level, parsed.text[b.span.start : b.span.end]) for b in parsed.blocks]


def read(text: str) -> Parsed:
    return parse(text.encode(), "a.html", None)


def test_the_main_content_keeps_its_structure_and_nothing_else_is_read() -> None:
    assert outline(read(PAGE)) == [
        ("heading", 1, "Leave policy"),
        ("paragraph", 0, "Paid leave is 25 days.\nAsk early."),
        ("paragraph", 0, "Loose text"),
        ("list", 0, "- one\n- two\n  1. sub a\n  2. sub b"),
        ("paragraph", 0, "Prices"),
        ("table", 0, "| Plan | Price \\| net |\n| --- | --- |\n| Basic | 10 EUR |"),
        ("code", 0, "if x:\n    y"),
        ("heading", 2, "Framed"),
        ("paragraph", 0, "by a layout table"),
    ]


def tables(text: str) -> list[str]:
    return [text for kind, _, text in outline(read(text)) if kind == "table"]


def test_cells_over_rows_and_columns_are_in_each_of_them() -> None:
    assert tables(
        "<table><tr><th>Year<th>Month<th colspan=2>Cost</tr>"
        "<tr><td rowspan=2>2025<td>May<td>1<td>2</tr><tr><td>June<td>3<td>4</tr></table>"
    ) == [
        "| Year | Month | Cost | Cost |\n| --- | --- | --- | --- |\n"
        "| 2025 | May | 1 | 2 |\n| 2025 | June | 3 | 4 |"
    ]


def test_a_title_across_a_table_is_there_once() -> None:
    assert tables("<table><tr><th colspan=3>All<tr><td>a<td>b<td>c</table>") == [
        "| All |  |  |\n| --- | --- | --- |\n| a | b | c |"
    ]


def test_lists_and_tables_in_a_cell_are_its_text() -> None:
    assert tables(
        "<table><tr><td>A<td>B<tr><td><ul><li>x<li>y</ul><ol><li>z</ol><td>"
        "<table><tr><td>1<td>2<tr><td>3<td>4</table></table>"
    ) == ["| A | B |\n| --- | --- |\n| - x - y 1. z | 1 2 3 4 |"]


def test_a_table_that_lays_out_a_page_is_no_table() -> None:
    page = "<table><tr><td><a href=a>Menu</a><td><p>One.</p><p>" + "Long text. " * 200 + "</p></table>"
    assert [kind for kind, _, _ in outline(read(page))] == ["paragraph"] * 3
    assert tables('<table role="presentation"><tr><td>a<td>b<tr><td>c<td>d</table>') == []


def test_terms_are_items_and_what_they_mean_is_below_them() -> None:
    page = "<dl><dt>Coffee</dt><dd>Black</dd><dt>Milk</dt><dd><dl><dt>Whole</dt><dd>3.5 %</dd></dl></dd></dl>"
    assert outline(read(page)) == [("list", 0, "- Coffee\n  - Black\n- Milk\n  - Whole\n    - 3.5 %")]


PROSE = "<p>" + "The gateway answers every request within its deadline, or says why it cannot. " * 10 + "</p>"
MENU = "".join(f'<li><a href="/{n}">Entry number {n}</a></li>' for n in range(12))


@pytest.mark.parametrize(
    "clutter",
    [
        f"<div class='site-menu'><ul>{MENU}</ul></div>",
        f"<ul>{MENU}</ul>",
        "<div id='cookieConsent'>We use cookies to improve your visit. Accept all?</div>",
        "<div class='breadcrumb'>Home / Products / Gateway</div>",
        "<section class='advertisement'>Buy one, get one.</section>",
        "<div role='search'>Find it</div>",
    ],
)
def test_menus_notices_and_advertisements_are_left_out(clutter: str) -> None:
    parsed = read(f"<body>{clutter}<h1>Gateway</h1>{PROSE}{clutter}</body>")
    assert parsed.text == "Gateway\n\n" + read(PROSE).text


@pytest.mark.parametrize(
    "kept",
    [
        f"<article><h2>See also</h2><ul>{MENU}</ul></article>",
        "<section id='related-work'><h2>Related work</h2>" + PROSE + "</section>",
        "<div class='share-prices'>" + PROSE + "</div>",
    ],
)
def test_content_with_the_name_or_the_look_of_clutter_stays(kept: str) -> None:
    parsed = read(f"<body><h1>Gateway</h1>{PROSE}{kept}</body>")
    assert len(parsed.text) >= len(read(PROSE).text) + len(read(kept).text)


def test_a_page_that_is_a_list_of_links_keeps_them() -> None:
    assert read(f"<body><h1>Index</h1><ul>{MENU * 5}</ul></body>").text.count("Entry number") == 60


def test_little_pages_are_kept_whole() -> None:
    assert read("<div class='banner'>Open today</div><p>Bread</p>").text == "Open today\n\nBread"


def test_sentences_of_the_footer_come_last() -> None:
    licence = "The text may be used under the licence CC BY-SA 4.0; further terms of the house apply to it."
    page = f"<body><main>{PROSE}</main><footer><ul>{MENU}</ul><p>{licence}</p><p>Imprint</p></footer></body>"
    parsed = read(page)
    assert parsed.text == read(PROSE).text + "\n\n" + licence


def test_the_title_is_the_only_main_heading_else_that_of_the_page() -> None:
    assert read(PAGE).title == "Leave policy"
    assert read("<title>Page</title><h1>a</h1><h1>b</h1>").title == "Page"
    assert read("<p>nothing</p>").title is None


def test_a_page_that_is_all_frame_is_read_all_the_same() -> None:
    assert read("<body><header><p>Only this</p></header></body>").text == "Only this"


@pytest.mark.parametrize(
    "declaration", ['<meta charset="cp1251">', "<meta content='text/html; charset=cp1251'>"]
)
def test_the_declared_charset_is_used(declaration: str) -> None:
    content = (f"<html><head>{declaration}</head><body>" + "<p>Ёж</p>").encode("cp1251")
    assert parse(content, "a.html", None).text == "Ёж"


def test_code_keeps_its_indentation() -> None:
    assert read("<p>See:</p><pre>\n    first\n  second</pre>").text == "See:\n\n    first\n  second"


def test_broken_markup_keeps_its_text_in_order() -> None:
    text = read("<p>one<div>two</p><li>three</b></table><p>four<h2>five").text
    assert text.split() == ["one", "two", "three", "four", "five"]


def test_deep_nesting_is_no_danger() -> None:
    assert read("<div>" * 3_000 + "<ul><li>" * 500 + "deep").text.endswith("deep")


def test_a_page_of_scripts_is_empty() -> None:
    with pytest.raises(Quarantined) as caught:
        read("<html><script>var a = 1</script></html>")
    assert caught.value.reason == "empty"
