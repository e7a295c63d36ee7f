"""Each sentence of an answer is checked against what it cites: by its words, then by an embedder."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from app import evidence
from app.claims import Claim
from app.support import Checks, Judgement, Reading, judge
from llm.language import LANGUAGES
from llm.types import Scorer
from retrieval.errors import EmbedderUnavailable
from retrieval.types import Chunk, Span
from tests.passages import passage

LEAVE = (
    "Every full-time employee has 28 days of paid leave per calendar year. Unused days expire on 31 March. "
    "A request must be handed in two weeks before the first day. Leave is not paid out."
)
PUMP = "The display shows E-1042 when the pump is blocked. Service costs EUR 4,800 a year."


async def _near(tenant: str, text: str, sentences: Sequence[str]) -> list[float]:
    return [0.85] * len(sentences)


async def _far(tenant: str, text: str, sentences: Sequence[str]) -> list[float]:
    return [0.05] * len(sentences)


async def _judged(text: str, *sources: str, score: Scorer | None = None, question: str = "") -> Judgement:
    read = [evidence.read(source) for source in sources or (LEAVE,)]
    return await judge(text, read, question=question, tenant="acme", score=score)


@pytest.mark.parametrize(
    "text",
    [
        "Every full-time employee has 28 days of paid leave per calendar year.",
        "Unused days expire on 31 March.",
        "28 days of paid leave per calendar year",
    ],
)
async def test_a_quotation_is_supported_without_an_embedder(text: str) -> None:
    found = await _judged(text)
    assert (found.verdict, found.reason) == ("supported", "quoted")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Every full-time employee has 30 days of paid leave per calendar year.", "number"),
        ("Unused days expire on 30 April.", "number"),
        ("Unused days do not expire on 31 March.", "denial"),
        ("Leave is paid out.", "denial"),
        ("The canteen opens at noon and serves soup.", "unlike"),
    ],
)
async def test_what_the_source_does_not_say_is_unsupported_and_says_why(text: str, reason: str) -> None:
    found = await _judged(text, score=_far)
    assert (found.verdict, found.reason) == ("unsupported", reason)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("The warranty does not cover water damage.", "The warranty covers water damage."),
        ("The warranty covers water damage.", "The warranty does not cover water damage."),
    ],
)
async def test_the_contrary_is_unsupported_however_alike_it_is(source: str, text: str) -> None:
    found = [
        await judge(text, [evidence.read(source, "Terms")], question="", tenant="acme", score=score)
        for score in (None, _near)
    ]
    assert [(one.verdict, one.reason) for one in found] == [("unsupported", "denial")] * 2


async def test_other_words_of_the_same_meaning_are_supported_by_an_embedder_only() -> None:
    text = "Staff may take vacation for almost a month."
    assert (await _judged(text, score=_near)).verdict == "supported"
    assert (await _judged(text, score=_far)).verdict == "unsupported"


async def test_a_number_counts_as_said_however_it_is_written() -> None:
    for text in (
        "A request must be handed in 2 weeks before the first day.",
        "Service costs EUR 4800 a year.",
    ):
        assert (await _judged(text, LEAVE, PUMP, score=_near)).verdict == "supported", text


async def test_two_sources_support_what_neither_does_alone() -> None:
    text = "Employees have 28 days of paid leave and E-1042 shows a blocked pump."
    assert (await _judged(text, LEAVE, score=_near)).reason == "number"
    assert (await _judged(text, LEAVE, PUMP, score=_near)).verdict == "supported"


async def test_the_place_shown_is_the_sentence_that_says_it() -> None:
    found = await _judged("Unused days expire on 31 March.")
    assert LEAVE[found.span.start : found.span.end] == "Unused days expire on 31 March."


def test_windows_are_exact_slices_and_leave_no_word_out() -> None:
    text = "One. Two is longer!\n\n- an item\n- another   \n" + "x" * 700 + " end"
    spans = evidence.sentence_spans(text)
    assert "".join(text[s.start : s.end] for s in spans).replace(" ", "") == "".join(text.split())
    assert all(a.end <= b.start for a, b in pairwise(spans))


def _chunk(text: str, start: int = 100) -> Chunk:
    return passage(text, document_id="leave", revision=7, title="Leave", start=start)


def _claim(text: str, *citations: int, number: int = 1) -> Claim:
    return Claim(number=number, start=0, end=len(text), text=text, citations=citations)


def _checks(score: Scorer | None) -> Checks:
    return Checks(Reading(), [_chunk(LEAVE)], question="How much leave?", tenant="acme", score=score)


async def test_spans_are_places_in_the_document() -> None:
    checks = _checks(None)
    checks.begin(_claim("Unused days expire on 31 March.", 1))
    (found,) = await checks.finish(5)
    document = " " * 100 + LEAVE
    (span,) = found.spans
    assert (span.document_id, span.chunk_id) == ("leave", "7-0")
    assert document[span.start : span.end] == "Unused days expire on 31 March."


async def test_spans_pass_over_the_names_of_columns_that_a_passage_says_again() -> None:
    rows = "| pump | 310 euros |\n| hose | 12 euros |"
    names = "| Model | Price |\n| --- | --- |\n"
    document = names + "| tap | 5 euros |\n" + rows
    at = document.index(rows)
    chunk = replace(_chunk(names + rows), span=Span(at, len(document)))
    checks = Checks(Reading(), [chunk], question="What does it cost?", tenant="acme", score=None)
    checks.begin(_claim("| hose | 12 euros |", 1))
    checks.begin(_claim("| Model | Price |", 1, number=2))
    row, columns = await checks.finish(5)
    (span,) = row.spans
    assert document[span.start : span.end] == "| hose | 12 euros |"
    assert (columns.verdict, columns.spans) == ("supported", ())


async def test_a_sentence_without_a_citation_is_told_as_such() -> None:
    checks = _checks(None)
    checks.begin(_claim("Unused days expire on 31 March."))
    (found,) = await checks.finish(5)
    assert (found.verdict, found.reason, found.spans) == ("uncited", "no citation", ())


@pytest.mark.parametrize("code", LANGUAGES)
async def test_that_the_documents_do_not_answer_is_no_claim(code: str) -> None:
    checks = _checks(None)
    checks.begin(_claim(LANGUAGES[code].not_found))
    assert await checks.finish(5) == []


async def test_verdicts_come_in_the_order_of_the_sentences() -> None:
    first = asyncio.Event()

    async def score(tenant: str, text: str, sentences: Sequence[str]) -> list[float]:
        await first.wait()
        return [0.9] * len(sentences)

    checks = _checks(score)
    checks.begin(_claim("Staff may go away for a month.", 1, number=1))
    checks.begin(_claim("Unused days expire on 31 March.", 1, number=2))
    await asyncio.sleep(0.02)
    assert checks.done() == []
    first.set()
    assert [found.sentence for found in await checks.finish(5)] == [1, 2]


async def test_a_check_that_is_not_done_in_time_is_declared() -> None:
    async def never(tenant: str, text: str, sentences: Sequence[str]) -> list[float]:
        await asyncio.Event().wait()
        return []

    checks = _checks(never)
    checks.begin(_claim("Staff may go away for a month.", 1))
    assert await checks.finish(0.05) == []
    assert checks.degraded
    await checks.close()


async def test_without_the_embedder_words_decide_and_that_is_declared() -> None:
    async def down(tenant: str, text: str, sentences: Sequence[str]) -> list[float]:
        raise EmbedderUnavailable("down")

    checks = _checks(down)
    checks.begin(_claim("Full-time employees have 28 days of leave.", 1))
    (found,) = await checks.finish(5)
    assert found.verdict in ("supported", "weak")
    assert checks.degraded
