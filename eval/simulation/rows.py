"""What a simulation found: a row each, with its target where there is one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Progress = Callable[[str, int, int], None]
Unit = Literal["share", "points", "units", "pairs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`value` is a share in [0, 1], a loss in points of a hundred, or a number of units or pairs, infinite if
    not found. `error` is its standard error of simulation. The target is met within [low, high]."""

    about: str
    name: str
    value: float
    unit: Unit = "share"
    error: float | None = None
    low: float = -math.inf
    high: float = math.inf
    runs: int

    @property
    def met(self) -> bool | None:
        """None where there is no target."""
        if math.isinf(self.low) and math.isinf(self.high):
            return None
        return self.low <= self.value <= self.high


@dataclass(frozen=True, slots=True)
class Table:
    rows: tuple[Row, ...]

    @property
    def met(self) -> bool:
        return all(row.met is not False for row in self.rows)

    @property
    def markdown(self) -> str:
        lines = ["| what | | found | ± | target | met | runs |", "|---|---|---:|---:|---:|---|---:|"]
        for row in self.rows:
            error = "" if row.error is None else _shown(row.error, row.unit)
            met = {True: "yes", False: "**NO**", None: ""}[row.met]
            cells = [row.about, row.name, _shown(row.value, row.unit), error, _target(row), met]
            lines.append(f"| {' | '.join(cells)} | {row.runs} |")
        return "\n".join(lines) + "\n"

    @property
    def json(self) -> str:
        rows = [
            {
                "about": row.about,
                "name": row.name,
                "value": _finite(row.value),
                "unit": row.unit,
                "error": row.error,
                "target": [_finite(row.low), _finite(row.high)],
                "met": row.met,
                "runs": row.runs,
            }
            for row in self.rows
        ]
        return json.dumps({"met": self.met, "rows": rows}, indent=1) + "\n"


def share(
    about: str, name: str, hits: Sequence[bool], *, low: float = -math.inf, high: float = math.inf
) -> Row:
    """How often something happened."""
    rate = sum(hits) / len(hits)
    error = math.sqrt(rate * (1 - rate) / len(hits))
    return Row(about=about, name=name, value=rate, error=error, low=low, high=high, runs=len(hits))


def percentile(
    about: str, name: str, values: Sequence[float], *, unit: Unit, at: float = 0.95, high: float = math.inf
) -> Row:
    """The smallest value that a share of the runs does not exceed."""
    ordered = sorted(values)
    value = ordered[max(0, math.ceil(at * len(ordered)) - 1)]
    return Row(about=about, name=name, value=value, unit=unit, high=high, runs=len(ordered))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _target(row: Row) -> str:
    if row.met is None:
        return ""
    high = _shown(row.high, row.unit)
    return f"at most {high}" if math.isinf(row.low) else f"{_shown(row.low, row.unit)} to {high}"


def _shown(value: float, unit: Unit) -> str:
    if math.isinf(value):
        return "never"
    match unit:
        case "share":
            return f"{value:.2%}"
        case "points":
            return f"{value:.2f} points"
        case _:
            return f"{value:.0f} {unit}"
