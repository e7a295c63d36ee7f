"""An answer's sentences are told apart as they stream, with what each cites and where it stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.claims import Claim, Claims


def _through(*pieces: str) -> list[Claim]:
    claims = Claims()
    return [claim for piece in pieces for claim in claims.feed(piece)] + claims.finish()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Leave is 28 days [1]. Ask early [2].", [("Leave is 28 days.", (1,)), ("Ask early.", (2,))]),
        ("Leave is 28 days. [1] [2] Ask early.", [("Leave is 28 days.", (1, 2)), ("Ask early.", ())]),
        ("Dr. Smith said so, e.g. here. [3]", [("Dr. Smith said so, e.g. here.", (3,))]),
        ("These count:\n- one [1]\n- two [2]", [("These count:", ()), ("- one", (1,)), ("- two", (2,))]),
        ("Version 3.2 is out [1].", [("Version 3.2 is out.", (1,))]),
        ("是的。[1]不是。[2]", [("是的。", (1,)), ("不是。", (2,))]),
        ("Over [1] and over [1].", [("Over and over.", (1,))]),
        ("[1] [2]", []),
    ],
)
def test_each_sentence_has_what_it_cites(text: str, told: list[tuple[str, tuple[int, ...]]]) -> None:
    assert [(claim.text, claim.citations) for claim in _through(text)] == told


@pytest.mark.parametrize(
    "end", [".", "!", "?", "…", "。", ".)", '."', ".”", ".'", ".’", ".]", ".*", "._", ".**)"]
)
def test_a_sentence_ends_with_whatever_closes_it(end: str) -> None:
    assert [claim.text for claim in _through(f"That is so{end} This is not.")] == [
        f"That is so{end}",
        "This is not.",
    ]


def test_a_sentence_is_told_as_soon_as_the_next_begins() -> None:
    claims = Claims()
    assert claims.feed("One is one. [1]") == []
    assert [claim.text for claim in claims.feed(" T")] == ["One is one."]


@given(st.text(alphabet="ab .!\n[]12A", max_size=80))
def test_the_place_of_a_sentence_is_where_it_stands(text: str) -> None:
    for claim in _through(text):
        assert text[claim.start : claim.end].strip() == text[claim.start : claim.end] != ""


@given(st.text(alphabet="ab .\nA", max_size=60), st.lists(st.integers(1, 4), max_size=40))
def test_the_cut_of_the_stream_does_not_move_sentences(text: str, sizes: list[int]) -> None:
    pieces, rest = [], text
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    assert _through(*pieces, rest) == _through(text)
