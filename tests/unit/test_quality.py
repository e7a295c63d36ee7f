"""Each flaw is told from a text that has it, and not from one that has not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.quality import FLAGS, Quality, assess, of_answer, of_summary
from app.types import Answer, Citation, Summary, Usage
from llm.language import LANGUAGES, NOT_FOUND, only_passages
from retrieval.types import Span

SAMPLE = Path(__file__).parents[2] / "app" / "sample"
GOOD = "Every full-time employee has 28 days of paid leave. [1] The days are taken by 31 March. [2]"
CITATION = Citation(
    number=1,
    document_id="leave",
    chunk_id="1-0",
    title="Leave",
    heading="",
    page=None,
    span=Span(0, 7),
    text="28 days",
)
ANSWER = Answer(
    text="It is 28 days. [1]",
    citations=(CITATION,),
    release="0123456789ab",
    degraded=(),
    stages={},
    usage=Usage(prompt_tokens=9, output_tokens=9),
    model="extractive",
    finish="stop",
)
SUMMARY = Summary(
    text="It is 28 days. [1]",
    citations=(CITATION,),
    support=(),
    coverage=1.0,
    sections_cited=1.0,
    release="0123456789ab",
    degraded=(),
    stages={},
    usage=Usage(prompt_tokens=9, output_tokens=9),
    model="extractive",
)


def test_a_good_answer_has_no_flaw() -> None:
    assert assess(GOOD, cited={1, 2}, sources=2, language="en") == Quality()


@pytest.mark.parametrize(
    ("flaw", "text", "more"),
    [
        ("empty", " [1] \n", {}),
        ("empty", "", {}),
        ("truncated", GOOD, {"finish": "length"}),
        ("repetition", "The leave is 28 days. [1] " * 20, {}),
        ("repetition", f"{GOOD} " + "yes " * 300, {}),
        ("repetition", "的。" * 200, {"language": None}),
        ("repetition", "A unit that is long enough to be a sentence of its own.\n" * 3, {}),
        ("refusal", NOT_FOUND, {"cited": ()}),
        ("refusal", "I'm sorry, but I cannot answer this.", {"cited": ()}),
        ("refusal", "Es tut mir leid, das kann ich nicht sagen.", {"cited": (), "language": "de"}),
        ("wrong_language", "Jeder hat 28 Tage Urlaub, und die Tage sind bis März zu nehmen. [1]", {}),
        ("unresolved", "It is 28 days. [3]", {}),
        ("unresolved", "It is 28 days. [1, 4]", {}),
        ("uncited", "It is 28 days. They are taken by March.", {"cited": ()}),
        ("malformed", "It is 28 days.\x00 [1]", {}),
        ("malformed", "It is 28 \ufffd days. [1]", {}),
        ("malformed", "Like this: [1]\n```\nls\n", {}),
        ("malformed", "It is 28 days. [1]<|im_end|>", {}),
        ("malformed", '< passage id="1" title="Leave"> It is 28 days. [1]', {}),
        ("malformed", "[INST] It is 28 days. [1]", {}),
        ("degraded", GOOD, {"degraded": ("rerank",)}),
    ],
)
def test_one_flaw_raises_its_flag_and_no_other(flaw: str, text: str, more: dict[str, Any]) -> None:
    assert assess(text, **{"cited": (1, 2), "sources": 2, "language": "en", **more}).raised == (flaw,)


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("28 days.", {"cited": (), "language": None}),
        ("- Laptop [1]\n- Badge [1]\n- Keys [2]", {}),
        ("```\nls\n```\nlists it. [1]", {}),
        ("Line one. [1]\r\n\tLine two. [2]", {}),
        ("Use `a < s > b` there. [1]", {}),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 | [1]", {}),
        (NOT_FOUND, {"cited": (), "sources": 0}),
    ],
)
def test_what_only_looks_like_a_flaw_is_none(text: str, more: dict[str, Any]) -> None:
    assert assess(text, **{"cited": (1, 2), "sources": 2, "language": "en", **more}) == Quality()


@pytest.mark.parametrize("code", LANGUAGES)
def test_the_services_own_sentences_decline_in_every_language(code: str) -> None:
    assert assess(LANGUAGES[code].not_found, cited=(), sources=1).raised == ("refusal",)
    listed = f"{only_passages('')}\n\n- One line of it. [1]"
    assert "refusal" not in assess(listed, cited={1}, sources=1).raised


@pytest.mark.parametrize("path", sorted(SAMPLE.rglob("*.md")), ids=lambda path: path.stem)
def test_running_text_and_tables_do_not_loop(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert all(
        not assess(text[start : start + 1500], cited={1}, sources=1).repetition
        for start in range(0, len(text), 300)
    )


def test_an_answer_is_judged_by_its_question_and_its_own_citations() -> None:
    assert of_answer(ANSWER, question="How many days do I get?", sources=1) == Quality()
    german = of_answer(ANSWER, question="Wie viele Tage sind es, und wann ist das?", sources=1)
    assert german.raised == ("wrong_language",)
    untold = of_answer(ANSWER, question="SLA 2026?", sources=1)
    assert untold == Quality()
    cut = replace(ANSWER, finish="length", text="It is [2]", degraded=("rerank",))
    assert of_answer(cut, question="?", sources=2).raised == ("truncated", "unresolved", "degraded")


def test_a_summary_is_judged_by_the_language_that_was_asked_for() -> None:
    assert of_summary(SUMMARY, language=None) == Quality()
    german = replace(SUMMARY, text="Es sind 28 Tage, und sie sind bis März zu nehmen. [1]")
    assert of_summary(german, language="en").raised == ("wrong_language",)
    assert of_summary(german, language="de") == Quality()


def test_every_flag_has_a_name_and_a_value() -> None:
    assert assess("", cited=(), sources=0).flags == {**dict.fromkeys(FLAGS, 0.0), "empty": 1.0}
