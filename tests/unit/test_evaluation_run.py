"""An evaluation loses nothing, whatever fails under it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.embedded import free_port
from eval.cases import limited, load_dataset
from eval.gate import judge
from eval.metrics.catalogue import about
from eval.report import aggregates
from eval.rules import load_rules
from eval.run import collect, evaluate, evaluate_private
from eval.target import HttpTarget
from eval.types import (
    CannotJudge,
    Case,
    Dataset,
    DatasetRef,
    Gold,
    InstanceFailed,
    ReleaseRef,
    Sample,
    SourceDocument,
)
from tests.replying import Post, Replying, replying

RELEASE = ReleaseRef(id="0123456789ab", name="default", fingerprint="0" * 64, canonical="{}")
REF = DatasetRef(name="x", version="1", fingerprint="")


def _silent(step: str, done: int, total: int) -> None:
    return None


async def test_an_instance_that_is_down_leaves_a_report_in_which_every_case_failed() -> None:
    dataset = limited(load_dataset("handbook"), 10)
    async with HttpTarget(f"http://127.0.0.1:{free_port()}") as target:
        report = await evaluate(target, dataset, RELEASE, product="0.1.0", progress=_silent)
    assert [result.case for result in report.results] == list(dataset.cases)
    for result in report.results:
        asked = {"summary"} if result.case.kind == "summary" else {"chat", "search"}
        assert set(result.sample.errors) == asked
    for name, aggregate in aggregates(report).items():
        assert (name, aggregate.coverage, aggregate.mean) == (name, 0.0, about(name).worst or 0.0)
    with pytest.raises(CannotJudge):
        judge(report, report, load_rules())


async def test_an_answer_from_a_cache_is_an_error_of_its_case() -> None:
    case = Case(id="leave", question="How many?", gold=(Gold("leave"),), reference="28 days")
    for cached, errors in ((None, {}), ("answer", {"chat": "The answer came from a cache (answer)."})):
        [sample] = await _asked(case, cached)
        assert (sample.errors, sample.reply is None) == (errors, cached is not None)
        assert sample.hits == ()


async def test_searches_answers_and_summaries_are_asked_of_the_release_under_test() -> None:
    """`plumbline` is whatever serves by then, a candidate on trial for some conversations."""
    gold = (Gold("leave"),)
    cases = (
        Case(id="leave", question="How many?", gold=gold, reference="28 days"),
        Case(id="sum", kind="summary", question="Days?", gold=gold, words=80),
    )
    dataset = Dataset(
        ref=REF, licence="", cases=cases, documents=(SourceDocument(id="leave", content=b"28 days."),)
    )
    server = Replying(_house(None))
    with replying(server) as url:
        async with HttpTarget(url) as target:
            await evaluate(target, dataset, RELEASE, product="0.1.0", progress=_silent)
    asked = [body["model"] for body in server.bodies if "input" not in body]
    assert asked == [f"plumbline@{RELEASE.id}"] * 3


async def test_a_summary_is_asked_for_by_its_documents_words_and_language_and_by_no_cache() -> None:
    gold = (Gold("leave", "28"), Gold("leave", "30"), Gold("remote"))
    case = Case(id="sum", kind="summary", question="Days?", gold=gold, words=80, language="de")
    server = Replying(_house(None))
    [sample] = await _asked(case, None, server)
    [body] = server.bodies
    assert body == {
        "model": "plumbline",
        "document_ids": ["leave", "remote"],
        "focus": "Days?",
        "max_words": 80,
        "language": "de",
        "cache": False,
    }
    assert sample.summary
    assert (sample.summary.coverage, sample.summary.supported, sample.summary.output_tokens) == (0.5, 1.0, 7)
    assert sample.errors == {}


async def _asked(case: Case, cached: str | None, server: Replying | None = None) -> list[Sample]:
    dataset = Dataset(ref=REF, licence="", cases=(case,), documents=())
    with replying(server or Replying(_house(cached))) as url:
        async with HttpTarget(url) as target:
            return await collect(target, dataset, _silent)


def _house(cached: str | None) -> Post:
    """What the service replies, as its pages describe it."""
    told: dict[str, Any] = {"citations": [], "release": "0123456789ab", "degraded": []}
    told |= {"model": "extractive", "supported": 1}
    usage = {"prompt_tokens": 90, "completion_tokens": 7}
    chat: dict[str, Any] = {**told, "sources": [], "cached": cached}
    replies: dict[str, object] = {
        "/v1/search": {"hits": []},
        "/v1/embeddings": {"data": []},
        "/v1/summarize": {**told, "text": "28.", "coverage": 0.5, "sections_cited": 1, "usage": usage},
        "/v1/chat/completions": {
            "id": "chatcmpl-1",
            "choices": [{"message": {"content": "28"}, "finish_reason": "stop"}],
            "usage": usage,
            "model": "plumbline",
            "plumbline": chat,
        },
    }
    return lambda path, body: (200, replies[path])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = [", "not valid TOML"),
        ('name = "x"\nmodels = [{ name = "extractive" }]\n[search]\nlimt = 1\n', "search.limt"),
        (
            'name = "x"\nmodels = [{ name = "extractive" }]\n[prompts]\nanswer = "./none.md"\n',
            "prompts.answer",
        ),
    ],
)
async def test_a_release_that_cannot_be_loaded_has_failed_every_case(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(text)
    dataset = limited(load_dataset("handbook"), 5)
    report = await evaluate_private(path, dataset, product="0.1.0", progress=_silent)
    assert report.error
    assert said in report.error
    assert report.release.name == "broken"
    assert len(report.results) == 5
    assert all(score.value is None for result in report.results for score in result.scores.values())
    for result in report.results:
        parts = {"summary"} if result.case.kind == "summary" else {"chat", "search"}
        assert result.sample.errors == dict.fromkeys(parts, report.error)


async def test_an_evaluation_whose_instance_ends_before_it_is_asked_has_failed_every_case(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @asynccontextmanager
    async def gone(release: Path | None) -> AsyncIterator[HttpTarget]:
        async with HttpTarget(f"http://127.0.0.1:{free_port()}") as target:
            yield target

    monkeypatch.setattr("eval.run.private_instance", gone)
    dataset = limited(load_dataset("handbook"), 5)
    report = await evaluate_private(None, dataset, product="0.1.0", progress=_silent)
    assert report.error
    assert report.release.name == "default"
    assert len(report.results) == 5
    assert all(score.value is None for result in report.results for score in result.scores.values())


async def test_a_release_file_that_is_not_there_is_no_evaluation(tmp_path: Path) -> None:
    dataset = limited(load_dataset("handbook"), 5)
    with pytest.raises(InstanceFailed, match="nowhere"):
        await evaluate_private(tmp_path / "nowhere.toml", dataset, product="0.1.0", progress=_silent)
