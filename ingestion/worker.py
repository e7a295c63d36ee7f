"""The worker: leases jobs, takes them through the pipeline, says what became of those that failed.

Several lanes work side by side, so that one batch is parsed or written while another is embedded. Where all
of them turn out to have long work, more are opened, so that what comes meanwhile is not kept waiting. Being
killed at any moment loses nothing: leases run out and others take the jobs under a higher fence. Generations
that are being built are filled by a crew of their own, which shares nothing with the ordinary one that it
could hold up: other jobs, lanes, leases and pauses, and the cores only in small turns.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ingestion.blobs import Blobs
from ingestion.errors import LedgerUnavailable, ParserUnavailable, StorageUnavailable
from ingestion.indexers import Indexers
from ingestion.leases import Leases
from ingestion.ledger import Ledger
from ingestion.leftovers import Leftovers
from ingestion.pipeline import TEXTS_AT_ONCE, Parser, Pipeline
from ingestion.reuse import Reuse
from ingestion.types import JobError, Lease, Observer
from ingestion.validation import Validation
from retrieval.errors import EmbedderUnavailable, StoreUnavailable
from retrieval.types import Store

logger = logging.getLogger(__name__)

Outage = StoreUnavailable | EmbedderUnavailable | LedgerUnavailable | ParserUnavailable | StorageUnavailable
OUTAGES: Mapping[type[Outage], str] = {
    StoreUnavailable: "store_unavailable",
    EmbedderUnavailable: "embedder_unavailable",
    LedgerUnavailable: "ledger_unavailable",
    ParserUnavailable: "parser_unavailable",
    StorageUnavailable: "storage_unavailable",
}
"""A part is down: no document's fault, so it is waited for and never counted as an attempt."""

