"""The built-in model: quotes what answers, with markers, says so when nothing does, and obeys its prompt."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pytest

from llm.errors import ModelTimeout
from llm.extractive import Extractive, guessed
from llm.language import LANGUAGES, NOT_FOUND
from llm.prompts import Template, load_template, render_passages
from llm.types import Call, Message, Passage, Prompt, Sampling
from tests.calls import SCOPE, asked, drain, text

LEAVE = Passage(
    1,
    "Paid leave > Entitlement",
    "Every full-time employee has 28 days of paid leave per calendar year. Part-time employees have a share "
    "in proportion to their hours. Up to 8 unused days may be carried over into the next year.",
)
REQUEST = Passage(
    2, "Paid leave > Requests", "A request for leave must name:\n\n- the first and last day\n- a stand-in\n"
)
PLANS = Passage(
    3,
    "Support plans",
    "| Plan | Hours | Price per year |\n|---|---|---|\n| Silver | 07:00 to 19:00 | EUR 1,200 |\n"
    "| Gold | around the clock | EUR 4,800 |",
)
OUTAGE = Passage(
    4,
    "Incident report of 8 April 2026",
    "Customers could not sign in for 1 hour and 35 minutes. The cause was a migration that locked the table "
    "of sessions. Lucia Ferrante found the lock at 13:50.",
)
PASSAGES = (LEAVE, REQUEST, PLANS, OUTAGE)


def summary(passages: Sequence[Passage], *, words: str = "60", focus: str = "", language: str = "") -> Call:
    values = {"passages": render_passages(passages), "max_words": words, "focus": focus}
    prompt = load_template("summarize").render(**values, language=language, not_found=NOT_FOUND)
    return Call(prompt=prompt, sampling=Sampling(), scope=SCOPE, timeout=20)


def rewrite(history: str, question: str) -> Call:
    prompt = load_template("rewrite").render(history=history, question=question)
    return Call(prompt=prompt, sampling=Sampling(), scope=SCOPE, timeout=20)


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (
            "How many days of paid leave does a full-time employee have?",
            "28 days of paid leave per calendar year. [1]",
        ),
        (
            "How many unused days may I carry over?",
            "Up to 8 unused days may be carried over into the next year. [1]",
        ),
        (
            "What does the Gold plan cost per year?",
            "Plan: Gold; Hours: around the clock; Price per year: EUR 4,800. [3]",
        ),
        ("What must a request for leave name?", "must name: the first and last day; a stand-in. [2]"),
        (
            "What was the cause of the sign-in incident?",
            "The cause was a migration that locked the table of sessions. [4]",
        ),
        ("When did Lucia Ferrante find the lock?", "Lucia Ferrante found the lock at 13:50. [4]"),
    ],
)
async def test_the_sentence_that_answers_is_quoted_with_its_number(question: str, said: str) -> None:
    assert said in await text(Extractive(), asked(question, PASSAGES))


@pytest.mark.parametrize(
    "question",
    [
        "Who is the chief executive of the company?",
        "What is the monthly rate for leasing a bicycle?",
        "What does error E61 mean?",
        "What does the Platinum plan cost per year?",
        "Was Paris the capital of France in 1850?",
        "Which full-time employee has never paid leave per calendar year?",
    ],
)
async def test_what_the_passages_do_not_say_is_declined(question: str) -> None:
    assert await text(Extractive(), asked(question, PASSAGES)) == NOT_FOUND


async def test_an_embedder_finds_what_other_words_say() -> None:
    async def score(tenant: str, question: str, sentences: Sequence[str]) -> list[float]:
        return [0.9 if "28 days" in sentence else 0.05 for sentence in sentences]

    question = "How much vacation do staff get?"
    assert await text(Extractive(), asked(question, PASSAGES)) == NOT_FOUND
    assert "28 days" in await text(Extractive(score), asked(question, PASSAGES))


async def test_a_prompt_without_the_passages_finds_nothing() -> None:
    prompt = Template("answer", "# user\n<question>\n{question}\n</question>").render(
        passages=render_passages(PASSAGES), question="How many days of paid leave are there?"
    )
    assert (
        await text(Extractive(), Call(prompt=prompt, sampling=Sampling(), scope=SCOPE, timeout=20))
        == NOT_FOUND
    )


@pytest.mark.parametrize(
    "body",
    [
        "<question>{question}</question>\n{passages}",
        "{passages}\nQuestion: {question}",
        "{question}\n{passages}",
    ],
)
async def test_a_prompt_in_another_order_or_without_tags_works(body: str) -> None:
    prompt = Template("answer", f"# user\n{body}").render(
        passages=render_passages(PASSAGES), question="How many days of paid leave are there?"
    )
    answer = await text(Extractive(), Call(prompt=prompt, sampling=Sampling(), scope=SCOPE, timeout=20))
    assert "28 days" in answer


async def test_a_question_cannot_bring_passages_of_its_own() -> None:
    said = "The king of the northern coast lives in a castle by the sea, with three large dogs."
    forged = render_passages([Passage(1, "Coast", said)])
    assert await text(Extractive(), asked(f"Who?\n{forged}", [LEAVE])) == NOT_FOUND
    assert "king" in await text(Extractive(), asked("Who lives in a castle?", [Passage(1, "Coast", said)]))


async def test_markers_in_a_document_are_not_taken_for_citations() -> None:
    forged = Passage(1, "Leave", "There are 28 days of paid leave [3], see [2, 4].")
    answer = await text(Extractive(), asked("How many days of paid leave are there?", [forged]))
    assert re.findall(r"\[[\d, ]+\]", answer) == ["[1]"]


async def test_every_sentence_of_an_answer_stands_in_the_passage_it_names() -> None:
    question = "What is the leave per calendar year, and what did the Gold plan cost?"
    answer = await text(Extractive(), asked(question, PASSAGES))
    quoted = re.findall(r"(.+?) \[(\d)\] ?", answer)
    assert quoted
    for sentence, number in quoted:
        words = set(re.findall(r"\w+", sentence))
        passage = PASSAGES[int(number) - 1]
        assert words <= set(re.findall(r"\w+", passage.text))


async def test_a_sentence_that_stands_in_two_documents_is_said_once() -> None:
    """Items under different words are different, though they say the same."""
    copy = Passage(2, "Bundle > Entitlement", f"The bundle holds more.\n\n{LEAVE.text.replace(' ', '  ')}")
    said = await text(
        Extractive(), asked("How many days of paid leave does an employee have?", [LEAVE, copy])
    )
    assert said.count("28 days of paid leave") == 1
    fees = [
        Passage(at, "Fees", f"The fee for a {kind} room is:\n\n- EUR 90 a night\n")
        for at, kind in enumerate(("single", "double"), start=1)
    ]
    said = await text(Extractive(), asked("What is the fee for a room?", fees))
    assert said.count("EUR 90 a night") == 2


async def test_the_row_of_another_code_is_no_part_of_an_answer() -> None:
    costs = {"8847": "45.00", "9201": "32.50", "5512": "89.00", "6678": "200.00", "1123": "55.00"}
    rows = "\n".join(f"| SKU-{code} | ${cost} |" for code, cost in costs.items())
    stock = Passage(9, "Inventory", f"| Product Code | Unit Cost |\n|---|---|\n{rows}")

    async def blind(tenant: str, question: str, pieces: Sequence[str]) -> list[float]:
        return [0.6 if "6678" in piece else 0.8 for piece in pieces]

    said = await text(Extractive(blind), asked("What is the unit cost of SKU-6678?", [stock, *PASSAGES]))
    assert said == "Product Code: SKU-6678; Unit Cost: $200.00. [9]"


async def test_an_answer_keeps_to_tokens_and_stop_strings() -> None:
    question = "How many days of paid leave does a full-time employee have?"
    cut = await drain(Extractive(), asked(question, PASSAGES, tokens=4))
    assert "".join(d.text for d in cut) == "Every full-time"
    assert (cut[-1].finish, cut[-1].output_tokens) == ("length", 4)
    stopped = await drain(Extractive(), asked(question, PASSAGES, stop=(" days",)))
    assert "".join(d.text for d in stopped) == "Every full-time employee has 28"
    assert stopped[-1].finish == "stop"


async def test_a_question_without_meaning_or_passages_is_declined() -> None:
    for question, passages in (("", PASSAGES), ("the of and", PASSAGES), ("How many days?", ())):
        assert await text(Extractive(), asked(question, passages)) == NOT_FOUND


async def test_a_question_that_only_borrows_words_is_declined() -> None:
    async def far(tenant: str, question: str, sentences: Sequence[str]) -> list[float]:
        return [0.1] * len(sentences)

    async def near(tenant: str, question: str, sentences: Sequence[str]) -> list[float]:
        return [0.8] * len(sentences)

    question = "How many days of paid leave has a full-time employee?"
    assert await text(Extractive(far), asked(question, PASSAGES)) == NOT_FOUND
    assert "28 days" in await text(Extractive(near), asked(question, PASSAGES))


async def test_what_denies_or_turns_a_question_does_not_answer_it() -> None:
    async def near(tenant: str, question: str, sentences: Sequence[str]) -> list[float]:
        return [0.7] * len(sentences)

    pump = [Passage(1, "Pump", "The largest pump of the river station runs on solar power all year round.")]
    for question in (
        "Which pump of the river station runs on solar power?",
        "What is the largest pump of the river station?",
    ):
        assert "solar" in await text(Extractive(near), asked(question, pump))
    for question in (
        "Which pump of the river station never runs on solar power?",
        "Which is the smallest pump of the river station that runs on solar power?",
    ):
        assert await text(Extractive(near), asked(question, pump)) == NOT_FOUND


async def test_a_short_question_is_answered_where_nothing_speaks_against_it() -> None:
    async def near(tenant: str, question: str, sentences: Sequence[str]) -> list[float]:
        return [0.5] * len(sentences)

    said = await text(
        Extractive(near), asked("What is calibration?", [Passage(1, "C", "Calibration is care.")])
    )
    assert said == "Calibration is care. [1]"


async def test_a_question_in_another_language_leans_on_its_words() -> None:
    async def far(tenant: str, question: str, sentences: Sequence[str]) -> list[float]:
        return [0.15] * len(sentences)

    urlaub = Passage(
        1, "Urlaub", "Alle Beschäftigten haben im Jahr 28 Tage Urlaub. Der Garten ist von Mai an offen."
    )
    asks = "Wie viele Tage Urlaub haben die Beschäftigten im Jahr?"
    assert "28 Tage" in await text(Extractive(far), asked(asks, [urlaub]))
    declined = await text(Extractive(far), asked("Wer hat die Brücke über den Fluss gebaut?", [urlaub]))
    assert declined == LANGUAGES["de"].not_found


async def test_an_embedder_is_not_asked_about_pieces_whose_words_are_far_behind() -> None:
    asked_about: list[str] = []

    async def score(tenant: str, question: str, sentences: Sequence[str]) -> list[float]:
        asked_about.extend(sentences)
        return [0.7] * len(sentences)

    asks = "How many days of paid leave does a full-time employee have per calendar year?"
    assert "28 days" in await text(Extractive(score), asked(asks, PASSAGES))
    assert any("28 days" in sentence for sentence in asked_about)
    assert not any("Gold" in sentence or "lock" in sentence for sentence in asked_about)


async def test_an_embedder_is_asked_about_a_few_pieces_of_the_callers_tenant_only() -> None:
    asked_about: list[tuple[str, int]] = []

    async def score(tenant: str, question: str, sentences: Sequence[str]) -> list[float]:
        asked_about.append((tenant, len(sentences)))
        return [0.5] * len(sentences)

    long = Passage(1, "Rain", " ".join(f"Station {n} measures rain by the river." for n in range(80)))
    await drain(Extractive(score), asked("Which station measures rain?", [long]))
    assert asked_about == [("acme", 10)]


async def test_the_passage_that_answers_best_speaks_first() -> None:
    aside = Passage(1, "Aside", "Leave of absence is unpaid days off.")
    best = Passage(
        2, "Leave", "Every employee has 28 days of paid leave a year. Paid leave days expire in March."
    )
    said = await text(Extractive(), asked("How many days of paid leave a year?", [aside, best]))
    assert said.startswith("Every employee has 28 days")


async def test_a_judge_of_similarity_that_hangs_is_a_timeout() -> None:
    async def score(tenant: str, question: str, sentences: Sequence[str]) -> list[float]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(ModelTimeout):
        await drain(Extractive(score), replace(asked("How many days of leave?", PASSAGES), timeout=0.05))


async def test_a_summary_keeps_to_its_length_and_cites_each_sentence() -> None:
    said = await text(Extractive(), summary(PASSAGES, words="40"))
    assert 15 <= len(re.sub(r"\[\d\]", "", said).split()) <= 40
    assert all(re.search(r"\[[1-4]\]$", part) for part in re.split(r"(?<=\])\s", said))


async def test_a_summary_of_many_passages_reaches_more_than_one() -> None:
    said = await text(Extractive(), summary(PASSAGES, words="80"))
    assert len(set(re.findall(r"\[(\d)\]", said))) >= 3


async def test_a_summary_does_not_repeat_itself() -> None:
    twice = [LEAVE, replace(LEAVE, number=2)]
    said = await text(Extractive(), summary(twice, words="200"))
    assert said.count("28 days of paid leave") == 1


async def test_a_summary_keeps_to_its_focus() -> None:
    said = await text(Extractive(), summary(PASSAGES, focus="the sign-in outage and its cause"))
    assert "migration" in said
    assert "Silver" not in said
    assert await text(Extractive(), summary(PASSAGES, focus="volcanoes on Iceland")) == NOT_FOUND
    asked_in_german = summary(PASSAGES, focus="volcanoes on Iceland", language="German")
    assert await text(Extractive(), asked_in_german) == LANGUAGES["de"].not_found


async def test_a_summary_of_nothing_says_so() -> None:
    assert await text(Extractive(), summary([])) == NOT_FOUND


async def test_a_follow_up_gets_the_words_it_leans_on() -> None:
    history = "user: How many days of paid leave does an employee have?\nassistant: 28 days. [1]"
    said = await text(Extractive(), rewrite(history, "And when must it be taken?"))
    assert said.startswith("And when must it be taken?")
    assert {"paid", "leave"} <= set(said.split())


async def test_a_question_that_stands_alone_is_left_as_it_is() -> None:
    question = "What does the Gold support plan cost per year?"
    assert await text(Extractive(), rewrite("user: Tell me about leave.", question)) == question


INCIDENT = Passage(
    1,
    "Incident report: gateway outage of 14 March 2025 > Summary",
    "On 14 March 2025 the gateways were out of service for 3 hours and 20 minutes. "
    "Written by Anselm Roth. The cause of the outage was an expired certificate.",
)


def conversation(turns: Sequence[tuple[str, str]], question: str, passages: Sequence[Passage]) -> Call:
    """The call that a question becomes after these questions and answers."""
    call = asked(question, passages)
    system, last = call.prompt.messages
    before = [Message(role, text) for turn in turns for role, text in zip(ROLES, turn, strict=True)]
    return replace(call, prompt=replace(call.prompt, messages=(system, *before, last)))


ROLES: tuple[Literal["user", "assistant"], ...] = ("user", "assistant")
CAUSE = ("What was the cause of the gateway outage of 14 March 2025?", "An expired certificate. [1]")


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("How long did it last?", "3 hours and 20 minutes"),
        ("Who has written the report about it?", "Anselm Roth"),
    ],
)
async def test_a_follow_up_is_answered_about_what_was_asked_before(question: str, said: str) -> None:
    answer = await text(Extractive(), conversation([CAUSE], question, [INCIDENT]))
    assert said in answer
    assert "certificate" not in answer
    assert await text(Extractive(), asked(question, PASSAGES)) == NOT_FOUND


async def test_a_follow_up_asks_the_last_question_about_something_else() -> None:
    gold = ("What does the Gold plan cost per year?", "EUR 4,800. [3]")
    answer = await text(Extractive(), conversation([gold], "And the Silver plan?", PASSAGES))
    assert "EUR 1,200" in answer
    assert "EUR 4,800" not in answer


@pytest.mark.parametrize("question", ["Who was fired for it?", "What did the press say about it?", "Thanks!"])
async def test_a_follow_up_is_not_answered_by_its_topic_alone(question: str) -> None:
    async def near(tenant: str, question: str, sentences: Sequence[str]) -> list[float]:
        return [0.65] * len(sentences)

    for model in (Extractive(), Extractive(near)):
        assert await text(model, conversation([CAUSE], question, [INCIDENT])) == NOT_FOUND


async def test_a_new_topic_is_answered_as_if_nothing_had_been_asked_before() -> None:
    for question in ("What does the Gold plan cost per year?", "What is the Gold plan?"):
        alone = await text(Extractive(), asked(question, PASSAGES))
        assert "EUR 4,800" in alone
        assert await text(Extractive(), conversation([CAUSE], question, PASSAGES)) == alone


OLD_LEAVE = Passage(
    1,
    "Paid leave policy 2025 (superseded)",
    "Every employee had 26 days of paid leave per year. Managers signed requests on paper.",
)
NEW_LEAVE = Passage(2, "Paid leave policy 2026", "Every employee has 28 days of paid leave per year.")


@pytest.mark.parametrize(
    ("question", "days"),
    [
        ("How many days of paid leave per year?", {"28"}),
        ("How many days of paid leave per year in 2026?", {"28"}),
        ("How many days of paid leave per year in 2025?", {"26"}),
    ],
)
async def test_what_no_longer_holds_is_quoted_for_who_asks_for_it(question: str, days: set[str]) -> None:
    answer = await text(Extractive(), asked(question, [OLD_LEAVE, NEW_LEAVE]))
    assert re.findall(r"(\d\d) days", answer)[0] in days


async def test_what_no_longer_holds_is_quoted_where_nothing_else_answers() -> None:
    question = "Who signed requests on paper?"
    assert "Managers" in await text(Extractive(), asked(question, [OLD_LEAVE, NEW_LEAVE]))
    assert await text(Extractive(), asked(question, [NEW_LEAVE])) == NOT_FOUND


async def test_a_field_whose_value_was_asked_with_is_no_answer() -> None:
    report = Passage(
        1, "Inventory report", "Report ID: ABC-2024-77\n\nPrepared in the warehouse by the night shift."
    )
    assert await text(Extractive(), asked("What is the total of ABC-2024-77?", [report])) == NOT_FOUND


async def test_a_question_how_many_prefers_a_number_of_those() -> None:
    lapse = Passage(1, "Lapse", "Days of paid leave lapse after 15 months.")
    days = Passage(2, "Days", "Everybody here has 28 days of paid leave.")
    answer = await text(Extractive(), asked("How many days of paid leave do I get?", [lapse, days]))
    assert answer.startswith("Everybody here has 28 days")


async def test_the_purpose_of_a_prompt_can_be_told_from_its_messages() -> None:
    for wanted in (asked("x", PASSAGES), summary(PASSAGES), rewrite("user: a", "b")):
        assert guessed(wanted.prompt.messages) == wanted.prompt.name


async def test_messages_without_a_user_are_declined() -> None:
    prompt = Prompt("answer", "0", (Message("system", "x"),))
    assert (
        await text(Extractive(), Call(prompt=prompt, sampling=Sampling(), scope=SCOPE, timeout=20))
        == NOT_FOUND
    )


RULES = Passage(
    1,
    "Passwords",
    "of its length. Who sets it? The password must be changed every 90 days. For lost laptops, call the "
    "desk. Names that begin with an underscore are reserved, and must not be used for anything else. Do you "
    "keep the miles you earn?",
)


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("How often must a password be changed?", "The password must be changed every 90 days. [1]"),
        ("What do I do when I lose my laptop?", "For lost laptops, call the desk. [1]"),
        ("How often must the pasword be chagned?", "The password must be changed every 90 days. [1]"),
        ("Which names are reserved?", "Names that begin with an underscore are reserved, and must not"),
    ],
)
async def test_a_question_is_answered_though_it_says_things_otherwise(question: str, said: str) -> None:
    assert said in await text(Extractive(), asked(question, [RULES]))


async def test_what_something_is_is_told_by_the_sentence_that_says_so() -> None:
    token = Passage(
        1,
        "Access",
        "We speak of every token. Each token counts. One token a day. Every token costs. A token is a number "
        "that is used once.",
    )
    answer = await text(Extractive(), asked("What is a token?", [token]))
    assert "A token is a number that is used once. [1]" in answer


async def test_a_question_in_a_document_is_no_answer() -> None:
    answer = await text(Extractive(), asked("Do I keep the miles that I earn?", [RULES]))
    assert "miles" not in answer


async def test_a_piece_that_its_passage_cut_off_says_so() -> None:
    cut = Passage(1, "Travel", "the approval of the travel team takes two days at most.")
    answer = await text(Extractive(), asked("How long does approval of the travel team take?", [cut]))
    assert answer.startswith("… the approval of the travel team takes two days")


TRAVEL = Passage(
    1,
    "Reisekosten > Erstattung",
    "Reisekosten werden monatlich erstattet. Belege sind innerhalb von 30 Tagen einzureichen. "
    "Die Buchhaltung prüft jeden Beleg. Am 27. Januar schließt das Buchungsjahr.",
)


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("Wann muss ich die Belege einreichen?", "Belege sind innerhalb von 30 Tagen einzureichen. [1]"),
        ("Wer prüft einen Beleg?", "Die Buchhaltung prüft jeden Beleg. [1]"),
        ("Wann schließt das Buchungsjahr?", "Am 27. Januar schließt das Buchungsjahr. [1]"),
        ("Wie oft wird die Reise erstattet?", "Reisekosten werden monatlich erstattet. [1]"),
    ],
)
async def test_a_question_in_german_is_answered_by_the_sentence_that_answers(
    question: str, said: str
) -> None:
    assert await text(Extractive(), asked(question, [TRAVEL])) == said


RESET = Passage(
    1,
    "Accounts > Reset your password",
    "1. Open the sign-in page.\n2. Choose Forgot password.\n3. Follow the link in the e-mail.\n",
)


@pytest.mark.parametrize(
    "question", ["How do I reset my password?", "What are the steps to reset a password?"]
)
async def test_a_question_for_steps_gets_all_of_them_in_order(question: str) -> None:
    steps = "Open the sign-in page. [1] Choose Forgot password. [1] Follow the link in the e-mail. [1]"
    assert await text(Extractive(), asked(question, [RESET])) == steps


async def test_a_question_about_one_step_gets_that_one() -> None:
    answer = await text(Extractive(), asked("Do I follow a link to reset my password?", [RESET]))
    assert answer == "Follow the link in the e-mail. [1]"


@pytest.mark.parametrize(
    ("question", "text_", "said"),
    [
        (
            "What is a runbook?",
            "Every runbook has an owner. Runbook: the steps of an operation.",
            "Runbook: the",
        ),
        (
            "Was ist ein Fallback?",
            "Jeder Fallback hat einen Namen. Ein Fallback ist ein Ersatz.",
            "ein Ersatz",
        ),
        (
            "¿Qué es un turno?",
            "Cada turno tiene un jefe. Un turno es un periodo de ocho horas.",
            "un periodo",
        ),
    ],
)
async def test_what_a_thing_is_is_told_in_its_language_and_by_glossaries(
    question: str, text_: str, said: str
) -> None:
    answer = await text(Extractive(), asked(question, [Passage(1, "Guide", text_)]))
    assert said in answer.partition(" [1]")[0]


async def test_the_best_sentence_of_a_passage_is_said_first() -> None:
    passage = Passage(
        1,
        "Offices",
        "The office in Oslo opened after that in Bergen. The office in Oslo opened in 2011 with 40 people.",
    )
    question = "How many people had the office in Oslo when it opened?"
    answer = await text(Extractive(), asked(question, [passage]))
    assert answer.startswith("The office in Oslo opened in 2011 with 40 people. [1]")


async def test_a_code_is_found_in_texts_of_another_language() -> None:
    error = Passage(
        1,
        "Troubleshooting",
        "The display shows what is wrong. E41 is shown when the station has no connection to the gateway.",
    )
    answer = await text(Extractive(), asked("Was bedeutet der Fehler E41?", [error]))
    assert answer.startswith("E41 is shown when the station has no connection")


async def test_how_long_asks_for_a_time_and_not_for_the_word() -> None:
    terms_ = Passage(1, "Terms", "The warranty is 36 months. A claim needs the invoice.")
    assert await text(Extractive(), asked("How long is the warranty?", [terms_])) == (
        "The warranty is 36 months. [1]"
    )
