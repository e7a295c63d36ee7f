"""The outcome of planted regressions, for people and programs."""

from __future__ import annotations

import json
from collections.abc import Sequence

from eval.planted.types import Planted

_COLUMNS = ("regression", "planted", "severity", "expected", "stopped by", "why", "s")


def markdown(found: Sequence[Planted]) -> str:
    rows = [_COLUMNS, ("---",) * len(_COLUMNS), *(_row(one) for one in found)]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    return f"{table}\n\n{summary(found)}\n"


def body(found: Sequence[Planted]) -> str:
    rows = [
        {
            "name": one.plant.name,
            "planted": one.plant.about,
            "severity": one.plant.severity,
            "expected": list(one.plant.expected),
            "stage": one.stopped.stage,
            "by": one.stopped.by or None,
            "why": one.stopped.why,
            "seconds": round(one.seconds, 1),
            "missed": one.missed,
        }
        for one in found
    ]
    return json.dumps({"planted": rows, "missed": missed(found)}, indent=1) + "\n"


def line(one: Planted) -> str:
    """One outcome, as soon as it is known."""
    return f"{one.plant.name}: {_stopped(one)}. {one.stopped.why}"


def summary(found: Sequence[Planted]) -> str:
    severe = [one for one in found if one.plant.severity == "severe"]
    stopped = sum(not one.missed for one in severe)
    said = f"{stopped} of {len(severe)} severe regressions were stopped before any reader saw them."
    names = missed(found)
    return f"{said} Missed or stopped by mistake: {', '.join(names)}." if names else said


def missed(found: Sequence[Planted]) -> list[str]:
    return [one.plant.name for one in found if one.missed]


def _row(one: Planted) -> tuple[str, ...]:
    return (
        one.plant.name,
        one.plant.about,
        one.plant.severity,
        " or ".join(one.plant.expected),
        _stopped(one),
        one.stopped.why,
        f"{one.seconds:.0f}",
    )


def _stopped(one: Planted) -> str:
    return f"{one.stopped.stage}: {one.stopped.by}" if one.stopped.by else one.stopped.stage
