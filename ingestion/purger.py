"""The purger: takes off the disk what the sweeper removed, and the files of versions that nobody needs.

A store that only marks rows as deleted is purged soon after the last of them was removed, so that a wave of
updates is purged once, and within a minute; never for more than a share of the time, since a purge reads and
writes what it keeps. Files are removed when no put can count on them any more (`files`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

from ingestion.blobs import Blobs
from ingestion.errors import LedgerUnavailable, StorageUnavailable
from ingestion.ledger import Ledger
from retrieval.errors import StoreUnavailable
from retrieval.types import Store

logger = logging.getLogger(__name__)

INTERVAL = 1.0
LONGEST_PAUSE = 30.0
QUIET = 4.0
"""Seconds without a removal after which a purge begins."""
LONGEST_WAIT = 20.0
"""Seconds after the first removal at which it begins all the same."""
REST = 3.0
"""A purge that took a second is followed by so many without one."""


class Purger:
    """`window` is how long a put under way may count on a file, in seconds. Any number may run."""

    def __init__(
        self, ledger: Ledger, store: Store, blobs: Blobs, *, window: float, quiet: float = QUIET
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._blobs = blobs
        self._window = window
        self._quiet = quiet
        # A predecessor may have left something.
        self._first: float | None = time.monotonic()
        self._last = self._first
        self._rested = 0.0

    def noted(self) -> None:
        """Rows were removed from the store."""
        self._last = time.monotonic()
        self._first = self._last if self._first is None else self._first

    async def run(self, stop: asyncio.Event) -> None:
        pause = INTERVAL
        while not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
                return
            try:
                while await self.collect():
                    pass
                if self._is_due():
                    await self.purge()
                pause = INTERVAL
            except (LedgerUnavailable, StoreUnavailable, StorageUnavailable) as error:
                pause = min(LONGEST_PAUSE, 2 * pause)
                logger.warning("purging again in %.0f s: %s", pause, error)

    async def collect(self) -> int:
        """Remove files that nobody needs; how many that were."""
        async with self._ledger.loose_files(self._window) as due:
            for tenant, digest in due:
                await self._blobs.remove(tenant, digest)
        return len(due)

    async def purge(self) -> bool:
        """Purge every generation; whether all is off the disk. Raises when the store is away."""
        began, self._first = time.monotonic(), None
        try:
            known = await self._ledger.generations()
            done = [await self._store.purge(one.id) for one in known if one.state != "retired"]
        except (LedgerUnavailable, StoreUnavailable):
            self.noted()
            raise
        now = time.monotonic()
        self._rested = now + REST * (now - began)
        return all(done)

    def _is_due(self) -> bool:
        now = time.monotonic()
        if self._first is None or now < self._rested:
            return False
        return now - self._last >= self._quiet or now - self._first >= LONGEST_WAIT
