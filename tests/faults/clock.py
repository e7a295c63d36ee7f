"""Virtual time: an event loop that waits for nothing, whose clock jumps to the next thing that is to happen.

All that must wait for the real world is run by `outside`, on another loop, while the virtual one stands
still: so a run depends on its seed alone.
"""

from __future__ import annotations

import asyncio
import random
import selectors
import sys
import time
import uuid
from asyncio import events
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")

FOLDERS = ("ingestion", "retrieval")
"""Whose modules see the virtual clock, and draw their ids from the run's dice."""


class Stuck(Exception):
    """Nothing is left that could ever happen."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Threads of an executor are run at once, in place."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Jump(self))
        self._outer = uvloop.new_event_loop()

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def outside(self, work: Coroutine[Any, Any, T]) -> T:
        """Run this to its end in the real world, while nothing else happens here."""
        inside = events._get_running_loop()
        events._set_running_loop(None)
        try:
            return self._outer.run_until_complete(work)
        finally:
            events._set_running_loop(inside)

    def close(self) -> None:
        super().close()
        self._outer.close()


class _Jump(selectors.DefaultSelector):
    """Where a loop would wait, the clock jumps."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("every task waits for another one")
        self._loop.now += max(0.0, timeout)
        return []


@contextmanager
def virtual(loop: VirtualLoop, seed: int) -> Iterator[random.Random]:
    """Within the block the product's modules see this loop's time, and all chance comes from the seed."""
    dice = random.Random(seed)
    seen = SimpleNamespace(monotonic=loop.time, perf_counter=loop.time, time=loop.time)
    names: Mapping[str, Any] = {
        "time": seen,
        "uuid4": lambda: uuid.UUID(int=dice.getrandbits(128), version=4),
    }
    real = {"time": time, "uuid4": uuid.uuid4}
    patched: list[tuple[ModuleType, str]] = []
    state = random.getstate()
    random.seed(seed)
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in FOLDERS:
            continue
        for attribute, stand_in in names.items():
            if getattr(module, attribute, None) is real[attribute]:
                setattr(module, attribute, stand_in)
                patched.append((module, attribute))
    try:
        yield random.Random(seed + 1)
    finally:
        for module, attribute in patched:
            setattr(module, attribute, real[attribute])
        random.setstate(state)
