"""Who may be answered now: a bound on running and on waiting, and turns that are fair between tenants.

Each tenant has a queue of its own; a free place goes to the tenants in turn, so that one that sends a
thousand questions delays another by one question at most per place.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app import deadline as time_left
from app.errors import AdmissionFull, DeadlineExceeded

_RETRY_AFTER = 1.0

_Turn = asyncio.Future[None]


class Admission:
    """`max_running` at once in this process, `max_waiting` more in queues; the next is refused at once."""

    def __init__(self, *, max_running: int, max_waiting: int) -> None:
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._queues: OrderedDict[str, deque[_Turn]] = OrderedDict()
        self._running = 0
        self._waiting = 0

    @property
    def running(self) -> int:
        return self._running

    @property
    def waiting(self) -> int:
        return self._waiting

    @asynccontextmanager
    async def turn(self, tenant: str, deadline: float) -> AsyncIterator[None]:
        """Hold a place for the block. Raises `AdmissionFull` at once, `DeadlineExceeded` after waiting."""
        if self._running < self._max_running:
            self._running += 1
        else:
            await self._wait(tenant, deadline)
        try:
            yield
        finally:
            self._leave()

    async def _wait(self, tenant: str, deadline: float) -> None:
        if self._waiting >= self._max_waiting:
            raise AdmissionFull(_RETRY_AFTER)
        seconds = time_left.left(deadline)
        turn: _Turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(tenant, deque()).append(turn)
        self._waiting += 1
        try:
            await asyncio.wait((turn,), timeout=seconds)
        except asyncio.CancelledError:
            self._give_up(tenant, turn)
            raise
        if not turn.done():
            self._give_up(tenant, turn)
            raise DeadlineExceeded("The request's time ran out while it waited for its turn. Ask again.")

    def _give_up(self, tenant: str, turn: _Turn) -> None:
        """Stop waiting; a place that was handed over in the same moment goes to the next."""
        if turn.done():
            self._leave()
            return
        self._waiting -= 1
        queue = self._queues[tenant]
        queue.remove(turn)
        if not queue:
            del self._queues[tenant]

    def _leave(self) -> None:
        """Hand the place to the tenant whose turn it is, or free it."""
        if not self._queues:
            self._running -= 1
            return
        tenant, queue = self._queues.popitem(last=False)
        queue.popleft().set_result(None)
        self._waiting -= 1
        if queue:
            self._queues[tenant] = queue
