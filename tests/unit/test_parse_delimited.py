from __future__ import annotations

from pathlib import Path

import pytest

from ingestion.errors import Quarantined
from ingestion.parse import parse
from tests.packages import read

PAIRS = Path(__file__).resolve().parents[3] / "shared" / "data" / "docling-pairs" / "csv"


def cells(text: str) -> list[list[str]]:
    """The cells of a Markdown table, its line of dashes left out."""
    lines = [line for line in text.split("\n") if line]
    return [[c.strip() for c in line[1:-1].split(" | ")] for at, line in enumerate(lines) if at != 1]


def table(source: str | bytes, filename: str = "a.csv") -> list[list[str]]:
    return cells(read(source if isinstance(source, bytes) else source.encode(), filename).text)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found(separator: str) -> None:
    rows = [["Name", "City"], ["Ann", "Bern"], ["Bob", "Oslo"]]
    assert table("\n".join(separator.join(row) for row in rows)) == rows


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a;b\n1,5;2,5\n3,25;4,75\n", [["a", "b"], ["1,5", "2,5"], ["3,25", "4,75"]]),
        (
            "Name;Home\nRoe, J;Elm, 5\nPoe, E;Oak, 7\n",
            [["Name", "Home"], ["Roe, J", "Elm, 5"], ["Poe, E", "Oak, 7"]],
        ),
        ("When,What\n10:30,a|b\n11:30,c|d\n", [["When", "What"], ["10:30", "a\\|b"], ["11:30", "c\\|d"]]),
        ("1,5;2,5\n3,25;4,75\n", [["1,5", "2,5"], ["3,25", "4,75"]]),
        ("sep=;\na;b\n1;2\n", [["a", "b"], ["1", "2"]]),
        ("One, two\nA, b, c\nSix\n", [["One", "two", ""], ["A", "b", "c"], ["Six", "", ""]]),
        ("Industry\nFood\nSteel\n", [["Industry"], ["Food"], ["Steel"]]),
    ],
)
def test_separators_within_cells_do_not_mislead(source: str, expected: list[list[str]]) -> None:
    assert table(source) == expected


def test_quoted_cells_hold_separators_quotes_and_new_lines() -> None:
    source = 'a,b\n"x, y","he said ""no""\nand left"\n'
    assert table(source) == [["a", "b"], ["x, y", 'he said "no" and left']]


def test_a_quotation_mark_that_is_never_closed_swallows_nothing() -> None:
    assert table('a,b\n"x,1\ny,2\nz,3\n') == [["a", "b"], ['"x', "1"], ["y", "2"], ["z", "3"]]
    assert table('size,n\n5" pipe,1\ny,2\n') == [["size", "n"], ['5" pipe', "1"], ["y", "2"]]


def test_ragged_rows_lose_no_cell() -> None:
    assert table("a,b\n1\n1,2,3\n") == [["a", "b", ""], ["1", "", ""], ["1", "2", "3"]]


def test_any_encoding_is_read() -> None:
    rows = [["Straße", "Ort"], ["Königsallee", "Düsseldorf"], ["Mühlweg", "Köln"]]
    source = "\n".join(";".join(row) for row in rows)
    for encoding in ("utf-8-sig", "utf-16", "cp1252"):
        assert table(source.encode(encoding)) == rows


def test_a_tsv_keeps_its_commas() -> None:
    assert table("a,b\tc,d\n1,2\t3,4\n", "a.tsv") == [["a,b", "c,d"], ["1,2", "3,4"]]


def test_the_header_is_marked_for_the_chunks_that_follow() -> None:
    parsed = read(b"a,b\n1,2\n3,4\n", "a.csv")
    (block,) = parsed.blocks
    assert block.header is not None
    assert parsed.text[block.header.start : block.header.end] == "| a | b |\n| --- | --- |\n"


def test_a_table_that_would_be_far_larger_than_its_file_is_refused() -> None:
    with pytest.raises(Quarantined) as caught:
        parse(b"x" + b"," * 30_000 + b"\n" + b"y\n" * 30_000, "a.csv", None)
    assert caught.value.reason == "too_large"


@pytest.mark.skipif(not PAIRS.is_dir(), reason="docling-pairs: ../shared/data is absent")
def test_every_cell_of_the_docling_pairs_is_where_it_should_be() -> None:
    sources = sorted(PAIRS.glob("*.csv"))
    assert sources
    for source in sources:
        expected = source.with_name(source.name + ".expected.md").read_text()
        found = table(source.read_bytes(), source.name)
        # A bar in a cell is written in another way there, and a tab in one is kept.
        assert found == cells(expected.replace("&#124;", "\\|").replace("\t", " ")), source.name
