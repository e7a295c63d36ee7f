"""Writes that share one commit, for a store that must be written by one hand.

Writes join the round that is open. A round begins when the round before it is done and either enough rows
have joined or enough time has passed since the last one, so that a single write is committed at once and a
stream of them in groups.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from retrieval.errors import StoreUnavailable

T = TypeVar("T")


class _Round(Generic[T]):
    def __init__(self) -> None:
        self.writes: list[T] = []
        self.rows = 0
        self.full = asyncio.Event()
        self.done: asyncio.Task[None]


class Rounds(Generic[T]):
    """`commit` is called with the writes of one round, never while an earlier call runs."""

    def __init__(
        self, commit: Callable[[Sequence[T]], Awaitable[None]], *, rows: int, seconds: float
    ) -> None:
        self._commit = commit
        self._rows = rows
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self._open: _Round[T] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._last = float("-inf")

    async def write(self, write: T, rows: int) -> None:
        """Returns when the round that the write joined is committed, or raises what its commit raised.

        A caller that is cancelled leaves its write in the round: the others' are not undone for it."""
        joined = self._open or self._begin()
        joined.writes.append(write)
        joined.rows += rows
        if joined.rows >= self._rows:
            joined.full.set()
        try:
            await asyncio.shield(joined.done)
        except asyncio.CancelledError:
            if joined.done.cancelled():
                raise StoreUnavailable("The store was closed before the write was done.") from None
            raise

    async def close(self) -> None:
        """Give up what is not committed; its writers get `StoreUnavailable`."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _begin(self) -> _Round[T]:
        self._open = begun = _Round[T]()
        begun.done = asyncio.create_task(self._run(begun))
        self._running.add(begun.done)
        begun.done.add_done_callback(self._running.discard)
        return begun

    async def _run(self, this: _Round[T]) -> None:
        async with self._turn:
            now = asyncio.get_running_loop().time
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._last + self._seconds):
                    await this.full.wait()
            self._open = None
            try:
                await self._commit(this.writes)
            finally:
                self._last = now()
