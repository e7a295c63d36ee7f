"""Single flight: while one caller works out an answer, others with the very same question wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Flights:
    """One flight for each key, in this process. Whoever finds none is the first, and its flight ends with
    its block, however that ends; the others wait and then look for what it left. A second wait is not made:
    an answer that could not be kept would otherwise be worked out by one after the other."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Event] = {}

    def under_way(self, key: str) -> asyncio.Event | None:
        """What is set when the flight for this key has ended; None if there is none."""
        return self._under_way.get(key)

    @contextmanager
    def flight(self, key: str | None) -> Iterator[None]:
        """Be the one that others wait for, unless somebody is already; None is nobody's flight."""
        if key is None or key in self._under_way:
            yield
            return
        self._under_way[key] = ended = asyncio.Event()
        try:
            yield
        finally:
            del self._under_way[key]
            ended.set()
