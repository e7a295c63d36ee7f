"""The sweeper: removes from the store the rows of every revision that nobody may see or write any more, and
whole generations that no release may come back to; what readers saw only there it has brought back.

A stalled writer may still write after its lease ran out, and the store cannot check a fence. So a retired
revision is looked at at once, and again when one lease and one call deadline have passed since; only then
is it swept. A writer held up for even longer has it swept once more when it goes on (`leftovers`). Readers
never saw its rows: visibility is the ledger's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from ingestion.errors import LedgerUnavailable
from ingestion.ledger import Ledger
from retrieval.errors import StoreUnavailable
from retrieval.types import Store

logger = logging.getLogger(__name__)

INTERVAL = 1.0
LONGEST_PAUSE = 5.0
START = ("", "")


class Sweeper:
    """`lease` and `call_deadline` in seconds. `removed` is called when rows were. Any number may run; they do
    the same work twice at worst."""

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        *,
        lease: float,
        call_deadline: float,
        removed: Callable[[], None] = lambda: None,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._window = lease + call_deadline
        self._removed = removed
        self._after = START

    async def run(self, stop: asyncio.Event) -> None:
        pause = INTERVAL
        while not stop.is_set():
            try:
                pause = INTERVAL if await self.sweep() == 0 else 0.0
            except (LedgerUnavailable, StoreUnavailable) as error:
                pause = min(LONGEST_PAUSE, 2 * max(pause, INTERVAL))
                logger.warning("sweeping again in %.0f s: %s", pause, error)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)

    async def sweep(self) -> int:
        """Remove what is due now; how many revisions that were. Raises when a part is away, having
        recorded nothing that was not done."""
        for generation in await self._ledger.generations():
            if generation.state == "retired":
                await self._remove(generation.id)
        self._after = await self._ledger.bring_back(self._after) or START
        await self._ledger.expire()
        again, final = await self._ledger.due(self._window)
        due = [*again, *final]
        if due:
            # Asked again: removing a large one takes long, and rows may have been written to a new one since.
            for generation in await self._ledger.generations():
                if generation.state != "retired":
                    await self._store.remove(generation.id, due)
            await self._ledger.removed(again, final, self._window)
            self._removed()
        return len(due)

    async def _remove(self, generation: str) -> None:
        """Hide what is left in a retired generation, then drop it."""
        while await self._ledger.clear(generation):
            pass
        async with self._ledger.removing(generation) as mine:
            if mine:
                await self._store.drop(generation)
