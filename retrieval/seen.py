"""What this process saw to be visible, and the epoch at which it was: while that lasts it still is.

So a search whose hits are all known asks the ledger for the epoch alone, and need not wait for its hits to
ask it. What is seen are the hits of searches and, now and then, all that a reader may see, so that a question
of which nobody asked the like is known, too.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from retrieval.types import Filter

_MOST = 200_000
"""Revisions kept, of all readers together; some 20 MB."""

AT_ONCE = 50_000
"""Revisions of a reader that are learnt at once: their list takes the ledger some 30 ms."""
_EVERY = 5.0
"""Seconds between two such lists, of all readers together."""

_Reader = tuple[str, frozenset[str] | None, tuple[str, ...], tuple[str, ...]]


@dataclass(slots=True)
class Known:
    """The revisions that one reader could see at `epoch`; it only grows."""

    epoch: str
    revisions: set[int] = field(default_factory=set)


class Seen:
    """Of one generation, by what a reader may read; the conditions on metadata are the store's."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._known: OrderedDict[_Reader, Known] = OrderedDict()
        self._kept = 0
        self._next = 0.0
        self.learning: asyncio.Task[None] | None = None

    def due(self, now: float) -> bool:
        """Whether it is time to learn all that a reader may see; then it is not again for a while."""
        if now < self._next or (self.learning is not None and not self.learning.done()):
            return False
        self._next = now + _EVERY
        return True

    def by(self, where: Filter) -> Known | None:
        """What this reader saw at the newest epoch known; None before it saw anything."""
        return self._known.get(_reader(where))

    def see(self, where: Filter, epoch: str, revisions: Iterable[int]) -> bool:
        """These were visible at that epoch; whether it is the one that was known. Those of another are
        forgotten, and if there are too many, those of whoever saw nothing new for the longest time."""
        reader = _reader(where)
        known = self._known.pop(reader, None)
        lasts = known is not None and known.epoch == epoch
        if known is None or not lasts:
            self._kept -= len(known.revisions) if known else 0
            known = Known(epoch)
        before = len(known.revisions)
        known.revisions.update(revisions)
        self._kept += len(known.revisions) - before
        self._known[reader] = known
        while self._kept > self._most:
            _, oldest = self._known.popitem(last=False)
            self._kept -= len(oldest.revisions)
        return lasts


def _reader(where: Filter) -> _Reader:
    return where.tenant, where.groups, where.collections, where.document_ids
