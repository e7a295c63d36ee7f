"""What an erasure does to the stores that are the service's own: kept outputs, feedback, trials, traces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncEngine

from app import telemetry
from app.settings import Settings
from app.tables import feedback, outcomes, pairs, transaction
from ingestion.errors import ErasureStalled
from ingestion.receipts import Receipts
from ingestion.types import Erasure, Outcome
from llm.errors import OutputsUnavailable
from llm.outputs import RedisOutputs

BACKUPS = Outcome("pending", 0, "apply this receipt after a restore: plumbline erase reapply")


def receipts_of(settings: Settings) -> Receipts:
    """They lie where original files do, so that every host finds them, and the key that signs them."""
    place = settings.blobs_url or str(settings.data.resolve())
    return Receipts(f"{place.rstrip('/')}/receipts")


@dataclass(frozen=True, slots=True)
class OutputsStep:
    """Answers and summaries that were made from the documents, whose ids `documents` gives, in Redis and in
    its snapshot."""

    documents: Callable[[Erasure], AsyncIterator[Sequence[str]]]
    outputs: RedisOutputs
    data: Path

    @property
    def store(self) -> str:
        return "outputs"

    async def run(self, erasure: Erasure) -> Outcome:
        removed = 0
        try:
            async for ids in self.documents(erasure):
                removed += await self.outputs.forget([f"{erasure.tenant}/{one}" for one in ids])
            place = await self.outputs.settle()
        except OutputsUnavailable as error:
            raise ErasureStalled(str(error)) from error
        if place and _within(place, self.data):
            return Outcome("done", removed, "outputs made from the documents; the snapshot is new")
        return Outcome("pending", removed, "removed; files and replicas of this Redis are not ours")


@dataclass(frozen=True, slots=True)
class RecordsStep:
    """Feedback, and what came of requests: ids of answers and measures, no text. They are a tenant's."""

    engine: AsyncEngine

    @property
    def store(self) -> str:
        return "records"

    async def run(self, erasure: Erasure) -> Outcome:
        if erasure.scope != "tenant":
            return Outcome("done", 0, "feedback and trials hold ids of answers and measures, no text")
        removed = 0
        async with transaction(self.engine) as connection:
            for table in (feedback, outcomes, pairs):
                gone = await connection.execute(delete(table).where(table.c.tenant == erasure.tenant))
                removed += gone.rowcount
        return Outcome("done", removed, "feedback and records of trials")


def traces() -> Outcome:
    """What became of traces: they hold ids of documents at most, and leave this machine or are not made."""
    if telemetry.recording():
        return Outcome("pending", 0, "sent to a collector, which keeps them for as long as it is told to")
    return Outcome("done", 0, "none are kept")


def _within(place: Path, folder: Path) -> bool:
    return place.resolve().is_relative_to(folder.resolve())
