"""Titles that say of themselves that their text no longer holds, and questions that ask for it anyway."""

from __future__ import annotations

import pytest

from llm.language import LANGUAGES
from llm.superseded import MARKS, asked_for, current_first, superseded

OLD, NEW = "Paid leave policy 2025 (superseded)", "Paid leave policy 2026"


@pytest.mark.parametrize(
    "title",
    [
        OLD,
        "Travel policy - withdrawn",
        "OBSOLETE: how to sign in",
        "Travel policy 2023, replaced by the policy of 2024",
        "Travel policy 2023 no longer in force",
        "travel-policy-2023-outdated.md",
        "Reiserichtlinie 2023 (aufgehoben)",
        "Urlaubsordnung – ersetzt durch die Ordnung von 2026",
        "Politique de congés [obsolète]",
        "Política de vacaciones (derogada)",
        "Reisbeleid 2023 (niet meer geldig)",
    ],
)
def test_a_title_that_says_so_is_recognised(title: str) -> None:
    assert superseded([title])
    assert superseded(["Handbook", title])


@pytest.mark.parametrize(
    "title",
    [
        NEW,
        "Replaced parts",
        "Withdrawn products and their warranty",
        "How to find obsolete hardware",
        "What to do when a certificate has expired",
        "Ersetzte Teile",
        "",
    ],
)
def test_a_title_that_only_uses_the_word_is_not(title: str) -> None:
    assert not superseded([title])


def test_every_language_has_its_words() -> None:
    assert MARKS.keys() == LANGUAGES.keys()


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("How many days of paid leave did I get in 2025?", True),
        ("What did the superseded policy say?", True),
        ("What was the previous policy on leave?", True),
        ("How many days of paid leave do I get?", False),
        ("How many days of paid leave do I get in 2026?", False),
    ],
)
def test_a_question_asks_for_old_texts_by_their_year_or_by_the_word(question: str, wanted: bool) -> None:
    assert asked_for(question, [OLD], [NEW, "Incident report of 14 March 2025"]) is wanted
    assert asked_for(question, ["Paid leave 2025 (replaced by that of 2026)"], [NEW]) is wanted


def test_old_passages_do_not_crowd_out_what_took_their_place() -> None:
    paths = [[OLD], [OLD], [OLD], [NEW], [OLD], ["Remote work"]]
    order = current_first("How many days of paid leave do I get?", paths)
    assert order == [0, 1, 3, 5, 2, 4]
    assert current_first("How many days of leave did I get in 2025?", paths) == [0, 1, 2, 3, 4, 5]
