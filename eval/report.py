"""Reports and verdicts as JSON files.

A report keeps ids of passages, not their text: answers and questions are in it, the corpus is not.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eval.decoding import decoded
from eval.metrics.catalogue import about
from eval.types import Aggregate, Report, ReportInvalid, Score, Verdict

FORMAT = 2
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
    """The values, with failures counted as the worst there can be, or where there is no such end, that was
    seen."""
    known = [score.value for score in scores if score.value is not None]
    worst = about(name).worst
    if worst is None:
        worst = max(known, default=0.0)
    return [worst if score.value is None else score.value for score in scores]


def failures(report: Report) -> Counter[str]:
    """What went wrong, and how many times. A metric without a value because of a failed request is not
    counted again."""
    found: Counter[str] = Counter()
    for result in report.results:
        errors = result.sample.errors
        found.update(f"{part}: {error}" for part, error in errors.items())
        found.update(
            f"{name}: {score.error}"
            for name, score in result.scores.items()
            if score.error and score.error not in errors.values()
        )
    return found


def report_json(report: Report) -> dict[str, Any]:
    body = {"kind": "report", "format": FORMAT, **asdict(report)}
    body["metrics"] = {name: asdict(aggregate) for name, aggregate in aggregates(report).items()}
    for result in body["results"]:
        for passages in _passages(result["sample"]):
            for passage in passages:
                del passage["text"]
    return body


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    return {"kind": "verdict", "format": FORMAT, "passed": verdict.passed, **asdict(verdict)}


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
        kind, found = body.pop("kind"), body.pop("format")
        if found != FORMAT:
            raise ReportInvalid(f"{path} has format {found}; this version reads {FORMAT}.")
        del body["passed" if kind == "verdict" else "metrics"]
        return decoded(Verdict, body) if kind == "verdict" else decoded(Report, body)
    except (KeyError, TypeError, AttributeError) as error:
        raise ReportInvalid(f"{path} is not an evaluation report ({error!r}).") from None


def read_report(path: Path) -> Report:
    found = read(path)
    if not isinstance(found, Report):
        raise ReportInvalid(f"{path} is a verdict; give the report of an evaluation run.")
    return found


def _passages(sample: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    yield sample["hits"] or []
    for answer in (sample["reply"], sample["summary"]):
        if answer:
            yield answer["citations"]
            yield answer.get("sources", [])
