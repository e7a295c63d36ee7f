"""What a follow-up is about: the earlier question where it leans on it, nothing where it stands alone."""

from __future__ import annotations

import pytest

from llm.followup import Reading, joined, readings

LEAVE = "How many days of leave do I get"


@pytest.mark.parametrize(
    ("last", "question", "meant"),
    [
        (f"{LEAVE} in 2025?", "What about in 2026?", f"{LEAVE} in 2026?"),
        ("What does error E31 mean?", "And E33?", "What does error E33 mean?"),
        ("What may a hotel cost in Paris?", "And in London?", "What may a hotel cost in London?"),
        (f"{LEAVE}?", "And after ten years?", f"{LEAVE} after ten years?"),
        ("Wie lange gilt die Garantie?", "Und für Zubehör?", "Wie lange gilt die Garantie für Zubehör?"),
        ("How many people work in Lindgate?", "And in 2025?", "How many people work in Lindgate in 2025?"),
    ],
)
def test_a_follow_up_that_goes_on_asks_the_last_question_about_something_else(
    last: str, question: str, meant: str
) -> None:
    (reading,) = readings([last], question)
    assert (reading.question, reading.topic) == (meant, ())
    assert joined(f"user: {last}\nassistant: Yes.", question) == meant


def test_a_chain_of_follow_ups_goes_on_from_the_first_question() -> None:
    turns = ["How long does the Skylark 320 run without sun?", "And the Skylark 300?"]
    (reading,) = readings(turns, "And in winter?")
    assert reading.question == "How long does the Skylark 300 run without sun in winter?"
    assert reading.new == "in winter"


def test_a_question_with_a_pronoun_decides_by_its_own_words_about_the_earlier_topic() -> None:
    asked = "How long did it last?"
    (reading,) = readings(["What caused the gateway outage of 14 March 2025?"], asked)
    assert reading.question == asked
    assert {"gateway", "outage", "2025"} <= set(reading.topic)


def test_a_short_question_is_first_read_as_it_stands() -> None:
    first, second = readings(["How many days of leave do I get?"], "Who is the ombudsperson?")
    assert first == Reading("Who is the ombudsperson?")
    assert "leave" in second.topic


def test_a_question_that_stands_alone_has_no_topic() -> None:
    question = "What does the Gold support plan cost per year?"
    assert readings(["Tell me about leave."], question) == [Reading(question)]
    assert readings([], "How long did it last?") == [Reading("How long did it last?")]
