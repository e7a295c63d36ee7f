"""The forgetter: takes out of the ledger what is over, so that it does not grow for as long as it is used
(`history`). It is in no hurry: a page at a time, with pauses, a few times a day."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from ingestion.errors import LedgerUnavailable
from ingestion.ledger import Ledger

logger = logging.getLogger(__name__)

FIRST = 300.0
"""Seconds after the start: whoever starts has other things to do."""
EVERY = 6 * 3600.0
BETWEEN = 0.1
"""Seconds between pages: whatever else asks the ledger goes first."""


class Forgetter:
    """`age` is how long what is over is remembered, in seconds. Any number may run."""

    def __init__(self, ledger: Ledger, *, age: float, first: float = FIRST) -> None:
        self._ledger = ledger
        self._age = age
        self._first = first

    async def run(self, stop: asyncio.Event) -> None:
        pause = self._first
        while not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
                return
            try:
                await self.forget(stop)
                pause = EVERY
            except LedgerUnavailable as error:
                pause = self._first
                logger.warning("forgetting again in %.0f s: %s", pause, error)

    async def forget(self, stop: asyncio.Event) -> None:
        """Look at everything that is old enough, once."""
        after: int | None = 0
        while after is not None and not stop.is_set():
            after = await self._ledger.forget_history(after, self._age)
            if after is not None:
                await asyncio.sleep(BETWEEN)
