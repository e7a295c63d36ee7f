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
