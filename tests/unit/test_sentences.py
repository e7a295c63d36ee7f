"""Passages in pieces that can be quoted on their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.sentences import LONGEST, sentences, split


def texts(passage: str) -> list[str]:
    return [piece.text for piece in split(passage)]


@pytest.mark.parametrize(
    ("passage", "pieces"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("It costs EUR 1,200.50 e.g. for Dr. J. Smith. See No. 5.", None),
        ("Version 2.1 is out. It is new.", ["Version 2.1 is out.", "It is new."]),
        ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
        ("今日は晴れ。明日は雨。", ["今日は晴れ。", "明日は雨。"]),
        ("wrapped at a column that is wide enough to be a wrapped\nline of text. Next.", None),
        ("Weight 2.4 kg\nProtection IP65\nRadio LoRa", ["Weight 2.4 kg", "Protection IP65", "Radio LoRa"]),
        ("See [the **handbook**](https://x.example/a) or `make up`.", ["See the handbook or make up."]),
        ('[Terms](/t "All. Of them."), [a](x(y).z) [b](<c d>).', ["Terms, a b."]),
        (
            '[Ask. Then go!]({% page "/go/#how" %}) [Or not]({{ site.url }}/b).',
            ["Ask.", "Then go!", "Or not."],
        ),
        ("[not a link](of two words).", ["[not a link](of two words)."]),
        ("", []),
        (" \n\n ", []),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(passage: str, pieces: list[str] | None) -> None:
    expected = pieces or {
        "It": ["It costs EUR 1,200.50 e.g. for Dr. J. Smith.", "See No. 5."],
        "wr": ["wrapped at a column that is wide enough to be a wrapped line of text.", "Next."],
    }.get(passage[:2], [])
    assert texts(passage) == expected


def test_a_table_row_is_read_with_the_heads_of_its_columns() -> None:
    table = "| Plan | Price |\n|:---|---:|\n| Gold | 29 EUR |\n| a\\|b | |"
    assert texts(table) == ["Plan: Gold; Price: 29 EUR", "Plan: a|b"]


def test_a_row_without_its_table_can_still_be_quoted() -> None:
    assert texts("| Gold | 29 EUR |") == ["Gold; 29 EUR"]


def test_list_items_are_pieces_that_know_what_introduced_them() -> None:
    opening, *items = split(
        "A request must name:\n\n- the dates,\n  both of them\n- the stand-in\n1) the reason"
    )
    assert opening.opens
    assert [item.text for item in items] == ["the dates, both of them", "the stand-in", "the reason"]
    assert all(item.item and item.intro == "A request must name:" for item in items)


def test_a_heading_is_the_context_of_what_follows_and_no_piece() -> None:
    (piece,) = split("## Leave ##\n\nThere are 28 days.")
    assert (piece.text, piece.heading) == ("There are 28 days.", "Leave")


def test_code_stays_together() -> None:
    assert texts("Run:\n```\nmake up\n# then\nmake test\n```\nDone.")[1] == "make up # then make test"


@given(st.text())
def test_any_text_is_split_into_bounded_lines(text: str) -> None:
    for piece in split(text):
        assert piece.text.strip() == piece.text != ""
        assert len(piece.text) <= LONGEST
        assert "\n" not in piece.text


@pytest.mark.parametrize(
    "seed",
    [
        "|",
        "*",
        "`a",
        "[",
        "[a](",
        "[a](<",
        '[a](b "',
        "[a]({%",
        "[a]((",
        "- ",
        "**a",
        ". ",
        "A. ",
        "\n#",
        "x",
        "1. ",
        "｡",
    ],
)
def test_no_text_takes_long(seed: str) -> None:
    """In quadratic time these would run into the limit."""
    assert split(seed * (200_000 // len(seed))) is not None


def test_a_line_that_is_a_known_heading_is_context_and_not_quoted() -> None:
    pieces = split("Cause\n\nThe certificate had expired.\n\nRepair\n\nIt was renewed.", ["Outage", "Repair"])
    assert [(piece.heading, piece.text) for piece in pieces] == [
        ("Cause", "The certificate had expired."),
        ("Repair", "It was renewed."),
    ]


def test_the_title_is_no_context_of_its_first_paragraph() -> None:
    pieces = split("Outage\n\nReviewed in March.", ["Outage", "Cause"])
    assert [(piece.heading, piece.text) for piece in pieces] == [("", "Reviewed in March.")]


def test_a_passage_of_one_short_line_can_be_quoted() -> None:
    assert [piece.text for piece in split("Open from nine to five")] == ["Open from nine to five"]


@pytest.mark.parametrize(
    ("passage", "said"),
    [
        ("It is *unpaid* leave, for _all_ of you.", "It is unpaid leave, for all of you."),
        ("Until 1 \\- 5 May on \\[date\\], see *a\\_b*.", "Until 1 - 5 May on [date], see a_b."),
        ("So 5 * 3 * 2 and my_own_name stay.", "So 5 * 3 * 2 and my_own_name stay."),
        ("Required<br/>For <a href='x'>all</a> <!-- not shown --> here.", "Required For all here."),
        ("Where x < b and y > 3, List<String>.", "Where x < b and y > 3, List<String>."),
        ("See the [rules][travel-3], and Smith [1][3].[^2]", "See the rules, and Smith [1][3]."),
        ('Ping us in {% slack_channel "tock" %}. {% endalert %}', "Ping us in tock."),
        ("In C:\\Users\\me it is.", "In C:\\Users\\me it is."),
    ],
)
def test_markup_is_not_read_aloud(passage: str, said: str) -> None:
    assert " ".join(texts(passage)) == said


def test_code_keeps_its_backslashes_and_stars() -> None:
    assert texts("exit\n```\nPress `ctrl+C`, as [here](#run).")[-1] == "Press ctrl+C, as here."
    assert texts("```\nrun a \\\n  --x=*b* _c_\n```") == ["run a \\ --x=*b* _c_"]


def test_a_question_is_the_context_of_what_follows_it() -> None:
    question, below, after = split("Have a flyer account?\n\nYou keep it.\n\nBook early.")
    assert question.asks
    assert (below.intro, after.intro) == ("Have a flyer account?", "")
    assert not any(piece.asks for piece in split("- Who pays?\n- Nobody."))


def test_an_ordinal_number_of_german_ends_no_sentence() -> None:
    said = "Es begann am 27. Januar. Im frühen 18. Jahrhundert war es anders. Er war 28. Das war alles."
    assert sentences(said) == [
        "Es begann am 27. Januar.",
        "Im frühen 18. Jahrhundert war es anders.",
        "Er war 28.",
        "Das war alles.",
    ]


def test_marks_of_footnotes_stand_behind_their_sentence() -> None:
    assert sentences("It is small.[48] It is old.[citation needed] It is red.") == [
        "It is small.[48]",
        "It is old.[citation needed]",
        "It is red.",
    ]
