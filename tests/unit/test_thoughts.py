"""What a model thinks never comes through, however its output is cut; what it says always does."""

from __future__ import annotations

import pytest

from llm.thoughts import Thoughts


def heard(output: str, size: int, *, expected: bool) -> str:
    thoughts = Thoughts(expected=expected)
    said = [thoughts.feed(output[at : at + size]) for at in range(0, len(output), size)]
    return "".join([*said, thoughts.finish()])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 1_000])
@pytest.mark.parametrize(
    ("output", "expected", "answer"),
    [
        ("<think>\nFirst, a < b.\n</think>\n\nIt is 28.\n\nNo more.", False, "It is 28.\n\nNo more."),
        ("\n<think>Hm</think>It is 28.", True, "It is 28."),
        ("<think>\n\n</think>\n\nIt is 28.", False, "It is 28."),
        ("Hm, 28 or 30?\n</think>\n\nIt is 28.", True, "It is 28."),
        ("It is 28. [1]", True, "It is 28. [1]"),
        ("  It is 28.", False, "  It is 28."),
        ("<th> is a tag, and so is </think>.", False, "<th> is a tag, and so is </think>."),
        ("<thi", False, "<thi"),
        ("<think>and never ends", False, ""),
        ("<think>a</think>one</think>two", True, "one</think>two"),
        ("", True, ""),
    ],
)
def test_the_answer_alone_is_heard(output: str, expected: bool, answer: str, size: int) -> None:
    assert heard(output, size, expected=expected) == answer


def test_an_answer_without_thoughts_is_held_only_where_they_are_expected() -> None:
    assert Thoughts(expected=False).feed("It") == "It"
    assert Thoughts(expected=True).feed("It") == ""


def test_after_thoughts_in_a_field_of_their_own_nothing_is_held() -> None:
    thoughts = Thoughts(expected=True)
    thoughts.apart()
    assert thoughts.feed("It") == "It"
    assert thoughts.any


def test_what_was_cut_off_before_thoughts_ended_is_none_of_the_answer() -> None:
    thoughts = Thoughts(expected=True)
    thoughts.feed("Hm, 28 or")
    assert thoughts.finish(cut=True) == ""
    assert thoughts.any
