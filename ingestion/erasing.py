"""The ledger's part in erasing: each method is one transaction, or one read, on erasures (`erasures`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ingestion import documents, erasures, files
from ingestion.erasures import Target
from ingestion.errors import NotFound
from ingestion.receipts import Receipt
from ingestion.transaction import reading, session, transaction
from ingestion.types import Document, Erasure, ErasureScope, Outcome
from retrieval.types import Filter

AT_ONCE = 250
SILENCE = 30.0
"""Seconds after which another process may go on with an erasure whose own is not heard of."""
LOCK = 7_140_559


class Erasing:
    """Every call raises `LedgerUnavailable` when PostgreSQL is away."""

    def __init__(self, engine: AsyncEngine, silence: float = SILENCE) -> None:
        self._engine = engine
        self._silence = silence

    # For whoever asks for one.

    async def known(self, tenant: str, ids: Collection[str]) -> set[str]:
        """Those of these documents of which anything is left, deleted or not."""
        async with reading(self._engine) as connection:
            return await erasures.known(connection, tenant, ids)

    async def begin(self, which: Filter, scope: ErasureScope, who: str) -> Erasure:
        """A new erasure; what was deleted before is chosen with it, where the filter says which that is."""
        async with transaction(self._engine) as connection:
            erasure = await erasures.begin(connection, str(uuid4()), which.tenant, scope, who)
            if which.where is None:
                await erasures.add_deleted(connection, erasure, which.collections, which.document_ids)
            return erasure

    async def choose(self, erasure: Erasure, which: Filter, after: str) -> tuple[list[Document], str | None]:
        """Delete those among the next documents that the filter means, to be erased; and where to go on."""
        async with transaction(self._engine) as connection:
            buried, last = await documents.bury(connection, which, after, AT_ONCE)
            await erasures.add(connection, erasure, buried)
            return buried, last

    async def close_collection(self, tenant: str, name: str) -> None:
        """Forget a collection, if nothing is in it."""
        async with transaction(self._engine) as connection:
            await documents.close_collection(connection, tenant, name)

    async def chosen(self, erasure: Erasure) -> None:
        """All of it is chosen: the rest is the eraser's."""
        async with transaction(self._engine) as connection:
            await erasures.chosen(connection, erasure)

    async def one(self, tenant: str, erasure_id: str) -> Erasure:
        async with reading(self._engine) as connection:
            found = await erasures.one(connection, tenant, erasure_id)
        if found is None:
            raise NotFound("erasure", erasure_id)
        return found

    async def listed(self, tenant: str, limit: int) -> list[Erasure]:
        async with reading(self._engine) as connection:
            return await erasures.listed(connection, tenant, limit)

    async def finished(self) -> set[str]:
        """The ids of all that the ledger knows as finished."""
        async with reading(self._engine) as connection:
            return await erasures.finished(connection)

    # For the eraser.

    @asynccontextmanager
    async def next(self) -> AsyncIterator[Erasure | None]:
        """The next one to work on, which no other process works on within the block; None if there is none.
        No transaction is open meanwhile: it would keep dead rows alive."""
        async with reading(self._engine) as connection:
            if await erasures.following(connection) is None:
                yield None
                return
        async with session(self._engine, self._silence) as held:
            mine = await held.scalar(text(f"SELECT pg_try_advisory_lock({LOCK})"))
            following = await erasures.following(held) if mine else None
            beat = asyncio.create_task(self._beat(held))
            try:
                yield following
            finally:
                beat.cancel()
                await asyncio.gather(beat, return_exceptions=True)

    async def _beat(self, held: AsyncConnection) -> None:
        while True:
            await asyncio.sleep(self._silence / 5)
            await held.execute(text("SELECT 1"))

    async def told(self, erasure: Erasure, store: str, outcome: Outcome) -> None:
        async with transaction(self._engine) as connection:
            await erasures.told(connection, erasure, store, outcome)

    async def targets(self, erasure: Erasure) -> AsyncIterator[list[Target]]:
        """Its documents, in batches, as far as the ledger still knows them."""
        after, more = "", True
        while more:
            async with reading(self._engine) as connection:
                page = await erasures.page(connection, erasure, after, AT_ONCE)
            more = bool(page)
            if page:
                after = page[-1].document_id
                yield page

    async def documents(self, erasure: Erasure) -> AsyncIterator[list[str]]:
        """Their ids."""
        async for page in self.targets(erasure):
            yield [one.document_id for one in page]

    async def unswept(self, erasure: Erasure) -> tuple[int, int]:
        """How many of its revisions may still have rows in the store, of how many."""
        async with reading(self._engine) as connection:
            return await erasures.unswept(connection, erasure)

    @asynccontextmanager
    async def files(self, erasure: Erasure) -> AsyncIterator[tuple[list[files.File], int]]:
        """Its files that no other document needs, for the caller to remove within the block; and of how many
        they are."""
        async with transaction(self._engine) as connection:
            count = await erasures.count_files(connection, erasure)
            loose = await erasures.loose(connection, erasure)
            needed = await files.needed(connection, loose) if loose else set()
            gone = [one for one in loose if one not in needed]
            yield gone, count
            if loose:
                await files.seen(connection, loose, gone)

    async def forget(self, erasure: Erasure) -> int:
        """Take what is known of some of its documents out of the ledger; how many that were."""
        async with transaction(self._engine) as connection:
            return await erasures.forget(connection, erasure, AT_ONCE)

    async def forget_collections(self, erasure: Erasure) -> None:
        async with transaction(self._engine) as connection:
            await erasures.forget_collections(connection, erasure)

    async def finish(self, erasure: Erasure) -> Erasure:
        async with transaction(self._engine) as connection:
            return await erasures.finish(connection, erasure)

    # After a restore.

    async def matching(self, receipt: Receipt) -> list[str]:
        """The documents, deleted or not, that the receipt is about, as they were before it."""
        body = receipt.body
        wanted = frozenset(one["reference"] for one in body["documents"])
        before = datetime.fromisoformat(body["asked_at"])
        async with reading(self._engine) as connection:
            return await erasures.matching(connection, receipt.tenant, wanted, body["salt"], before)

    async def add_orphans(self, erasure: Erasure, receipt: Receipt) -> None:
        """Erase rows of the receipt's revisions that the ledger does not know, too: they may be back in the
        store. No number that the receipt names is given out again, and the receipt is known from now on."""
        documents = receipt.body["documents"]
        revisions = sorted({number for one in documents for number in one["revisions"]})
        version = max((one["version"] for one in documents), default=1)
        async with transaction(self._engine) as connection:
            await erasures.outnumber(connection, version, max(revisions, default=1))
            unknown = await erasures.orphans(connection, revisions)
            if unknown:
                await erasures.add_orphans(connection, erasure, unknown)
            await erasures.know(connection, receipt.body)