EMBEDDING_AT_ONCE = 2
"""Calls: while the last texts of one are embedded the cores have the first of the next."""
RELIEF = 10.0
"""Seconds that every lane is at its batch before one more is opened. What takes long should leave a lane by
itself (`queue.LONG_AT_ONCE`), but that is told from a file's size, and some sizes deceive."""
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 5.0
IDLE = 0.25
IDLE_BEHIND = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Which jobs are taken (`backfill`: those that fill a generation), by how many lanes and, when all of
    them are at long work, by how many `more`; how many jobs and texts at a time, and how often an idle lane
    looks for more, in seconds."""

    backfill: bool
    lanes: int
    more: int
    batch: int
    texts: int
    idle: float


ORDINARY = Crew(backfill=False, lanes=3, more=2, batch=48, texts=TEXTS_AT_ONCE, idle=IDLE)
BACKFILL = Crew(backfill=True, lanes=1, more=0, batch=8, texts=32, idle=4 * IDLE)


class Worker:
    """`name` is what the ledger shows as the holder, `version` the product's. `lease` is how long a job is
    held without renewal, `grace` how long work may go on after a stop, in seconds. Who holds or waits for
    `first` embeds before this worker's next turn; `embedding` is what this one holds."""

    def __init__(
        self,
        ledger: Ledger,
        blobs: Blobs,
        parser: Parser,
        store: Store,
        indexers: Indexers,
        *,
        name: str,
        lease: float,
        observer: Observer,
        crew: Crew = ORDINARY,
        grace: float = 5.0,
        first: asyncio.Semaphore | None = None,
        version: str = "",
    ) -> None:
        self._ledger = ledger
        self._name = name
        self._crew = crew
        self._grace = grace
        self._version = version
        self._stopping = False
        self.embedding = asyncio.Semaphore(EMBEDDING_AT_ONCE)
        self._leases = Leases(lease, observer)
        self._leftovers = Leftovers(ledger)
        self._more = asyncio.Event()
        self._watching = asyncio.Lock()
        self._failures = 0
        self._begun: list[float] = []
        self._pipeline = Pipeline(
            ledger=ledger,
            blobs=blobs,
            parser=parser,
            store=store,
            indexers=indexers,
            leases=self._leases,
            leftovers=self._leftovers,
            reuse=Reuse(ledger, store),
            validation=Validation(ledger),
            embedding=self.embedding,
            first=first,
            texts=crew.texts,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish what is under way or, after a grace period, give it back:
        others may take it at once."""
        await self._tell(fresh=True)
        lanes = [asyncio.create_task(self._lane(stop)) for _ in range(self._crew.lanes)]
        lanes += [asyncio.create_task(self._lane(stop, relief=True)) for _ in range(self._crew.more)]
        beat = asyncio.create_task(self._heartbeat())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({*lanes, beat, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                self._more.set()
                self._stopping = True
                await self._tell()
                await asyncio.wait(lanes, timeout=self._grace)
        finally:
            for task in (*lanes, beat, stopping):
                task.cancel()
            ends = await asyncio.gather(*lanes, beat, stopping, return_exceptions=True)
            await self._release(self._leases.all(), None, 0.0)
            await self._leftovers.tell()
            await self._leave()
        for end in ends:
            if isinstance(end, BaseException) and not isinstance(end, asyncio.CancelledError):
                raise end

    async def _lane(self, stop: asyncio.Event, *, relief: bool = False) -> None:
        while not stop.is_set():
            if relief and not self._held_up():
                await self._pause(stop, self._crew.idle)
                continue
            try:
                batch = await self._take()
            except LedgerUnavailable as error:
                await self._pause(stop, self._setback(error))
                continue
            if batch:
                self._more.set()
                begun = time.monotonic()
                self._begun.append(begun)
                try:
                    pause = await self._work(batch)
                finally:
                    self._begun.remove(begun)
                await self._leftovers.tell()
                await self._pause(stop, pause)
            else:
                await self._idle(stop)

    def _held_up(self) -> bool:
        """Whether all lanes that are open have been at their batches for long."""
        since = time.monotonic() - RELIEF
        return len(self._begun) >= self._crew.lanes and all(begun < since for begun in self._begun)

    async def _take(self) -> list[Lease]:
        take = self._ledger.lease_backfill if self._crew.backfill else self._ledger.lease
        asked = time.monotonic()
        batch = await take(self._name, self._leases.seconds, self._crew.batch)
        self._leases.take(batch, asked)
        return batch

    async def _work(self, batch: Sequence[Lease]) -> float:
        """Run a batch to its end, whatever happens; the seconds to wait before the next one."""
        try:
            await self._pipeline.run(batch)
        except tuple(OUTAGES) as error:
            delay = self._setback(error)
            code = next(code for kind, code in OUTAGES.items() if isinstance(error, kind))
            left = self._leases.unfinished(batch)
            # Who reads a document's job is not who runs the service, as who builds an index is.
            message = str(error) if self._crew.backfill else error.told
            await self._release(left, JobError(code=code, message=message), delay)
            return delay
        except Exception as error:
            left = self._leases.unfinished(batch)
            if len(batch) > 1:  # One of them is to blame; alone, each shows whether it is the one.
                return max([await self._work([lease]) for lease in left], default=0.0)
            logger.exception("job %s failed", batch[0].job.id)
            await self._fail(left, error)
            return 0.0
        self._failures = 0
        return 0.0

    def _setback(self, error: Exception) -> float:
        """Seconds to wait for a part that is down: doubled every time, with jitter, and never long."""
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 10))
        self._failures += 1
        logger.warning("waiting %.1f s: %s", pause, error)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311

    async def _release(self, leases: Sequence[Lease], error: JobError | None, delay: float) -> None:
        # A ledger that cannot be told sees the leases run out.
        with suppress(LedgerUnavailable):
            if leases:
                await self._ledger.release([lease.job for lease in leases], error, delay)
        for lease in leases:
            self._leases.finish(lease, "released")

    async def _fail(self, leases: Sequence[Lease], error: Exception) -> None:
        problem = JobError(
            code="internal",
            message=f"The worker met an error of its own ({type(error).__name__}); see its log.",
        )
        for lease in leases:
            last = False
            with suppress(LedgerUnavailable):
                last = await self._ledger.fail(lease.job, problem)
            self._leases.finish(lease, "failed" if last else "retried")

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(self._leases.seconds / 3)
            keys = self._leases.keys()
            asked = time.monotonic()
            try:
                renewed = await self._ledger.heartbeat(keys, self._leases.seconds) if keys else set()
            except LedgerUnavailable as error:
                logger.warning("leases could not be renewed: %s", error)
            else:
                self._leases.renew(keys, renewed, asked)
                await self._leftovers.tell()
                await self._tell()
                await self._tell_parts()

    async def _tell(self, *, fresh: bool = False) -> None:
        """Say that this process is there. A crew that fills generations is one with the ordinary one."""
        about = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": self._version,
            "lease": self._leases.seconds,
            "fresh": fresh,
            "stopping": self._stopping,
        }
        if not self._crew.backfill:
            with suppress(LedgerUnavailable):
                await self._ledger.present(self._name, about)

    async def _tell_parts(self) -> None:
        """Say how far those have come that take long to read: they are slow, not dead."""
        with suppress(LedgerUnavailable):
            if parts := self._leases.parts():
                await self._ledger.parts(parts)

    async def _leave(self) -> None:
        if not self._crew.backfill:
            with suppress(LedgerUnavailable):
                await self._ledger.leave(self._name)

    async def _idle(self, stop: asyncio.Event) -> None:
        """One idle lane looks for work often; the others when one has found some."""
        self._more.clear()
        if self._watching.locked():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._more.wait(), IDLE_BEHIND)
        else:
            async with self._watching:
                await self._pause(stop, self._crew.idle)

    async def _pause(self, stop: asyncio.Event, seconds: float) -> None:
        with suppress(TimeoutError):
            if seconds:
                await asyncio.wait_for(stop.wait(), seconds)
