"""Runs the parts and the service's own processes: up in order, kept alive, down in the reverse order.

What it runs is told by `Part`s; it knows nothing of documents or questions.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from app.child import Child, StartFailed

START_TIMEOUT = 300.0
"""Seconds. A part that ends is told at once: this is for a machine that is busy with other things."""
SAME_WISH = 1.0
"""Signals this close together are one wish: `timeout` and process managers send theirs twice."""


class Supervisor:
    """Children in stages: a stage stops before the stages that it was built on.

    `say` takes one line for the person who watches. Setting `hurry` makes every stop quick.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.hurry = asyncio.Event()
        self._say = say
        self._stages: list[list[Child]] = []

    @property
    def children(self) -> list[Child]:
        return [child for stage in self._stages for child in stage]

    async def start(self, *stages: Sequence[Child], timeout: float = START_TIMEOUT) -> None:
        """Start these side by side and wait until all are ready; raises `StartFailed` of the first that
        cannot. What was started stays started, for `stop` to end. A stage stops before those named, or
        started, before it."""
        self._stages += [list(stage) for stage in stages]
        async with _told_apart() as tasks:
            for child in (child for stage in stages for child in stage):
                tasks.create_task(self._start(child, timeout))

    async def stop(self) -> None:
        """End every child, the last stage first."""
        while self._stages:
            stage = self._stages[-1]
            names = ", ".join(child.name for child in stage)
            await asyncio.gather(*(child.stop(self.hurry) for child in stage))
            self._stages.pop()
            if names:
                self._say(f"stopped  {names}")

    async def _start(self, child: Child, timeout: float) -> None:
        took = await child.start(timeout)
        self._say(f"ready    {child.name:<10} {took:5.1f} s")


@asynccontextmanager
async def _told_apart() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group whose first failure is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failed:  # What is raised within `except*` would be a group again.
        _, unforeseen = failed.split(StartFailed)
        if unforeseen:
            raise
        raise failed.exceptions[0] from None


@contextmanager
def signals(stop: asyncio.Event, hurry: asyncio.Event) -> Iterator[None]:
    """SIGINT, SIGTERM and a closed terminal set `stop`; another one, later, sets `hurry`."""
    loop = asyncio.get_running_loop()
    first = 0.0

    def told() -> None:
        nonlocal first
        if not stop.is_set():
            first = loop.time()
            stop.set()
        elif loop.time() - first > SAME_WISH:
            hurry.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, told)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
