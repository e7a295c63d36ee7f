"""Processes that can be held up or killed, and what lies between them and the parts that they call.

A call goes to its part and the answer comes back, each after a while. It may never arrive, or arrive and have
its answer lost, or arrive after its caller gave up or was killed; a batch of rows may arrive by half.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.faults.clock import VirtualLoop

T = TypeVar("T")

Failure = Callable[[str], Exception]
QUICK = 0.02
SLOW = 0.5


class Killed(Exception):
    """The process that was to answer is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How often, of all calls: one never arrives, its answer is lost, it arrives after its caller gave up,
    half of it arrives; how often its process stands still before it sends, or before it sees the answer, if
    anywhere only `at` calls of this name."""

    refused: float = 0.0
    lost: float = 0.0
    late: float = 0.0
    half: float = 0.0
    stalled: float = 0.0
    at: str = ""

    @classmethod
    def drawn(cls, dice: random.Random) -> Weather:
        levels = (0.0, 0.0, 0.02, 0.08)
        return cls(
            refused=dice.choice(levels),
            lost=dice.choice(levels),
            late=dice.choice(levels),
            half=dice.choice(levels),
            stalled=dice.choice((0.0, 0.02, 0.05)),
        )


CALM = Weather()


class Process:
    """What runs in it stands still while it is stalled, and ends where it is when it is killed."""

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.name = name
        self.alive = True
        self._loop = loop
        self._until = 0.0
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def serve(self, work: Coroutine[Any, Any, T]) -> T:
        """Do this for somebody outside; raises `Killed` if the process goes before its answer."""
        if not self.alive:
            work.close()
            raise Killed(self.name)
        task = self.start(work)
        await asyncio.wait({task})
        if task.cancelled():
            raise Killed(self.name)
        return task.result()

    def stall(self, seconds: float) -> None:
        self._until = max(self._until, self._loop.time() + seconds)

    async def awake(self) -> None:
        while self._until > self._loop.time():
            await asyncio.sleep(self._until - self._loop.time())

    async def kill(self) -> None:
        self.alive = False
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Network:
    """`longest` is how long a process may stand still; `deadline` how long a call may be under way. `seen`
    counts what happened, `under_way` the calls that have not arrived yet."""

    def __init__(
        self, dice: random.Random, weather: Weather, *, longest: float, deadline: float, seen: Counter[str]
    ) -> None:
        self.weather = weather
        self.seen = seen
        self.under_way: Counter[str] = Counter()
        self._dice = dice
        self._longest = longest
        self._deadline = deadline
        self._messages: set[asyncio.Task[Any]] = set()

    def busy(self) -> bool:
        """Whether any message has not arrived yet."""
        return any(self.under_way.values())

    async def call(
        self,
        process: Process,
        name: str,
        apply: Callable[[], Awaitable[T]],
        failure: Failure,
        half: Callable[[], Awaitable[T]] | None = None,
    ) -> T:
        """Have a part do something, as `process` sees it. `half` is what may arrive instead of all of it."""
        if not process.alive:
            raise failure("the process was killed")
        if not isinstance(asyncio.get_running_loop(), VirtualLoop):
            # What the ledger has done within a call of its own takes as little time as the call.
            return await apply()
        await process.awake()
        fault = self._fault(name, half is not None)
        if fault:
            self.seen[f"{fault} {name}"] += 1
        if fault == "stalled":
            process.stall(self._dice.uniform(0.2, 1.0) * self._longest)
            # Before it sends, or after: then only the answer waits.
            if self._dice.random() < 0.5:
                await process.awake()
        if fault == "refused":
            await asyncio.sleep(self._delay())
            raise failure("it could not be reached")
        delay = self._dice.uniform(0.5, 1.0) * self._deadline if fault == "late" else self._delay()
        message = self._send(name, delay, half if half and fault == "half" else apply)
        if fault == "late":
            await asyncio.sleep(self._dice.uniform(0.0, delay))
            raise failure("it did not answer in time")
        try:
            answer = await asyncio.shield(message)
        except asyncio.CancelledError:
            if self._dice.random() < 0.5:
                message.cancel()
            raise
        await asyncio.sleep(self._delay())
        await process.awake()
        if fault in ("lost", "half"):
            raise failure("the connection broke")
        return answer

    def _send(self, name: str, delay: float, apply: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        async def deliver() -> T:
            await asyncio.sleep(delay)
            return await apply()

        message = asyncio.get_running_loop().create_task(deliver())
        self._messages.add(message)
        self.under_way[name] += 1
        message.add_done_callback(lambda message: self._arrived(name, message))
        return message

    def _arrived(self, name: str, message: asyncio.Task[Any]) -> None:
        self._messages.discard(message)
        self.under_way[name] -= 1
        if not message.cancelled():
            message.exception()  # Whoever sent it may be gone.

    def _fault(self, call: str, divisible: bool) -> str | None:
        drawn = self._dice.random()
        for name in ("refused", "lost", "late", "half", "stalled"):
            share: float = getattr(self.weather, name)
            if drawn < share:
                possible = {"half": divisible, "stalled": self.weather.at in ("", call)}
                return name if possible.get(name, True) else None
            drawn -= share
        return None

    def _delay(self) -> float:
        if self.weather is CALM or self._dice.random() < 0.9:
            return self._dice.uniform(0.0, QUICK)
        return self._dice.uniform(QUICK, SLOW)


class Reached:
    """A part as one process reaches it: its asynchronous methods go over the network. `perform` does what has
    arrived, given the method's name."""

    def __init__(
        self,
        network: Network,
        process: Process,
        part: object,
        name: str,
        failure: Failure,
        perform: Callable[[str, Callable[[], Coroutine[Any, Any, Any]]], Coroutine[Any, Any, Any]],
    ) -> None:
        self._network = network
        self._process = process
        self._part = part
        self._name = name
        self._failure = failure
        self._perform = perform

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._part, name)
        if not inspect.iscoroutinefunction(method):
            if callable(method):
                raise TypeError(f"{self._name}.{name} would go past the network: it is no coroutine function")
            return method
        divided = name == "upsert"

        async def reached(*values: Any, **named: Any) -> Any:
            half = None
            if divided and len(values[1]) > 1:
                some = values[1][: len(values[1]) // 2]
                half = lambda: self._perform(name, lambda: method(values[0], some))  # noqa: E731
            return await self._network.call(
                self._process,
                f"{self._name}.{name}",
                lambda: self._perform(name, lambda: method(*values, **named)),
                self._failure,
                half,
            )

        return reached
