"""The queue, worked off at a pace that is set: a real ledger, intake and worker, before an embedder and a
reader that take their time asleep. What is measured of the queue does not depend on how busy the machine is.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app import embedded, migrate
from app.database import open_engine
from ingestion.blobs import Blobs
from ingestion.indexers import Indexer, OpenIndexers
from ingestion.intake import Intake
from ingestion.ledger import Ledger
from ingestion.parse import parse
from ingestion.types import Attempt, Generation, Parsed
from ingestion.worker import Worker
from retrieval.analyze import analyzer
from retrieval.stores.memory import MemoryStore
from retrieval.types import EmbedderSpec, IndexSpec, Matrix
from tests.conftest import running

CHARACTERS_PER_SECOND = 30_000
READ_PER_SECOND = 200_000
"""Bytes of a file that is no text."""
WORD = re.compile(r"\w+|[^\w\s]")
SPEC = IndexSpec(
    embedder="paced",
    dimension=8,
    chunker="structure",
    chunk_tokens=250,
    chunk_overlap=0,
    header_template="{title}\n{heading}\n",
    analyzer="plain",
    parser="1",
)


class PacedEmbedder:
    spec = EmbedderSpec(name="paced", artefact="paced", dimension=8, max_tokens=1_000)

    async def embed(self, texts: Sequence[str]) -> Matrix:
        await asyncio.sleep(sum(map(len, texts)) / CHARACTERS_PER_SECOND)
        return np.full((len(texts), 8), 8**-0.5, dtype=np.float32)

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        return [match.span() for match in WORD.finditer(text)]


class PacedReader:
    async def parse(
        self,
        content: bytes,
        filename: str | None,
        media_type: str | None,
        *,
        tenant: str | None = None,
        told: Callable[[str], None] | None = None,
    ) -> Parsed:
        if not (media_type or "").startswith("text/"):
            await asyncio.sleep(len(content) / READ_PER_SECOND)
        return await asyncio.to_thread(parse, content, filename, media_type)


class Nobody:
    def finished(self, attempt: Attempt) -> None:
        """Nobody is told."""


@dataclass(frozen=True, slots=True)
class PacedQueue:
    intake: Intake
    ledger: Ledger


@contextmanager
def database(folder: Path) -> Iterator[str]:
    """A PostgreSQL of its own; not to be entered in a running event loop."""
    (folder / "sockets").mkdir(mode=0o700)
    with running(embedded.postgres(folder / "postgres", folder / "sockets"), folder / "postgres.log") as part:
        yield part.url


@asynccontextmanager
async def paced_queue(url: str, folder: Path) -> AsyncIterator[PacedQueue]:
    """A queue with one worker on it, for as long as the block lasts."""
    await migrate.upgrade(url)
    engine = open_engine(url)
    ledger, blobs, store = Ledger(engine), Blobs(str(folder / "blobs")), MemoryStore()
    await store.prepare(SPEC.generation, SPEC)
    await ledger.ensure_generation(SPEC, "paced")
    indexer = Indexer(SPEC, PacedEmbedder(), analyzer("plain"))

    async def opened(known: Generation) -> Indexer:
        return indexer

    indexers = OpenIndexers(ledger, store, opened)
    worker = Worker(
        ledger, blobs, PacedReader(), store, indexers, name="here/1", lease=15.0, observer=Nobody()
    )
    stop = asyncio.Event()
    working = asyncio.create_task(worker.run(stop))
    try:
        yield PacedQueue(Intake(ledger, blobs, upload_limit=2**26), ledger)
    finally:
        stop.set()
        await working
        await engine.dispose()
