"""What is found by its words, and what every store may rely on."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.analyze import analyzer

ENGLISH = analyzer("snowball-english")
PLAIN = analyzer("plain")
ANYTHING = st.text() | st.text(alphabet="aE1'’-._/, 日カé\u0301ß\u0130ﬁＡ\n")


def found_by(question: str, text: str) -> bool:
    """Whether keyword search would find the text by each term of the question."""
    return set(ENGLISH.terms(question).split()) <= set(ENGLISH.terms(text).split())


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("employees requesting leaves", "An employee may request leave."),
        ("What is the company's policy?", "Company policies"),
        ("error E-1042", "The display shows E-1042 when the pump is blocked; clear the error."),
        ("E1042", "The display shows E-1042 when the pump is blocked."),
        ("1042", "The display shows E-1042 when the pump is blocked."),
        ("E-1042", "see code E1042 e 1042"),
        ("v2.1", "Fixed in V2.1."),
        ("1000 genomes", "the 1,000 genomes project"),
        ("state of the art", "a state-of-the-art engine"),
        ("Cafe Muller", "Café Müller"),
        ("office", "ｏｆﬁｃｅ hours".replace("fﬁ", "ﬀi")),
        ("Istanbul", "İstanbul"),
        ("O’Neill", "O'Neill's report"),
        ("東京", "本社は東京です"),
        ("don't panic", "We DON’T panic"),
    ],
)
def test_a_text_is_found_by_other_forms_of_its_words(question: str, text: str) -> None:
    assert found_by(question, text)


@pytest.mark.parametrize(
    ("question", "text"), [("35", "costs 3.5 euros"), ("universe", "a university"), ("E-1042", "E-1043")]
)
def test_a_text_is_not_found_by_words_it_does_not_hold(question: str, text: str) -> None:
    assert not found_by(question, text)


def test_words_without_meaning_of_their_own_are_left_out() -> None:
    assert ENGLISH.terms("What is the price of the pump?") == "price pump"


def test_a_question_of_nothing_but_such_words_keeps_them() -> None:
    assert ENGLISH.terms("To be, or not to be?") == "to be or not to be"


def test_plain_keeps_words_as_they_are() -> None:
    assert PLAIN.terms("The Employees' Leaves") == "the employees leaves"
    assert PLAIN.terms("E-1042") == "e 1042 e1042"


def test_repetition_is_kept_because_keyword_scores_count_it() -> None:
    assert ENGLISH.terms("pump pumps PUMP") == "pump pump pump"


@pytest.mark.parametrize("text", ["", " \n", "?!", "_", "—", "\ud800"])
def test_a_text_without_words_has_no_terms(text: str) -> None:
    assert ENGLISH.terms(text) == PLAIN.terms(text) == ""


def test_a_word_that_never_ends_gives_a_short_term() -> None:
    assert len(ENGLISH.terms("x" * 100_000)) <= 64


def test_an_unknown_analyzer_is_named_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"'german'.*snowball, snowball-english, plain"):
        analyzer("german")


@settings(deadline=None)
@given(ANYTHING)
def test_a_stores_standard_tokenizer_leaves_terms_alone(text: str) -> None:
    for terms in (ENGLISH.terms(text), PLAIN.terms(text)):
        assert re.findall(r"\w+", terms.lower()) == terms.split()
        assert all(term.isalnum() for term in terms.split())


@settings(deadline=None)
@given(ANYTHING)
def test_an_analyzer_forgets_nothing_between_calls_and_shares_nothing(text: str) -> None:
    assert analyzer("snowball-english").terms(text) == ENGLISH.terms(text) == ENGLISH.terms(text)


@settings(deadline=None)
@given(st.text(alphabet=st.characters(categories=["Ll", "Nd"], max_codepoint=0x17F), min_size=1, max_size=60))
def test_any_word_is_found_by_itself_in_capitals_and_among_marks(word: str) -> None:
    assert (
        set(ENGLISH.terms(word.upper()).split()) == set(ENGLISH.terms(f"({word.upper()})!").split()) != set()
    )


def test_threads_may_share_an_analyzer() -> None:
    words = [
        f"{stem}{ending}{number}s"
        for stem in ("pump", "vent")
        for ending in ("ing", "ed")
        for number in range(500)
    ]
    text = " ".join(f"{word} {word[:-1]}ings" for word in words)
    expected = analyzer("snowball-english").terms(text)
    shared = analyzer("snowball-english")
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(shared.terms, [text] * 4)) == {expected}
