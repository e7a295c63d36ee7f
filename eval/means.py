"""How sure the means of one report are."""

from __future__ import annotations

from eval.metrics.catalogue import about
from eval.report import aggregates, by_metric, counted
from eval.statistics import mean_interval
from eval.types import Aggregate, Interval, Report


def means(report: Report) -> dict[str, tuple[Aggregate, Interval]]:
    """Each metric's mean with its two-sided 95 % interval, cases about one document taken together. The
    interval of a share ends where shares do: few cases would have it go on."""
    scores = by_metric(report)
    found = {}
    for name, aggregate in aggregates(report).items():
        clusters = [result.case.cluster for result in report.results if name in result.scores]
        interval = mean_interval(counted(name, scores[name]), clusters=clusters)
        if about(name).worst is not None:
            interval = Interval(interval.mean, max(0.0, interval.low), min(1.0, interval.high))
        found[name] = (aggregate, interval)
    return found
