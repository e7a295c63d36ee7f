"""What a metric is, and the edge at which one that fails becomes a value.

A metric names the cases it applies to by the case alone, never by the outcome: what failed stays in its
population, so that losing hard cases cannot raise a mean.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from eval.types import Case, Passage, Reply, Sample, Score

Applies = Callable[[Case], bool]
Measure = Callable[[Case, Sample], Awaitable[float]]


class NothingToScore(Exception):
    """The sample lacks the part that the metric scores; the message is that part's error."""


@dataclass(frozen=True, slots=True)
class Metric:
    """`measure` may raise anything."""

    name: str
    applies: Applies
    measure: Measure


def answerable(case: Case) -> bool:
    return case.answerable


def unanswerable(case: Case) -> bool:
    return not case.answerable


def quoted(case: Case) -> bool:
    """The gold passages are known, not only their documents."""
    return any(gold.quote for gold in case.gold)


def any_case(case: Case) -> bool:
    return True


def reply_of(sample: Sample) -> Reply:
    if sample.reply is None:
        raise NothingToScore(sample.errors.get("chat", "There is no answer."))
    return sample.reply


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
    except Exception as error:  # noqa: BLE001  a metric runner is an edge: any failure is a value
        return Score(None, f"{type(error).__name__}: {error}")
    if not math.isfinite(value):
        return Score(None, f"The metric gave {value}.")
    return Score(value)


async def score_case(metrics: Sequence[Metric], case: Case, sample: Sample) -> dict[str, Score]:
    return {metric.name: await score(metric, case, sample) for metric in metrics if metric.applies(case)}
