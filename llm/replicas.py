"""Several servers of one model as one: the least loaded that has the prompt's beginning, retries, breakers.

How loaded a server is: what we sent it and have not finished, plus what others sent it, by vLLM's own
gauges, which are looked at in the background and believed for a short while only. Of two servers picked at
random the lighter one is taken (all processes that pick the lightest of all would pick the same one; see
Mitzenmacher, The Power of Two Choices, 2001), unless the server that this tenant's same sources went to
before is about as free: that one has their keys and values cached.

A request that failed before its first token is sent once more to another server, within a budget; a server
that said when to come again is asked again then, if there is no other.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from llm.breaker import Breaker
from llm.budget import RetryBudget
from llm.errors import LlmError, ModelUnavailable
from llm.types import Call, Delta, Load

FRESH = 5.0
"""Seconds for which what a server said of its load is believed."""
POLL = 1.0
"""Seconds between two looks at the load."""
UNHURRIED = 10.0
"""Seconds until a server that has no gauges is asked for them again."""
NEAR = 2
"""Requests by which the server that has a prompt's beginning may be busier than another."""
ATTEMPTS = 3

Look = Callable[[], Awaitable[Load | None]]


@dataclass(slots=True)
class Replica:
    """One server. `open` is the number of our own requests in it; `others` those of everybody else when
    it was last looked at; `alive` whether it answered that look."""

    url: str
    model: Breaker
    look: Look
    open: int = 0
    seen: Load | None = None
    others: int = 0
    alive: bool = True

    @property
    def usable(self) -> bool:
        """Whether a request may go there. One that answers again after failures gets a request now and
        then, by which its breaker learns whether it is back."""
        return self.alive and (self.model.state == "closed" or self.model.due)

    def fresh(self, now: float) -> Load | None:
        """What it said of its load, if that is recent."""
        return self.seen if self.seen and now - self.seen.at <= FRESH else None

    def load(self, now: float) -> int:
        """Requests in it, as far as can be known; one that waits counts twice: it says that it is full."""
        seen = self.fresh(now)
        return self.open + (self.others + seen.waiting if seen else 0)

    def note(self, seen: Load | None) -> None:
        self.seen = seen
        self.others = max(0, seen.running + seen.waiting - self.open) if seen else 0


class Replicas:
    """`replicas` serve the same model; at least one. Call `watch` in a task, for their load."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        *,
        budget: RetryBudget | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: random.Random | None = None,
    ) -> None:
        if not replicas:
            raise ValueError("A model needs at least one server.")
        self._replicas = tuple(replicas)
        self._budget = budget or RetryBudget(clock=clock)
        self._clock = clock
        self._chance = chance or random.Random()  # noqa: S311  (no secret)

    @property
    def name(self) -> str:
        return self._replicas[0].model.name

    def load(self) -> Load | None:
        """What the servers have to do together, as they said; None when none of them did lately."""
        now = self._clock()
        fresh = [seen for replica in self._replicas if (seen := replica.fresh(now))]
        if not fresh:
            return None
        return Load(
            running=sum(seen.running for seen in fresh),
            waiting=sum(seen.waiting for seen in fresh),
            at=max(seen.at for seen in fresh),
        )

    async def watch(self) -> None:
        """Look at the load of every server, for ever."""
        async with asyncio.TaskGroup() as group:
            for replica in self._replicas:
                group.create_task(self._watch(replica))

    async def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        loop, tried = asyncio.get_running_loop(), list[Replica]()
        end = loop.time() + call.timeout
        self._budget.earn()
        while True:
            replica, started = self._choose(call, tried), False
            tried.append(replica)
            replica.open += 1
            try:
                left = replace(call, timeout=end - loop.time()) if len(tried) > 1 else call
                async with aclosing(replica.model.stream(left)) as deltas:
                    async for delta in deltas:
                        started = True
                        yield delta
                return
            except ModelUnavailable as error:
                pause = None if started else self._pause(error, tried, end - loop.time())
                if pause is None:
                    raise
            finally:
                replica.open -= 1
            await asyncio.sleep(pause)

    def _pause(self, error: LlmError, tried: Sequence[Replica], left: float) -> float | None:
        """Seconds until the request may be sent again; None when it may not."""
        another = any(replica not in tried and replica.usable for replica in self._replicas)
        pause = 0.0 if another else getattr(error, "retry_after", None)
        if pause is None or pause >= left or len(tried) >= ATTEMPTS:
            return None
        return pause if self._budget.spend() else None

    def _choose(self, call: Call, tried: Sequence[Replica]) -> Replica:
        """A server that was not tried yet and may be used, as far as there is one."""
        fresh = [replica for replica in self._replicas if replica not in tried] or self._replicas
        usable = [replica for replica in fresh if replica.usable] or fresh
        if due := [replica for replica in usable if replica.model.due]:
            return due[0]
        if len(usable) == 1:
            return usable[0]
        now = self._clock()
        lighter = min(self._chance.sample(usable, 2), key=lambda replica: replica.load(now))
        home = max(usable, key=lambda replica: _affinity(call, replica.url))
        return home if home.load(now) <= lighter.load(now) + NEAR else lighter

    async def _watch(self, replica: Replica) -> None:
        while True:
            pause = POLL
            try:
                seen = await replica.look()
                replica.alive = True
                pause = POLL if seen else UNHURRIED
            except ModelUnavailable:
                replica.alive, seen = False, None
            replica.note(seen)
            await asyncio.sleep(pause * self._chance.uniform(0.8, 1.2))


def _affinity(call: Call, url: str) -> bytes:
    """The highest of these over the servers says where a tenant's same sources go (rendezvous hashing:
    a server that is added or lost moves only its own share)."""
    first = call.scope.evidence[:1]
    return hashlib.blake2b("\0".join((url, call.scope.tenant, *first)).encode(), digest_size=8).digest()
