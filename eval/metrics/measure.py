"""What a metric is, and the edge at which one that fails becomes a value.

A metric names the cases it applies to by the case alone, never by the outcome: what failed stays in its
population, so that losing hard cases cannot raise a mean.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from eval.types import Case, JudgeFailed, Passage, Reply, Sample, Score, Summarized

Applies = Callable[[Case], bool]
Measure = Callable[[Case, Sample], Awaitable[float]]
_MARKERS = re.compile(r"\s*\[\d+\]")


class NothingToScore(Exception):
    """The sample lacks the part that the metric scores; the message is that part's error."""


@dataclass(frozen=True, slots=True)
class Metric:
    """`measure` may raise anything."""

    name: str
    applies: Applies
    measure: Measure


def question(case: Case) -> bool:
    return case.kind == "question"


def answerable(case: Case) -> bool:
    return question(case) and case.answerable


def unanswerable(case: Case) -> bool:
    return question(case) and not case.answerable


def quoted(case: Case) -> bool:
    """The gold passages are known, not only their documents."""
    return question(case) and any(gold.quote for gold in case.gold)


def referenced(case: Case) -> bool:
    return answerable(case) and case.reference is not None


def summary(case: Case) -> bool:
    return case.kind == "summary"


def referenced_summary(case: Case) -> bool:
    return summary(case) and case.reference is not None


def any_case(case: Case) -> bool:
    return True


def reply_of(sample: Sample) -> Reply:
    if sample.reply is None:
        raise NothingToScore(sample.errors.get("chat", "There is no answer."))
    return sample.reply


def summary_of(sample: Sample) -> Summarized:
    if sample.summary is None:
        raise NothingToScore(sample.errors.get("summary", "There is no summary."))
    return sample.summary


def response_of(case: Case, sample: Sample) -> Reply | Summarized:
    """What was asked for: an answer or a summary."""
    return summary_of(sample) if summary(case) else reply_of(sample)


def plain(text: str) -> str:
    """A text without its citation markers, as references have none."""
    return _MARKERS.sub("", text).strip()


def hits_of(sample: Sample) -> tuple[Passage, ...]:
    if sample.hits is None:
        raise NothingToScore(sample.errors.get("search", "There are no hits."))
    return sample.hits


async def score(metric: Metric, case: Case, sample: Sample) -> Score:
    """The metric's value for the sample; an exception or a value that is no number is an error."""
    try:
        value = float(await metric.measure(case, sample))
    except NothingToScore as error:
        return Score(None, str(error))
    except JudgeFailed as error:
        return Score(None, str(error), "judge")
    except Exception as error:  # noqa: BLE001  a metric runner is an edge: any failure is a value
        return Score(None, f"{type(error).__name__}: {error}")
    if not math.isfinite(value):
        return Score(None, f"The metric gave {value}.")
    return Score(value)


async def score_case(metrics: Sequence[Metric], case: Case, sample: Sample) -> dict[str, Score]:
    return {metric.name: await score(metric, case, sample) for metric in metrics if metric.applies(case)}
