"""The epochs of collections that this process saw last, so that a new question need not ask for one.

An answer may be kept when the epoch at its end is one that was seen before its sources were looked for: then
nothing changed in between, however long ago it was seen. Seen too long ago, it is likely to have changed, and
the answer could not be kept; so it is asked for anew.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from retrieval.types import Filter

RECENT = 1.0
"""Seconds."""
MOST = 1_024


class Epochs:
    """By tenant and collections, which is all that an epoch depends on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: OrderedDict[tuple[str, tuple[str, ...]], tuple[float, str]] = OrderedDict()

    def see(self, where: Filter, epoch: str) -> None:
        key = (where.tenant, where.collections)
        self._seen[key] = (self._clock(), epoch)
        self._seen.move_to_end(key)
        if len(self._seen) > MOST:
            self._seen.popitem(last=False)

    def recent(self, where: Filter) -> str | None:
        at, epoch = self._seen.get((where.tenant, where.collections), (-RECENT, ""))
        return epoch if self._clock() - at < RECENT else None
