"""The eraser: takes documents out of every store for good, one store after the other, and signs a receipt.

A store is gone through by a step. What a step has done is in the ledger before the next one begins, and every
step can be done again, so an eraser that is killed goes on where it was. What the ledger itself knows of the
documents goes after everything that needs to ask it; what PostgreSQL keeps of rows that are gone, last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

from ingestion import receipts
from ingestion.erasing import Erasing
from ingestion.errors import IngestionError
from ingestion.receipts import Receipt, Receipts
from ingestion.revisions import NOBODY
from ingestion.types import Erasure, ErasureScope, Outcome
from retrieval.errors import StoreUnavailable
from retrieval.types import Filter

logger = logging.getLogger(__name__)

INTERVAL = 1.0
LONGEST_PAUSE = 30.0


class Step(Protocol):
    @property
    def store(self) -> str:
        """The name of the store in the receipt."""
        ...

    async def run(self, erasure: Erasure) -> Outcome:
        """Do what can be done now. An outcome that is `waiting` is asked for again. Raises `ErasureStalled`,
        or what else says that a part is away: the step is tried again."""
        ...


class Eraser:
    """`steps` in their order; `kept` is where receipts are written."""

    def __init__(self, erasing: Erasing, steps: Sequence[Step], kept: Receipts) -> None:
        self._erasing = erasing
        self._steps = steps
        self._receipts = kept

    async def run(self, stop: asyncio.Event) -> None:
        pause, looked = INTERVAL, False
        while not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
                return
            try:
                looked = looked or await self._look()
                await self.work(stop)
                pause = INTERVAL
            except (StoreUnavailable, IngestionError, OSError) as error:
                pause = min(LONGEST_PAUSE, 2 * pause)
                logger.warning("an erasure goes on in %.0f s: %s", pause, error)

    async def work(self, stop: asyncio.Event) -> None:
        """Take the next erasure as far as it gets now; to its end, when nothing has to be waited for."""
        async with self._erasing.next() as erasure:
            if erasure is None:
                return
            if erasure.state == "selecting":
                await self._erasing.chosen(erasure)
            stores = dict(erasure.stores)
            for step in self._steps:
                known = stores.get(step.store)
                if known is None or known.state == "waiting":
                    stores[step.store] = outcome = await self._done(step, erasure)
                    if outcome.state == "waiting" or stop.is_set():
                        return
            body = await self._body(replace(erasure, stores=stores))
            await asyncio.to_thread(self._receipts.sign, erasure.id, body)
            await self._erasing.finish(erasure)

    async def _look(self) -> bool:
        """Say it if the ledger is older than a receipt."""
        unknown = await asyncio.to_thread(self._receipts.ids) - await self._erasing.finished()
        if unknown:
            logger.warning(
                "%d receipts of erasures are newer than the ledger, which was restored from a backup: run "
                "`plumbline erase reapply`, or what was erased stays",
                len(unknown),
            )
        return True

    async def _done(self, step: Step, erasure: Erasure) -> Outcome:
        outcome = await step.run(erasure)
        if outcome.state != "waiting":
            outcome = replace(outcome, at=datetime.now(UTC))
        if outcome != erasure.stores.get(step.store):
            await self._erasing.told(erasure, step.store, outcome)
        return outcome

    async def _body(self, erasure: Erasure) -> Mapping[str, Any]:
        return {
            "format": receipts.FORMAT,
            "id": erasure.id,
            "tenant": erasure.tenant,
            "scope": erasure.scope,
            "who": erasure.who,
            "asked_at": erasure.asked_at.isoformat(),
            "finished_at": datetime.now(UTC).isoformat(),
            "count": erasure.documents,
            "salt": "",
            "documents": [],
            **await asyncio.to_thread(self._receipts.drafted, erasure.id),
            "stores": {
                name: {"state": one.state, "removed": one.removed, "detail": one.detail, "at": _time(one.at)}
                for name, one in erasure.stores.items()
            },
        }


async def erase(erasing: Erasing, which: Filter, scope: ErasureScope, who: str) -> Erasure:
    """Delete every document that the filter means, and have it, and what was deleted before, erased; the
    collections that it names, too, if nothing is left in them."""
    erasure = await erasing.begin(which, scope, who)
    await _choose(erasing, erasure, which)
    for name in which.collections:  # Before an eraser may begin: it takes along what is closed.
        await erasing.close_collection(which.tenant, name)
    await erasing.chosen(erasure)
    return await erasing.one(which.tenant, erasure.id)


async def reapply(erasing: Erasing, receipt: Receipt, who: str) -> Erasure:
    """Erase what a receipt is about again, as far as a restore has brought it back."""
    ids = tuple(await erasing.matching(receipt)) or (NOBODY,)
    which = Filter(tenant=receipt.tenant, groups=None, document_ids=ids)
    erasure = await erasing.begin(which, "documents", who)
    await _choose(erasing, erasure, which)
    await erasing.add_orphans(erasure, receipt)
    await erasing.chosen(erasure)
    return await erasing.one(receipt.tenant, erasure.id)


async def _choose(erasing: Erasing, erasure: Erasure, which: Filter) -> None:
    after: str | None = ""
    while after is not None:
        _, after = await erasing.choose(erasure, which, after)


def _time(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
