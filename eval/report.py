"""Reports and verdicts as JSON files.

A report keeps ids of passages, not their text: answers and questions are in it, the corpus is not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eval.types import (
    Aggregate,
    Case,
    CaseResult,
    Change,
    Check,
    DatasetRef,
    Gold,
    Interval,
    Passage,
    Regression,
    ReleaseRef,
    Reply,
    Report,
    ReportInvalid,
    Sample,
    Score,
    Verdict,
)

FORMAT = 1
LATENCY = "latency_seconds"


def aggregates(report: Report) -> dict[str, Aggregate]:
    """Each metric over all its cases, failed ones included."""
    return {
        name: Aggregate(
            mean=sum(counted(name, scores)) / len(scores),
            cases=len(scores),
            failed=sum(score.value is None for score in scores),
        )
        for name, scores in by_metric(report).items()
    }


def by_metric(report: Report) -> dict[str, list[Score]]:
    collected: dict[str, list[Score]] = {}
    for result in report.results:
        for name, score in result.scores.items():
            collected.setdefault(name, []).append(score)
    return collected


def counted(name: str, scores: Sequence[Score]) -> list[float]:
    """The values, with failures counted as the worst: 0, or the slowest time seen."""
    known = [score.value for score in scores if score.value is not None]
    worst = max(known, default=0.0) if name == LATENCY else 0.0
    return [worst if score.value is None else score.value for score in scores]


def report_json(report: Report) -> dict[str, Any]:
    body = {"kind": "report", "format": FORMAT, **asdict(report)}
    body["metrics"] = {name: asdict(aggregate) for name, aggregate in aggregates(report).items()}
    for result in body["results"]:
        sample = result["sample"]
        for passages in (sample["hits"], *_passage_lists(sample["reply"])):
            for passage in passages or ():
                del passage["text"]
    return body


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    return {"kind": "verdict", "format": FORMAT, **asdict(verdict)}


def dump(body: Mapping[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, indent=1) + "\n"


def read(path: Path) -> Report | Verdict:
    """What `dump` wrote; raises `ReportInvalid` for anything else."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportInvalid(f"Cannot read {path}: {error.strerror}.") from None
    except ValueError as error:
        raise ReportInvalid(f"{path} is not JSON: {error}.") from None
    try:
        if body["format"] != FORMAT:
            raise ReportInvalid(f"{path} has format {body['format']}; this version reads {FORMAT}.")
        return _verdict(body) if body["kind"] == "verdict" else _report(body)
    except (KeyError, TypeError, AttributeError) as error:
        raise ReportInvalid(f"{path} is not an evaluation report ({error!r}).") from None


def read_report(path: Path) -> Report:
    found = read(path)
    if not isinstance(found, Report):
        raise ReportInvalid(f"{path} is a verdict; give the report of an evaluation run.")
    return found


def _passage_lists(reply: dict[str, Any] | None) -> list[list[dict[str, Any]]]:
    return [reply["citations"], reply["sources"]] if reply else []


def _report(body: dict[str, Any]) -> Report:
    return Report(
        dataset=DatasetRef(**body["dataset"]),
        release=ReleaseRef(**body["release"]),
        product=body["product"],
        started_at=body["started_at"],
        seconds=body["seconds"],
        results=tuple(_result(row) for row in body["results"]),
        error=body["error"],
    )


def _result(row: dict[str, Any]) -> CaseResult:
    case = row["case"]
    return CaseResult(
        case=Case(
            **{**case, "gold": tuple(Gold(**gold) for gold in case["gold"]), "tags": tuple(case["tags"])}
        ),
        sample=_sample(row["sample"]),
        scores={name: Score(**score) for name, score in row["scores"].items()},
    )


def _sample(row: dict[str, Any]) -> Sample:
    reply, hits = row["reply"], row["hits"]
    return Sample(
        case_id=row["case_id"],
        reply=None if reply is None else _reply(reply),
        hits=None if hits is None else _passages(hits),
        errors=row["errors"],
    )


def _reply(row: dict[str, Any]) -> Reply:
    return Reply(
        **{
            **row,
            "citations": _passages(row["citations"]),
            "sources": _passages(row["sources"]),
            "degraded": tuple(row["degraded"]),
        }
    )


def _passages(rows: list[dict[str, Any]]) -> tuple[Passage, ...]:
    return tuple(Passage(**row) for row in rows)


def _verdict(body: dict[str, Any]) -> Verdict:
    return Verdict(
        passed=body["passed"],
        dataset=DatasetRef(**body["dataset"]),
        baseline=ReleaseRef(**body["baseline"]),
        candidate=ReleaseRef(**body["candidate"]),
        checks=tuple(_check(row) for row in body["checks"]),
        regressions=tuple(Regression(**row) for row in body["regressions"]),
        changes=tuple(Change(**row) for row in body["changes"]),
    )


def _check(row: dict[str, Any]) -> Check:
    difference = row["difference"]
    return Check(**{**row, "difference": Interval(**difference) if difference else None})
