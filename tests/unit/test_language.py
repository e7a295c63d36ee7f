"""The language of a question is told by its words, and what the service says itself is said in it."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path

import pytest

from llm.language import LANGUAGES, declined, detect, not_found
from llm.terms import _stem, terms

XQUAD = Path(__file__).parents[3] / "shared" / "data" / "xquad"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("How many days of leave do I get?", "en"),
        ("Wie viele Urlaubstage habe ich?", "de"),
        ("Combien de jours de congé ai-je ?", "fr"),
        ("¿Cuántos días de vacaciones tengo?", "es"),
        ("Quanti giorni di ferie ho?", "it"),
        ("Quantos dias de férias eu tenho?", "pt"),
        ("Hoeveel vakantiedagen heb ik?", "nl"),
        ("Ile dni urlopu ma pracownik i kiedy to jest?", "pl"),
        ("Hur många semesterdagar har jag?", "sv"),
        ("Hvor mange feriedage har jeg?", "da"),
    ],
)
def test_a_question_is_told_by_its_words(text: str, code: str) -> None:
    assert detect(text) == code
    assert not_found(text) == LANGUAGES[code].not_found


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Wann fand Marconis Vorführung statt?", "de"),
        ("Welche Partei regiert in Melbourne?", "de"),
        ("Combien d'employeurs ?", "fr"),
        ("Quanti dipendenti?", "it"),
        ("Hoeveel medewerkers?", "nl"),
        ("Hvornår lukker kontoret?", "da"),
        ("Wie beantrage ich Urlaub?", "de"),
        ("Comment installer la passerelle ?", "fr"),
    ],
)
def test_a_short_question_is_told_by_the_word_that_asks(text: str, code: str) -> None:
    assert detect(text) == code


@pytest.mark.parametrize("text", ["", "E-1042", "paid leave", "28 days", "价格是多少？"])
def test_what_cannot_be_told_is_not_guessed(text: str) -> None:
    assert detect(text) is None
    assert not_found(text) == "The documents do not answer this question."


@pytest.mark.parametrize("code", LANGUAGES)
def test_what_the_service_says_is_in_its_language_and_known_as_declining(code: str) -> None:
    language = LANGUAGES[code]
    for sentence in (language.not_found, language.unsearched):
        assert detect(f"{sentence} {language.only_passages}") == code
        assert declined(sentence)
    assert not_found("", code, searched=False) == language.unsearched
    assert not declined(language.only_passages)


@pytest.mark.skipif(not XQUAD.is_dir(), reason="XQuAD is not in ../shared/data")
@pytest.mark.parametrize("code", ["en", "de", "es"])
def test_open_questions_are_hardly_ever_taken_for_another_language(code: str) -> None:
    lines = (XQUAD / code / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    told = [detect(json.loads(line)["text"]) for line in lines]
    assert told.count(code) > 0.88 * len(told)
    assert sum(one not in (code, None) for one in told) <= 0.005 * len(told)


def test_texts_are_not_kept_for_their_language() -> None:
    """Thousands of languages are remembered, and a text may have millions of characters."""

    class Text(str):
        __slots__ = ("__weakref__",)

    text = Text("Wo ist die Tasche, die ich gestern im Laden gekauft habe? " * 1_000)
    assert detect(text) == "de"
    kept = weakref.ref(text)
    del text
    gc.collect()
    assert kept() is None


def test_what_is_no_word_is_not_kept_for_its_stem() -> None:
    before = _stem.cache_info().currsize
    assert terms("x" * 100_000) == ["x" * 100_000]
    assert _stem.cache_info().currsize == before
