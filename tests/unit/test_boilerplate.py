"""What a summary is not made of."""

from __future__ import annotations

import pytest

from llm.boilerplate import told
from llm.extractive import Extractive
from llm.sentences import Piece
from llm.types import Passage
from tests.calls import text
from tests.unit.test_extractive import summary

SENTENCES = [
    Piece("Ducks are birds that live near the water."),
    Piece("They have been hunted since prehistoric times."),
    Piece("Most of the domestic breeds descend from one species."),
]


def kept(*pieces: Piece) -> list[str]:
    every = [*SENTENCES, *pieces]
    return [every[at].text for at in told(every)][len(SENTENCES) :]


@pytest.mark.parametrize(
    "noise",
    [
        "ISBN 978-0300138139.",
        '^ "The Duck of the North and the South".',
        "See also the list of the birds of Europe.",
        "https://example.org/birds/of/the/north",
        "For the duck as a food, see Duck as food.",
        "Smith et al. 2004 say so of the ducks.",
        "Retrieved 12 March 2019 from the site of the museum.",
        "© 2026 by the museum of the birds.",
        "Jump to the navigation of this page.",
    ],
)
def test_references_and_navigation_are_left_out(noise: str) -> None:
    assert kept(Piece(noise)) == []


@pytest.mark.parametrize(
    "scrap", ["Subfamilies", "Duck as food", "Ann Lee, University of Oslo, Bo Berg, University of Bergen."]
)
def test_headings_and_lists_of_names_are_left_out_of_a_text_that_speaks(scrap: str) -> None:
    assert kept(Piece(scrap)) == []


def test_what_stands_on_every_page_is_left_out() -> None:
    footers = [Piece(f"Page {n} of the handbook of the company for all.") for n in range(1, 5)]
    assert kept(*footers) == []


@pytest.mark.parametrize(
    "piece",
    [
        Piece("They live in the north and in the south.[12]"),
        Piece("a nest near the water", item=True),
        Piece("鸭子是鸟。"),
        Piece("Die Ente ist in Europa der häufigste Vogel am Wasser."),
    ],
)
def test_what_says_something_is_kept(piece: Piece) -> None:
    assert kept(piece) == [piece.text]


def test_of_a_text_without_sentences_nothing_is_missing() -> None:
    rows = [Piece(f"Weight {name}; Price: {n} EUR") for n, name in enumerate(["small", "large", "huge"])]
    assert told(rows) == [0, 1, 2]
    assert told([Piece("ISBN 978-0300138139.")]) == [0]


async def test_a_summary_is_made_of_sentences() -> None:
    page = Passage(
        1,
        "Duck",
        "Jump to navigation\n\nDucks are birds that live near the water.\n\nSubfamilies\n\n"
        "They have been hunted since prehistoric times.\n\nISBN 978-0300138139.\n\n"
        "By using this site, you agree to its terms.\n",
    )
    assert await text(Extractive(), summary([page])) == (
        "Ducks are birds that live near the water. [1] They have been hunted since prehistoric times. [1]"
    )
