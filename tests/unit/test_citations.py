"""Citation markers resolve or never leave; nothing in a stream can become a link or an image."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from app.citations import HELD, Markers


def _through(pieces: list[str], known: int = 3) -> tuple[str, list[int]]:
    markers = Markers(known)
    text = "".join(markers.feed(piece) for piece in pieces) + markers.finish()
    return text, markers.cited


def test_a_known_marker_leaves_and_is_collected_once() -> None:
    assert _through(["Paid leave is 28 days [1]. Really [1]."]) == (
        "Paid leave is 28 days [1]. Really [1].",
        [1],
    )


def test_an_unknown_marker_never_leaves() -> None:
    assert _through(["So it is [7]."]) == ("So it is .", [])


def test_sources_are_numbered_from_one() -> None:
    assert _through(["So it is [0], [00] or [0, 2]."]) == ("So it is ,  or [2].", [2])


def test_no_more_is_held_back_than_a_marker_may_be_long() -> None:
    markers = Markers(3)
    assert markers.feed("[" + " " * (HELD - 2)) == ""
    assert markers.feed(" ") == "[" + " " * (HELD - 1)


def test_a_list_keeps_only_the_known_numbers() -> None:
    assert _through(["both [1, 3,9]"]) == ("both [1][3]", [1, 3])


def test_a_marker_cut_off_at_the_end_does_not_leave() -> None:
    assert _through(["so it is [1"]) == ("so it is ", [])


def test_brackets_that_are_no_markers_are_kept() -> None:
    assert _through(["a[i] and [see below] [ ]"])[0] == "a[i] and [see below] [ ]"


def test_links_and_images_are_made_harmless() -> None:
    text, _ = _through(["![x](http://evil.example/a.png) [y](http://evil.example) <img src=x> a < b"])
    assert "![" not in text
    assert "](" not in text
    assert "<img" not in text
    assert "a < b" in text


def test_a_reference_definition_is_made_harmless() -> None:
    assert "]:" not in _through(["[x]: http://evil.example"])[0]


def test_an_address_stays_readable_but_is_no_link() -> None:
    text, _ = _through(["See https://evil.example/?q=1 or www.evil.example, <http://evil.example>."])
    assert text == "See https: //evil.example/?q=1 or www .evil.example, < http: //evil.example>."


def test_a_path_and_a_ratio_are_left_as_they_are() -> None:
    assert _through(["/etc/hosts and 3:/4, and/or a: b"])[0] == "/etc/hosts and 3:/4, and/or a: b"


@given(st.text(alphabet="[]()!<a1, \nw.:/", max_size=60), st.lists(st.integers(1, 5), max_size=30))
def test_the_cut_of_the_stream_changes_nothing(text: str, sizes: list[int]) -> None:
    pieces, rest = [], text
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    assert _through([*pieces, rest]) == _through([text])


@given(st.text(alphabet="[]()!<a1, ", max_size=80))
def test_at_most_sixteen_characters_are_held_back(text: str) -> None:
    markers = Markers(3)
    for character in text:
        markers.feed(character)
        assert len(markers._held) <= HELD


@given(st.lists(st.text(alphabet="[]()!<ab1:/w.", max_size=8), max_size=12))
def test_nothing_that_leaves_is_link_syntax(pieces: list[str]) -> None:
    out, _ = _through(pieces)
    assert not re.search(r"[a-z]:/|www\.", out)
    assert "](" not in out
    assert "![" not in out
    assert "]:" not in out
