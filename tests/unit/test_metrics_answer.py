"""The real RAGAS metrics, run as the evaluation runs them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import replace

import pytest

from eval.metrics.answer import answer_metrics
from eval.metrics.embeddings import MOST, PIECE, Embed, Embeddings, split
from eval.metrics.measure import Metric, plain, score, score_case
from eval.metrics.service import UNCHECKED, service_metrics
from eval.types import Case, Gold, Passage, Reply, Sample
from llm.language import NOT_FOUND

CASE = Case(
    id="leave",
    question="How many days of leave?",
    gold=(Gold("leave", "28 days of paid leave"), Gold("leave", "taken by 31 March")),
    reference="28 days of paid leave per year.",
)
UNANSWERABLE = Case(id="dog", question="May I bring my dog?", gold=(), reference=NOT_FOUND)
GOOD = Passage(document_id="leave", chunk_id="1-0", text="Everybody has 28 days of paid leave.")
OTHER = Passage(document_id="remote", chunk_id="2-0", text="Three days a week from home.")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection fails the test: RAGAS reports its use unless told not to."""

    def refuse(*arguments: object) -> None:
        raise AssertionError("a metric opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
async def test_the_reference_itself_scores_one() -> None:
    sample = _answered("28 days of paid leave per year. [1]", citations=(GOOD,), sources=(GOOD,))
    for name in ("rouge_l", "string_similarity", "semantic_similarity"):
        assert await _value(name, CASE, sample) == pytest.approx(1.0)


async def test_rouge_and_similarity_by_hand() -> None:
    # Longest common subsequence "paid leave" of 2 words; 7 words in the reference, 3 in the answer.
    sample = _answered("paid annual leave")
    precision, recall = 2 / 3, 2 / 7
    expected = 2 * precision * recall / (precision + recall)
    assert await _value("rouge_l", CASE, sample) == pytest.approx(expected)
    close = Case(id="x", question="?", gold=CASE.gold, reference="abcd")
    assert await _value("string_similarity", close, _answered("abxd")) == pytest.approx(0.75)


async def test_semantic_similarity_is_the_cosine_of_the_targets_embeddings() -> None:
    # (1, 0) for texts about leave, (0, 1) for others: cosine 1 and 0.
    assert await _value("semantic_similarity", CASE, _answered("It is leave.")) == pytest.approx(1.0)
    assert await _value("semantic_similarity", CASE, _answered("Three monitors.")) == pytest.approx(0.0)


async def test_an_answer_longer_than_the_embedders_window_is_scored_too() -> None:
    long = "All about leave and nothing else. " * 100
    assert await _value("semantic_similarity", CASE, _answered(long)) == pytest.approx(1.0)


async def test_context_metrics_count_gold_passages_among_the_sources() -> None:
    # One of two gold passages found, in one of two sources.
    sample = _answered("28 days", sources=(OTHER, GOOD))
    assert await _value("context_recall", CASE, sample) == 0.5
    assert await _value("context_precision", CASE, sample) == 0.5
    nothing = _answered("28 days", sources=())
    assert await _value("context_recall", CASE, nothing) == 0.0
    assert await _value("context_precision", CASE, nothing) == 0.0


async def test_a_metric_that_fails_is_an_error_and_no_number() -> None:
    async def down(texts: Sequence[str]) -> Sequence[Sequence[float]]:
        raise ConnectionError("the embedder is down")

    metric = _named("semantic_similarity", _answer_metrics(down))
    failed = await score(metric, CASE, _answered("28 days"))
    assert failed.value is None
    assert failed.error == "ConnectionError: the embedder is down"


async def test_a_case_has_the_scores_that_apply_to_it_whether_it_was_answered_or_not() -> None:
    """What failed stays among those that a mean is taken of; what does not apply was never there."""
    for sample in (_answered("28 days [1]."), Sample(case_id="leave", errors={"chat": "503"})):
        asked = await score_case(service_metrics(), CASE, sample)
        unanswerable = await score_case(service_metrics(), UNANSWERABLE, sample)
        assert {"answered", "cited", "groundedness"} <= asked.keys()
        assert "abstained" not in asked
        assert "abstained" in unanswerable
        assert unanswerable.keys().isdisjoint({"answered", "cited", "citation_hit", "groundedness"})


async def test_not_a_number_is_an_error() -> None:
    async def zeros(texts: Sequence[str]) -> Sequence[Sequence[float]]:
        return [[0.0, float("nan")] for _ in texts]

    failed = await score(_named("semantic_similarity", _answer_metrics(zeros)), CASE, _answered("28 days"))
    assert failed.value is None
    assert failed.error
    assert "nan" in failed.error


async def test_a_request_that_failed_fails_every_metric_with_its_reason() -> None:
    lost = Sample(case_id="leave", errors={"chat": "503, the model is down"})
    for metric in [*_answer_metrics(_embed), *service_metrics()]:
        if metric.applies(CASE):
            assert (await score(metric, CASE, lost)).error == "503, the model is down"


async def test_no_metric_is_reported_to_anybody() -> None:
    _answer_metrics(_embed)
    from ragas._analytics import do_not_track

    assert os.environ["RAGAS_DO_NOT_TRACK"] == "true"
    assert do_not_track()


async def test_an_abstention_is_right_only_where_there_is_no_answer() -> None:
    abstained, made_up = _answered(NOT_FOUND), _answered("Yes, on Fridays.")
    assert await _service("abstained", UNANSWERABLE, abstained) == 1.0
    assert await _service("abstained", UNANSWERABLE, made_up) == 0.0
    assert await _service("answered", CASE, abstained) == 0.0
    assert await _service("answered", CASE, _answered("28 days [1]", citations=(GOOD,))) == 1.0
    assert not _named("abstained", service_metrics()).applies(CASE)
    assert not _named("answered", service_metrics()).applies(UNANSWERABLE)


async def test_a_citation_hits_only_with_the_gold_passage() -> None:
    assert await _service("citation_hit", CASE, _answered("28 [1]", citations=(GOOD,))) == 1.0
    wrong = _answered("28 [1]", citations=(OTHER,))
    assert await _service("citation_hit", CASE, wrong) == 0.0
    assert await _service("cited", CASE, wrong) == 1.0


async def test_a_cited_sentence_counts_when_its_own_passage_bears_it_out() -> None:
    cited = (replace(GOOD, number=1), replace(OTHER, number=2))
    both = "Everybody has 28 days of paid leave. [1] Three days a week from home. [2]"
    assert await _service("citation_support", CASE, _answered(both, citations=cited)) == 1.0
    crossed = "Everybody has 28 days of paid leave. [2] Three days a week from home. [2]"
    assert await _service("citation_support", CASE, _answered(crossed, citations=cited)) == 0.5
    assert await _service("citation_support", CASE, _answered("28 days.")) == 0.0


async def test_groundedness_is_what_the_service_found_and_nothing_where_it_abstained() -> None:
    half = _answered("28 days. [1] Or 30.", citations=(GOOD,), supported=0.5)
    assert await _service("groundedness", CASE, half) == 0.5
    assert await _service("groundedness", CASE, _answered(NOT_FOUND)) == 0.0
    unchecked = await score(_named("groundedness", service_metrics()), CASE, _answered("28 days."))
    assert (unchecked.value, unchecked.error) == (None, UNCHECKED)


async def test_words_and_tokens_are_counted() -> None:
    sample = _answered("It is 28 days. [1][2]", tokens=(120, 7))
    assert await _service("answer_words", CASE, sample) == 4.0
    assert await _service("prompt_tokens", CASE, sample) == 120.0
    assert await _service("output_tokens", CASE, sample) == 7.0
    assert await _service("latency_seconds", CASE, sample) == 0.1


def test_markers_are_no_part_of_what_was_said() -> None:
    assert plain("28 days [1]. Until March [2][3].") == "28 days. Until March."


async def test_what_is_asked_for_at_once_is_embedded_together_and_each_text_once() -> None:
    batches: list[list[str]] = []

    async def embed(texts: Sequence[str]) -> Sequence[Sequence[float]]:
        batches.append(list(texts))
        return [[float(len(text))] for text in texts]

    embeddings = Embeddings(embed)
    wanted = [f"text {n}" for n in range(MOST + 6)]
    vectors = await asyncio.gather(*(embeddings.of(text) for text in [*wanted, *wanted]))
    assert [len(batch) for batch in batches] == [MOST, 6]
    assert [vector[0] for vector in vectors[: len(wanted)]] == [len(text) ** 2 for text in wanted]
    await embeddings.of("text 0")
    assert len(batches) == 2


async def test_an_embedder_that_failed_is_asked_again() -> None:
    calls = 0

    async def embed(texts: Sequence[str]) -> Sequence[Sequence[float]]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ConnectionError("down")
        return [[1.0] for _ in texts]

    embeddings = Embeddings(embed)
    failed = await asyncio.gather(*(embeddings.of(text) for text in "ab"), return_exceptions=True)
    assert [type(one) for one in failed] == [ConnectionError, ConnectionError]
    assert await embeddings.of("a") == [1.0]


def test_pieces_fit_and_lose_nothing() -> None:
    text = "word " * 300 + "x" * 1000
    pieces = split(text)
    assert max(map(len, pieces)) <= PIECE
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")
    assert split("  ") == []


def _answered(
    text: str,
    citations: tuple[Passage, ...] = (),
    sources: tuple[Passage, ...] = (),
    supported: float | None = None,
    tokens: tuple[int, int] = (0, 0),
) -> Sample:
    reply = Reply(
        text=text,
        citations=citations,
        sources=sources,
        model="extractive",
        release="0123456789ab",
        degraded=(),
        seconds=0.1,
        supported=supported,
        prompt_tokens=tokens[0],
        output_tokens=tokens[1],
    )
    return Sample(case_id="leave", reply=reply, errors={})


async def _embed(texts: Sequence[str]) -> Sequence[Sequence[float]]:
    return [[1.0, 0.0] if "leave" in text else [0.0, 1.0] for text in texts]


async def _value(name: str, case: Case, sample: Sample) -> float | None:
    return await _of(_answer_metrics(_embed), name, case, sample)


def _answer_metrics(embed: Embed) -> list[Metric]:
    return answer_metrics(Embeddings(embed))


async def _service(name: str, case: Case, sample: Sample) -> float | None:
    return await _of(service_metrics(), name, case, sample)


async def _of(metrics: Sequence[Metric], name: str, case: Case, sample: Sample) -> float | None:
    metric = _named(name, metrics)
    assert metric.applies(case)
    found = await score(metric, case, sample)
    assert found.error is None
    return found.value


def _named(name: str, metrics: Sequence[Metric]) -> Metric:
    return next(metric for metric in metrics if metric.name == name)
