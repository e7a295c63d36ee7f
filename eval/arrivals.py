"""Outcomes in the order in which their requests began, whichever release answered.

An outcome is recorded when its request ends. Where one release answers sooner than the other, more of its
latest requests are known at any moment, those with harm among them, and a test that rests on the draw alone
would take that for harm. So an outcome is held until as long after its request began as the requests of both
releases take of late.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from app.trials import Outcome

LATELY = 200
"""Requests by which it is known how long they take,"""
MOST = 0.95
"""and the share of them that takes no longer than what is waited for."""
LONGEST = 30.0
"""Seconds that an outcome is held at most: a rollback must not wait for requests that nobody answers."""


@dataclass(slots=True)
class Arrivals:
    """Times are those of the ledger's clock."""

    _held: list[tuple[datetime, int, Outcome]] = field(default_factory=list)
    _took: deque[float] = field(default_factory=lambda: deque(maxlen=LATELY))

    def add(self, outcome: Outcome) -> None:
        took = float(outcome.facts["seconds"])
        self._took.append(took)
        heapq.heappush(self._held, (outcome.at - timedelta(seconds=took), outcome.id, outcome))

    def due(self, now: datetime) -> Iterator[Outcome]:
        """Those whose time has come, each once, with that time as theirs."""
        wait = timedelta(seconds=self._wait())
        while self._held and self._held[0][0] + wait <= now:
            begun, _, outcome = heapq.heappop(self._held)
            yield replace(outcome, at=begun + wait)

    def _wait(self) -> float:
        took = sorted(self._took)
        return min(took[int(MOST * (len(took) - 1))], LONGEST) if took else 0.0
