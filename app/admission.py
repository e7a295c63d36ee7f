"""Who may be answered now: a bound on running and on waiting, and turns that are fair between tenants.

Each tenant has a queue of its own; a free place goes to the tenants in turn, so that one that sends a
thousand questions delays another by one question at most per place. The bound on running follows the
model's own queue. Whoever could not be answered in time after waiting is told at once, and when to come
back, by how long answers really take.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from app import deadline as time_left
from app.errors import AdmissionFull, DeadlineExceeded
from app.limit import Limit
from llm.types import Load

LEAST = 4
"""Questions at once below which no report of the model brings the bound."""
_RETRY_AFTER = 1.0
_LEARNT = 0.1
"""Weight of the newest answer in the mean time that answers take."""

_Place = asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class Turn:
    """A place held. `pressure` is the share of the queue that was taken when it was given, 0 to 1."""

    pressure: float


TakeTurn = Callable[[], AbstractAsyncContextManager[Turn]]


@asynccontextmanager
async def unhurried() -> AsyncIterator[Turn]:
    """The turn of whoever has the house to themselves."""
    yield Turn(0.0)


class Admission:
    """`max_running` at once in this process, `max_waiting` more in queues; the next is refused at once. Where
    `sparing`, a tenant takes a place only while it holds fewer than are free: alone it has half of them, the
    next half of the rest, so that those who are slow leave room. `load` tells what the model has to do, where
    somebody knows."""

    def __init__(
        self,
        *,
        max_running: int,
        max_waiting: int,
        sparing: bool = False,
        load: Callable[[], Load | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_waiting = max_waiting
        self._sparing = sparing
        self._held: Counter[str] = Counter()
        self._limit = Limit(least=LEAST, most=max_running)
        self._load = load
        self._clock = clock
        self._queues: OrderedDict[str, deque[_Place]] = OrderedDict()
        self._running = 0
        self._waiting = 0
        self._seconds: float | None = None

    @property
    def running(self) -> int:
        return self._running

    @property
    def waiting(self) -> int:
        return self._waiting

    @property
    def limit(self) -> int:
        """How many may run at once now."""
        return self._limit.value

    @asynccontextmanager
    async def turn(self, tenant: str, deadline: float) -> AsyncIterator[Turn]:
        """Hold a place for the block. Raises `AdmissionFull` at once, also when the deadline cannot be
        kept after the wait; `DeadlineExceeded` after waiting."""
        self._adjust()
        if self._running < self._limit.value and self._may(tenant):
            self._take(tenant)
        else:
            await self._wait(tenant, deadline)
        begin = self._clock()
        try:
            yield Turn(self._pressure())
            self._learn(self._clock() - begin)  # Not of one given up half-way: it says nothing.
        finally:
            self._leave(tenant)

    def _may(self, tenant: str) -> bool:
        """Whether one more of the places that are free may be this tenant's."""
        return not self._sparing or self._held[tenant] < self._limit.value - self._running

    def _take(self, tenant: str) -> None:
        self._running += 1
        self._held[tenant] += 1

    def _pressure(self) -> float:
        return min(1.0, self._waiting / self._max_waiting) if self._max_waiting else 0.0

    def _adjust(self) -> None:
        self._limit.reach(self._running)
        self._limit.hear(self._load(), self._clock())

    def _learn(self, seconds: float) -> None:
        known = self._seconds
        self._seconds = seconds if known is None else known + _LEARNT * (seconds - known)

    async def _wait(self, tenant: str, deadline: float) -> None:
        seconds = time_left.left(deadline)
        self._require_room(tenant, seconds)
        place: _Place = asyncio.get_running_loop().create_future()
        self._queues.setdefault(tenant, deque()).append(place)
        self._waiting += 1
        try:
            await asyncio.wait((place,), timeout=seconds)
        except asyncio.CancelledError:
            self._give_up(tenant, place)
            raise
        if not place.done():
            self._give_up(tenant, place)
            raise DeadlineExceeded("The request's time ran out while it waited for its turn. Ask again.")

    def _require_room(self, tenant: str, seconds: float) -> None:
        """Raise `AdmissionFull` when the queues are full or the wait would be too long."""
        if self._waiting >= self._max_waiting:
            raise AdmissionFull(max(_RETRY_AFTER, self._time_for(self._waiting)))
        late = self._time_for(self._before(tenant)) + (self._seconds or 0.0) - seconds
        if self._seconds is not None and late > 0 and self._waiting:
            raise AdmissionFull(max(_RETRY_AFTER, late))

    def _before(self, tenant: str) -> int:
        """Questions that get a place before the next one of this tenant."""
        own = len(self._queues.get(tenant, ()))
        return sum(min(len(queue), own + 1) for queue in self._queues.values())

    def _time_for(self, questions: int) -> float:
        """Seconds until that many more have got a place, by what answers took lately."""
        return questions * (self._seconds or 0.0) / self._limit.value

    def _give_up(self, tenant: str, place: _Place) -> None:
        """Stop waiting; a place that was handed over in the same moment goes to the next."""
        if place.done():
            self._leave(tenant)
            return
        self._waiting -= 1
        queue = self._queues[tenant]
        queue.remove(place)
        if not queue:
            del self._queues[tenant]

    def _leave(self, tenant: str) -> None:
        """Free the place, and give out what the limit allows to the tenants in turn."""
        self._adjust()
        self._running -= 1
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        while self._running < self._limit.value and (chosen := self._next()) is not None:
            queue = self._queues.pop(chosen)
            queue.popleft().set_result(None)
            self._waiting -= 1
            self._take(chosen)
            if queue:
                self._queues[chosen] = queue

    def _next(self) -> str | None:
        """The tenant whose turn it is, of those that may hold one more place."""
        return next((one for one in self._queues if self._may(one)), None)
