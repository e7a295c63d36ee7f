"""Words as the built-in model compares them."""

from __future__ import annotations

import pytest

from llm.terms import respelled, terms


@pytest.mark.parametrize(
    ("one", "other"), [("lost", "lose"), ("paid", "paying"), ("chosen", "choose"), ("children", "child")]
)
def test_irregular_forms_are_one_word(one: str, other: str) -> None:
    assert terms(one) == terms(other)


@pytest.mark.parametrize(
    ("asked", "understood"),
    [
        ("the pasword lenght", "the password length"),
        ("the passwords", "the passwords"),
        ("how the police works", "how the police works"),
        ("whether Lenght is a town", "whether Lenght is a town"),
        ("the year 1967", "the year 1967"),
    ],
)
def test_a_slip_is_read_as_the_word_that_is_there(asked: str, understood: str) -> None:
    assert respelled(asked, ["Password length", "The policy of 1976"]) == understood
