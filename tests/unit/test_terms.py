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


def test_a_long_word_is_read_with_another_letter_and_a_noun_in_german() -> None:
    assert respelled("any compensetion", ["compensation"]) == "any compensation"
    assert respelled("the effect", ["to affect"]) == "the effect"
    assert respelled("wie viele Urluabstage", ["28 Urlaubstage"], "de") == "wie viele urlaubstage"


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("de", "Kündigungsfristen", "Kündigungsfrist"),
        ("de", "einzureichende Belege, um sie einzureichen", "einzureichend Beleg einreichen"),
        ("fr", "les congés payés", "congé payé"),
        ("es", "¿Cuántas habitaciones?", "la habitación"),
        ("it", "quante ferie retribuite", "ferie retribuita"),
        ("pt", "quantas licenças", "licença"),
        ("nl", "hoeveel werknemers", "werknemer"),
        ("pl", "ile urlopów", "urlop"),
        ("sv", "hur många semestrarna", "semestrar"),
        ("da", "hvor mange ferierne", "ferier"),
    ],
)
def test_forms_of_a_word_are_one_in_its_own_language(language: str, one: str, other: str) -> None:
    assert terms(one, language) == terms(other, language)


def test_small_words_of_one_language_are_words_in_another() -> None:
    assert terms("Who won the war", "en") == ["win", "war"]
    assert terms("Wer war im Krieg", "de") == ["krieg"]
    assert terms("¿cuantos dias?", "es") == terms("¿Cuántos días?", "es")
