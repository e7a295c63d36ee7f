"""Which language a text is in, and that a text is found in its own."""

from __future__ import annotations

import pytest

from retrieval.analyze import analyzer, languages
from retrieval.languages import FUNCTION_WORDS

WORDS = analyzer("snowball")


def found_by(question: str, text: str) -> bool:
    return not set(WORDS.question(question).split()).isdisjoint(WORDS.terms(text).split())


@pytest.mark.parametrize(
    ("question", "spoken"),
    [
        ("How many days of paid leave do I get?", "english"),
        ("Wie viele Punkte gab die Verteidigung der Panthers ab?", "german"),
        ("¿Cuántos puntos permitió la defensa de los Panthers?", "spanish"),
        ("Combien de jours de congé est-ce que nous avons ?", "french"),
        ("Quanti giorni di ferie ho, e come si chiedono?", "italian"),
        ("Hoeveel vakantiedagen heb ik en hoe vraag je die aan?", "dutch"),
        ("Hur många dagars semester har jag och när får de tas ut?", "swedish"),
    ],
)
def test_a_question_is_taken_for_the_language_that_it_is_in(question: str, spoken: str) -> None:
    assert languages(question) == {spoken}


def test_a_question_that_tells_nothing_may_be_in_any_language() -> None:
    assert languages("Panthers Sacks 2015") == set(FUNCTION_WORDS)
    assert languages("") == set(FUNCTION_WORDS)


def test_another_script_is_none_of_those_languages() -> None:
    assert languages("Сколько дней отпуска мне положено?") == set()
    assert languages("本社はどこですか") == set()


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("Welche Häuser?", "Das Haus wurde von den Brüdern im Jahr 1904 gebaut; die Häuser sind alt."),
        ("Häuser Brüder", "Das Haus wurde von dem Bruder der Frau gebaut, und die Häuser sind alt."),
        ("¿Dónde están los animales?", "El animal que vive en la casa es de los niños y no se vende."),
        ("animales", "El animal que vive en la casa es de los niños y no se vende."),
        ("How are animals fed?", "The animal is fed in the morning."),
        ("feeding", "The animal was fed; feed it in the morning."),
    ],
)
def test_other_forms_of_a_word_are_found_in_its_own_language(question: str, text: str) -> None:
    assert found_by(question, text)


def test_function_words_of_the_language_find_nothing() -> None:
    assert not found_by("Wann und wo ist die Messe?", "Das ist ja nicht die Frage, wann und wo das war.")


def test_english_text_is_analyzed_as_by_the_english_analyzer() -> None:
    text = "The E-1042 valve's casing is a state-of-the-art die casting, isn't it?"
    assert set(WORDS.terms(text).split()) == set(analyzer("snowball-english").terms(text).split())


@pytest.mark.parametrize("text", ["", " \n", "?!", "\ud800"])
def test_a_text_without_words_has_no_terms(text: str) -> None:
    assert WORDS.terms(text) == WORDS.question(text) == ""


def test_a_question_of_nothing_but_function_words_keeps_them() -> None:
    assert WORDS.question("To be, or not to be?") != ""
