"""nDCG@10 of several ways to search on several data sets, and how sure their differences are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.statistics import mean_difference
from eval.types import Interval

DEPTH = 10

Scores = Mapping[str, float]
"""By case id."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """`after` minus the best of `before`, which is chosen on each data set by its mean."""

    name: str
    before: tuple[str, ...]
    after: str

    def differences(self, column: Mapping[str, Scores]) -> Interval | None:
        """The mean and its 95% interval over the cases, paired; None when a row is not there."""
        there = [column[name] for name in self.before if name in column]
        if len(there) < len(self.before) or self.after not in column:
            return None
        best, after = max(there, key=_mean), column[self.after]
        return mean_difference([best[case] for case in after], list(after.values()))


@dataclass(frozen=True, slots=True)
class Table:
    """`columns`: data set to row to scores. Every data set has the same rows; a row's scores are of the same
    cases in the same order."""

    release: str
    columns: Mapping[str, Mapping[str, Scores]]
    comparisons: Sequence[Comparison]

    def means(self) -> dict[str, dict[str, float]]:
        """Row to data set to mean."""
        rows = next(iter(self.columns.values()))
        return {row: {name: _mean(column[row]) for name, column in self.columns.items()} for row in rows}

    def differences(self) -> dict[str, dict[str, Interval]]:
        """Comparison to data set to difference, where both rows are there."""
        found = {
            each.name: {name: each.differences(column) for name, column in self.columns.items()}
            for each in self.comparisons
        }
        return {
            name: {key: value for key, value in row.items() if value is not None}
            for name, row in found.items()
            if None not in row.values()
        }

    def markdown(self) -> str:
        lines = [*_head(f"nDCG@{DEPTH}", self.columns)]
        for name, means in self.means().items():
            cells = [f"{value:.4f}" for value in (*means.values(), float(np.mean(list(means.values()))))]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        if differences := self.differences():
            lines += ["", *_head("difference, 95% interval", self.columns)]
        for name, intervals in differences.items():
            mean = float(np.mean([each.mean for each in intervals.values()]))
            cells = [*map(_interval, intervals.values()), f"{mean:+.4f}"]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"

    def json(self) -> str:
        differences = {
            name: {key: [each.mean, each.low, each.high] for key, each in row.items()}
            for name, row in self.differences().items()
        }
        return json.dumps(
            {
                "metric": f"ndcg@{DEPTH}",
                "release": self.release,
                "rows": self.means(),
                "differences": differences,
                "cases": self.columns,
            },
            indent=1,
        )


def _mean(scores: Scores) -> float:
    return float(np.mean(list(scores.values())))


def _interval(each: Interval) -> str:
    return f"{each.mean:+.4f} ({each.low:+.4f} to {each.high:+.4f})"


def _head(name: str, columns: Mapping[str, object]) -> list[str]:
    return [f"| {name} | " + " | ".join(columns) + " | mean |", "|---|" + "---|" * (len(columns) + 1)]
