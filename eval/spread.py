"""How the values of metrics lie, in bins: what a mean does not show."""

from __future__ import annotations

from collections.abc import Sequence

from eval.metrics.catalogue import about
from eval.report import by_metric
from eval.types import Report, Run, Score, Spread

BINS = 20


def run_of(report: Report) -> Run:
    return Run(
        product=report.product,
        started_at=report.started_at,
        seconds=report.seconds,
        cases=len(report.results),
        lost=sum(bool(result.sample.errors) for result in report.results),
        leaks=report.leaks,
    )


def spreads(baseline: Report, candidate: Report) -> tuple[Spread, ...]:
    """One for each metric that both reports have values of, in the baseline's order."""
    before, after = by_metric(baseline), by_metric(candidate)
    pairs = {name: (_known(before[name]), _known(after.get(name, ()))) for name in before}
    return tuple(_spread(name, old, new) for name, (old, new) in pairs.items() if old and new)


def spreads_of(report: Report) -> tuple[Spread, ...]:
    """The same of a report alone: nothing in the candidate's bins."""
    values = {name: _known(scores) for name, scores in by_metric(report).items()}
    return tuple(_spread(name, known, []) for name, known in values.items() if known)


def _known(scores: Sequence[Score]) -> list[float]:
    return [score.value for score in scores if score.value is not None]


def _spread(metric: str, baseline: Sequence[float], candidate: Sequence[float]) -> Spread:
    low, high = _range(metric, [*baseline, *candidate])
    return Spread(
        metric=metric,
        low=low,
        high=high,
        baseline=_bins(baseline, low, high),
        candidate=_bins(candidate, low, high),
    )


def _range(metric: str, values: Sequence[float]) -> tuple[float, float]:
    """Shares are shown from 0 to 1 wherever they lie, so that pictures of two reports compare; seconds and
    counts up to the greatest."""
    low, high = min(0.0, *values), max(values)
    if about(metric).worst is not None and low == 0 and high <= 1:
        return 0.0, 1.0
    return low, high if high > low else low + 1.0


def _bins(values: Sequence[float], low: float, high: float) -> tuple[int, ...]:
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, int((value - low) / (high - low) * BINS))] += 1
    return tuple(counts)
