"""What is written of a report or a verdict comes back as it was, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from eval.decoding import decoded
from eval.report import aggregates, counted, dump, failures, read, read_report, report_json, verdict_json
from eval.types import Passage, Report, ReportInvalid, Score
from tests.reports import report, verdict


def test_a_report_comes_back_without_the_text_of_passages_and_with_all_else(tmp_path: Path) -> None:
    original = report(leaks=("prompts/answer.md holds case-03.",), lost=2)
    found = read(_written(tmp_path, report_json(original)))
    assert found == _without_passages(original)
    assert "the passage's text" not in (tmp_path / "file.json").read_text()


@pytest.mark.parametrize("outcome", ["passed", "failed", "no_verdict"])
def test_a_verdict_comes_back_whole(tmp_path: Path, outcome: Any) -> None:
    original = verdict(outcome)
    path = _written(tmp_path, verdict_json(original))
    assert read(path) == original
    assert json.loads(path.read_text())["passed"] is (outcome == "passed")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda body: body.update(format=1), "has format 1; this version reads 2"),
        (lambda body: body.update(extra=1), "Report has no extra"),
        (lambda body: body.pop("dataset"), "dataset"),
        (lambda body: body.update(seconds="12"), "is no float"),
        (lambda body: body.update(seconds=True), "is no float"),
        (lambda body: body["results"][0]["case"].update(kind="poem"), "'poem' is none of question, summary"),
    ],
)
def test_what_is_no_report_of_this_version_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    body = json.loads(dump(report_json(report())))
    change(body)
    with pytest.raises(ReportInvalid, match=said):
        read(_written(tmp_path, body))


def test_a_verdict_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(ReportInvalid, match="is a verdict"):
        read_report(_written(tmp_path, verdict_json(verdict())))


@dataclass(frozen=True)
class _Pair:
    name: str
    values: tuple[float, ...] = ()


def test_unknown_fields_are_dropped_only_where_that_is_asked_for() -> None:
    body = {"name": "a", "values": [1, 2.5], "new": True}
    assert decoded(_Pair, body, lenient=True) == _Pair("a", (1.0, 2.5))
    with pytest.raises(TypeError, match="_Pair has no new"):
        decoded(_Pair, body)


def test_a_failure_counts_as_the_worst_that_its_metric_knows() -> None:
    lost = Score(None, "away")
    assert counted("context_recall", [Score(0.5), lost]) == [0.5, 0.0]
    assert counted("malformed", [Score(0.0), lost]) == [0.0, 1.0]
    assert counted("latency_seconds", [Score(0.2), Score(3.0), lost]) == [0.2, 3.0, 3.0]


def test_failures_are_counted_once_for_a_request_and_never_leave_a_mean() -> None:
    found = report(1.0, lost=3)
    assert failures(found) == {"chat: The request took too long.": 3}
    assert aggregates(found)["context_recall"].mean == pytest.approx(9 / 12)
    assert aggregates(found)["context_recall"].failed == 3


def _written(folder: Path, body: dict[str, Any]) -> Path:
    path = folder / "file.json"
    path.write_text(dump(body), encoding="utf-8")
    return path


def _without_passages(found: Report) -> Report:
    def bare(passages: tuple[Passage, ...]) -> tuple[Passage, ...]:
        return tuple(replace(passage, text="") for passage in passages)

    results = []
    for result in found.results:
        sample, reply, summary = result.sample, result.sample.reply, result.sample.summary
        if reply:
            reply = replace(reply, citations=bare(reply.citations), sources=bare(reply.sources))
        if summary:
            summary = replace(summary, citations=bare(summary.citations))
        hits = bare(sample.hits) if sample.hits else None
        sample = replace(sample, reply=reply, summary=summary, hits=hits)
        results.append(replace(result, sample=sample))
    return replace(found, results=tuple(results))
