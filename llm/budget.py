"""How many requests may be sent a second time, so that retries never make an outage worse.

A bucket of tokens: every request puts a fraction in, every retry takes a whole one out. A small floor that
fills by time lets a service with few requests retry too.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class RetryBudget:
    """Retries are at most `share` of the requests, plus `floor` at once, which fill up at `per_second`."""

    def __init__(
        self,
        *,
        share: float = 0.1,
        floor: float = 3.0,
        most: float = 20.0,
        per_second: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._share = share
        self._floor = floor
        self._most = most
        self._per_second = per_second
        self._clock = clock
        self._left = floor
        self._at = clock()

    def earn(self) -> None:
        """A request was sent."""
        self._left = min(self._most, self._left + self._share)

    def spend(self) -> bool:
        """Whether a retry may be sent; counts it if so."""
        now = self._clock()
        if self._left < self._floor:
            self._left = min(self._floor, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
