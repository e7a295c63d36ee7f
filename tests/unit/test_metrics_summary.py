"""Metrics of summaries and of flaws, and that every metric is described."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from app.quality import FLAGS
from eval.judge import Judge, JudgeSettings
from eval.metrics.answer import answer_metrics
from eval.metrics.catalogue import CATALOGUE, about
from eval.metrics.embeddings import Embeddings
from eval.metrics.flaws import flaw_metrics
from eval.metrics.measure import Metric, score
from eval.metrics.service import UNCHECKED
from eval.metrics.summary import summary_metrics
from eval.run import metrics_for
from eval.texts import Texts
from eval.types import Case, Dataset, DatasetRef, Gold, Passage, Reply, Sample, Score, Summarized

CASE = Case(
    id="sum",
    kind="summary",
    question="",
    gold=(Gold("leave"),),
    reference="There are 28 days of leave.",
    words=10,
)
QUESTION = Case(id="leave", question="How many?", gold=(Gold("leave", "28 days"),), reference="28 days")
UNANSWERABLE = Case(id="dog", question="May I?", gold=(), reference="No.")
CITED = Passage(document_id="leave", chunk_id="1-0", text="28 days of leave", number=1)
SUMMARY = Summarized(
    text="There are 28 days of leave. [1]",
    citations=(CITED,),
    coverage=0.75,
    sections_cited=0.5,
    model="extractive",
    release="0123456789ab",
    degraded=(),
    seconds=0.2,
    supported=1.0,
)
REPLY = Reply(
    text="It is 28 days. [1]",
    citations=(CITED,),
    sources=(CITED,),
    model="extractive",
    release="0123456789ab",
    degraded=(),
    seconds=0.1,
)


@pytest.mark.parametrize(
    ("name", "changed", "value"),
    [
        ("summary_coverage", {}, 0.75),
        ("summary_sections_cited", {}, 0.5),
        ("summary_groundedness", {}, 1.0),
        ("summary_groundedness", {"text": "", "supported": None}, 0.0),
        (
            "summary_groundedness",
            {"text": "The documents do not answer this question.", "citations": (), "supported": None},
            0.0,
        ),
        ("summary_latency_seconds", {}, 0.2),
        ("summary_within_words", {}, 1.0),
        ("summary_within_words", {"text": "word " * 12}, 1.0),
        ("summary_within_words", {"text": "word " * 13}, 0.0),
        ("summary_rouge_l", {}, 1.0),
        ("summary_rouge_l", {"text": "Nothing alike."}, 0.0),
        ("summary_semantic_similarity", {}, 1.0),
        ("summary_semantic_similarity", {"text": "Three monitors."}, 0.0),
    ],
)
async def test_a_summary_is_measured(name: str, changed: dict[str, object], value: float) -> None:
    metrics = [*summary_metrics(), *answer_metrics(Embeddings(_embed))]
    found = await _scored(metrics, name, CASE, replace(SUMMARY, **changed))  # type: ignore[arg-type]
    assert found == Score(pytest.approx(value))  # type: ignore[arg-type]


async def test_a_summary_that_was_not_checked_has_no_groundedness() -> None:
    found = await _scored(summary_metrics(), "summary_groundedness", CASE, replace(SUMMARY, supported=None))
    assert (found.value, found.error) == (None, UNCHECKED)


async def test_a_summary_that_failed_fails_every_metric_with_its_reason() -> None:
    lost = Sample(case_id="sum", errors={"summary": "503, the model is down"})
    for metric in metrics_for(_dataset(CASE, QUESTION), _embed, Texts(()), None):
        if metric.applies(CASE):
            assert (await score(metric, CASE, lost)).error == "503, the model is down"


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("empty", {"text": ""}),
        ("truncated", {"finish": "length"}),
        ("repetition", {"text": "It is 28 days. [1] " * 30}),
        ("wrong_language", {"text": "Es sind 28 Tage und nicht mehr. [1]"}),
        ("unresolved", {"text": "It is 28 days. [2]"}),
        ("uncited", {"text": "It is 28 days. They end in March.", "citations": ()}),
        ("malformed", {"text": "It is 28 days. [1]<|end|>"}),
        ("degraded", {"degraded": ("rerank",)}),
        ("refusal", {"text": "The documents do not answer this question.", "citations": ()}),
    ],
)
async def test_a_flaw_counts_where_it_is_and_only_there(name: str, changed: dict[str, object]) -> None:
    flawed = replace(REPLY, **changed)  # type: ignore[arg-type]
    assert (await _scored(flaw_metrics(), name, QUESTION, flawed)).value == 1.0
    assert (await _scored(flaw_metrics(), name, QUESTION, REPLY)).value == 0.0


async def test_the_language_wanted_is_the_cases() -> None:
    german = replace(SUMMARY, text="Es sind 28 Tage und nicht mehr. [1]")
    assert (await _scored(flaw_metrics(), "wrong_language", CASE, german)).value == 1.0
    wanted = replace(CASE, language="de")
    assert (await _scored(flaw_metrics(), "wrong_language", wanted, german)).value == 0.0


def test_to_decline_is_no_flaw_where_there_is_no_answer_or_no_question() -> None:
    [refusal] = [metric for metric in flaw_metrics() if metric.name == "refusal"]
    assert refusal.applies(QUESTION)
    assert not refusal.applies(UNANSWERABLE)
    assert not refusal.applies(CASE)


async def test_every_metric_is_described_and_nothing_else_is(tmp_path: Path) -> None:
    async with Judge(JudgeSettings(url="http://127.0.0.1:1/v1", model="none", cache=tmp_path)) as judge:
        metrics = metrics_for(_dataset(CASE, QUESTION), _embed, Texts(()), judge)
    assert {metric.name for metric in metrics} == set(CATALOGUE)
    assert len(metrics) == len(CATALOGUE)
    assert all(about(metric.name).tier == 2 for metric in metrics if metric.name.startswith("judge_"))


def test_a_flaw_is_tier_0_and_the_worst_it_can_be_is_1() -> None:
    assert {(about(name).tier, about(name).direction, about(name).worst) for name in FLAGS} == {
        (0, "lower", 1.0)
    }
    assert about("latency_seconds").worst is None
    assert about("rouge_l").worst == 0.0


async def _scored(metrics: Sequence[Metric], name: str, case: Case, response: Reply | Summarized) -> Score:
    [metric] = [one for one in metrics if one.name == name]
    assert metric.applies(case)
    reply, summary = (response, None) if isinstance(response, Reply) else (None, response)
    return await score(metric, case, Sample(case_id=case.id, reply=reply, summary=summary, errors={}))


async def _embed(texts: Sequence[str]) -> Sequence[Sequence[float]]:
    return [[1.0, 0.0] if "leave" in text else [0.0, 1.0] for text in texts]


def _dataset(*cases: Case) -> Dataset:
    return Dataset(
        ref=DatasetRef(name="x", version="1", fingerprint=""), licence="", cases=cases, documents=()
    )
