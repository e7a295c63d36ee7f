"""What an answer does without under load, rather than not being given: a ladder of rungs, told in `degraded`.

full -> no reranking -> a smaller model -> sentences of the sources -> the sources alone. How full the queue
may be for each is in the release; the rung is fixed when the question's turn comes.
"""

from __future__ import annotations

from enum import IntEnum

from app.release import LadderPart, Release


class Rung(IntEnum):
    """The higher, the less is done; each includes those below it."""

    FULL = 0
    NO_RERANK = 1
    SMALLER = 2
    EXTRACTIVE = 3
    SEARCH_ONLY = 4


def rung_of(release: Release, pressure: float) -> Rung:
    """The rung for a share of the queue that is taken, 0 to 1."""
    highest = Rung.FULL
    for rung, threshold in _thresholds(release.body.ladder):
        if pressure > threshold:
            highest = rung
    return highest


def spared(release: Release, rung: Rung) -> int:
    """How many models of the release's chain are left out from the front (`Call.spare`)."""
    if rung >= Rung.EXTRACTIVE:
        return len(release.body.models) - 1
    return 1 if rung >= Rung.SMALLER else 0


def _thresholds(part: LadderPart) -> tuple[tuple[Rung, float], ...]:
    return (
        (Rung.NO_RERANK, part.no_rerank),
        (Rung.SMALLER, part.smaller),
        (Rung.EXTRACTIVE, part.extractive),
        (Rung.SEARCH_ONLY, part.search_only),
    )
