"""How many questions may be with the model at once, by how long the model's own queue is.

Additive increase, multiplicative decrease (Chiu and Jain, 1989), as in TCP: each process finds its share of
servers that others use too, without talking to them.
"""

from __future__ import annotations

from llm.types import Load

DECREASE = 0.75
INCREASE = 0.1
TOLERATED = 0.1
"""Requests that may wait in the model's queue, as a share of those that run, before we send fewer: a queue
that is always empty would be a model that is not always busy."""
BELIEVED = 10.0
"""Seconds after which the last report says nothing any more."""


class Limit:
    """Between `least` and `most`; `most` while no server reports."""

    def __init__(self, *, least: int, most: int) -> None:
        self._least = min(least, most)
        self._most = most
        self._value = float(most)
        self._heard = float("-inf")
        self._reached = 0

    @property
    def value(self) -> int:
        return int(self._value)

    def reach(self, running: int) -> None:
        """So many run now. A limit that nobody reaches does not grow."""
        self._reached = max(self._reached, running)

    def hear(self, load: Load | None, now: float) -> None:
        """Take a report into account, each once."""
        if load is None or load.at <= self._heard:
            if now - self._heard > BELIEVED:
                self._value = float(self._most)
            return
        self._heard = load.at
        if load.waiting > 1 + TOLERATED * load.running:
            self._value = max(self._least, self._value * DECREASE)
        elif self._reached >= self.value:
            self._value = min(self._most, self._value + max(1.0, INCREASE * self._value))
        self._reached = 0
