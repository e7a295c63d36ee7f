"""Which indexes have lost rows that the ledger knows of: a store that lost its data answers all the same, as
if nothing had ever been in it.

Looked for now and then, in those that answer, and whenever readiness is asked for; what answers goes by the
last look and asks nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress

from ingestion.errors import IndexIncomplete, LedgerUnavailable
from ingestion.types import Placed
from retrieval.errors import StoreUnavailable

PERIOD = 10.0
"""Seconds between looks."""
PATIENCE = 2.0
"""Seconds that a start waits for the first."""

Require = Callable[[str, Placed | None], Awaitable[None]]
"""Looks for some rows of a generation; for those of the document that was missed last, if any, and for more.
Raises `IndexIncomplete` when one is gone, `LedgerUnavailable` and `StoreUnavailable`."""

log = logging.getLogger(__name__)


class Losses:
    """What was seen of them last."""

    def __init__(self, require: Require) -> None:
        self._require = require
        self._lost: dict[str, Placed] = {}

    def has(self, generation: str) -> bool:
        """Whether rows of it were missing when it was last looked at."""
        return generation in self._lost

    async def look(self, generation: str) -> None:
        """Raises what `Require` raises; what is away tells nothing. A few rows may be there of an index that
        has lost others, so that it takes more of them, and those that were missed, to say that all is well
        again."""
        try:
            await self._require(generation, self._lost.get(generation))
        except IndexIncomplete as error:
            if generation not in self._lost:
                log.error("The index %s has lost rows: %s", generation, error)
            self._lost[generation] = error.missing
            raise
        if self._lost.pop(generation, None):
            log.warning("The index %s has its rows again.", generation)

    @asynccontextmanager
    async def looking(self, answering: Callable[[], Collection[str]]) -> AsyncIterator[None]:
        """Look at these until the block ends; for the first time before it begins, unless that takes long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._look_at(answering()), PATIENCE)
        going = asyncio.create_task(self._go_on(answering), name="look for lost indexes")
        try:
            yield
        finally:
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)

    async def _go_on(self, answering: Callable[[], Collection[str]]) -> None:
        while True:
            await asyncio.sleep(PERIOD)
            try:
                await self._look_at(answering())
            except Exception:
                log.exception("The look for lost indexes failed; it is made again.")

    async def _look_at(self, generations: Collection[str]) -> None:
        for generation in generations:
            with suppress(IndexIncomplete, LedgerUnavailable, StoreUnavailable):
                await self.look(generation)
