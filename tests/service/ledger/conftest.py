"""A ledger on a real PostgreSQL with one serving generation, and short ways to hand in and work off.

The embedder here hashes words: these tests are about who sees what, not about how well it is found.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app import migrate
from app.database import connect_args, dsn, open_engine
from ingestion import tables
from ingestion.documents import Accepted
from ingestion.indexers import Indexer
from ingestion.ledger import Ledger
from ingestion.reads import Reads
from ingestion.types import Job, Lease
from ingestion.written import Flip, Written
from retrieval.analyze import analyzer
from retrieval.stores.memory import MemoryStore
from retrieval.types import Dense, EmbedderSpec, Filter, IndexSpec, Matrix


@pytest.fixture(scope="session")
async def ledger_url(postgres_url: str) -> AsyncIterator[str]:
    """One migrated database for all tests of this folder; `engine` empties it."""
    name = "ledger_tests"
    admin = open_engine(postgres_url).execution_options(isolation_level="AUTOCOMMIT")
    async with admin.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    url = postgres_url.replace("@/postgres?", f"@/{name}?")
    await migrate.upgrade(url)
    yield url
    async with admin.connect() as connection:
        await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    await admin.dispose()


@pytest.fixture
async def engine(ledger_url: str) -> AsyncIterator[AsyncEngine]:
    engine = open_engine(ledger_url)
    async with engine.begin() as connection:
        names = ", ".join(tables.metadata.tables)
        await connection.execute(text(f"TRUNCATE {names}"))
    yield engine
    await engine.dispose()


@pytest.fixture
def spec() -> IndexSpec:
    return IndexSpec(
        embedder="hashing",
        dimension=64,
        chunker="structure",
        chunk_tokens=64,
        chunk_overlap=0,
        header_template="{title}\n{heading}\n",
        analyzer="plain",
        parser="1",
    )


@pytest.fixture
async def ledger(engine: AsyncEngine, spec: IndexSpec) -> Ledger:
    ledger = Ledger(engine)
    await ledger.ensure_generation(spec, "hashing")
    return ledger


@pytest.fixture
async def reads(ledger_url: str) -> AsyncIterator[Reads]:
    """What every reader asks, over connections of its own."""
    reads = Reads(dsn(ledger_url), connect_args())
    yield reads
    await reads.close()


@pytest.fixture
def accept(ledger: Ledger) -> Callable[..., Awaitable[Job]]:
    """Accept one version of a document: `await accept("handbook", "text", tenant=..., groups=...)`."""

    async def accept(
        document_id: str,
        text: str = "text",
        *,
        tenant: str = "acme",
        collection: str = "default",
        groups: frozenset[str] = frozenset(),
        media_type: str = "text/plain",
        priority: int = 0,
        by: frozenset[str] | None = None,
    ) -> Job:
        document = Accepted(
            id=document_id,
            collection=collection,
            title=None,
            filename=None,
            media_type=media_type,
            size=len(text),
            content_hash=hashlib.sha256(text.encode()).hexdigest(),
            metadata={},
            groups=groups,
            priority=priority,
        )
        return (await ledger.put(tenant, [document], groups=by))[0]

    return accept


@pytest.fixture
def lease_one(ledger: Ledger) -> Callable[..., Awaitable[Lease]]:
    """Lease the next job, which there must be."""

    async def lease_one(worker: str = "w", seconds: float = 30.0) -> Lease:
        (lease,) = await ledger.lease(worker, seconds, 1)
        return lease

    return lease_one


@pytest.fixture
def written(ledger: Ledger, spec: IndexSpec) -> Callable[..., Awaitable[Written]]:
    """Take a revision for a leased job, as if its three rows were in the store."""

    async def written(lease: Lease, *others: str) -> Written:
        revision = (await ledger.begin([lease.job]))[lease.job.id]
        generations = (lease.job.generation or spec.generation, *others)
        return Written(job=lease.job, revision=revision, chunks=dict.fromkeys(generations, 3))

    return written


@pytest.fixture
def show(
    ledger: Ledger,
    lease_one: Callable[..., Awaitable[Lease]],
    written: Callable[[Lease], Awaitable[Written]],
) -> Callable[[], Awaitable[tuple[Flip, int]]]:
    """Take the next job to its flip; the outcome and the revision."""

    async def show() -> tuple[Flip, int]:
        done = await written(await lease_one())
        return (await ledger.flip([done]))[done.job.id], done.revision

    return show


@pytest.fixture
def switch(ledger: Ledger, engine: AsyncEngine) -> Callable[[str, str], Awaitable[None]]:
    """Let a generation take traffic in the place of another: `await switch(new, old)`."""

    async def switch(new: str, old: str) -> None:
        async with engine.begin() as connection:
            assert await ledger.closed_generation(connection, new)
            await ledger.switch_generation(connection, new, old)

    return switch


@pytest.fixture
def somebody_waits(engine: AsyncEngine) -> Callable[[], Awaitable[None]]:
    """Returns once a transaction waits for another one's lock."""
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")

    async def somebody_waits() -> None:
        async with engine.connect() as connection, asyncio.timeout(10):
            while not await connection.scalar(waiting):
                await connection.rollback()
                await asyncio.sleep(0.01)

    return somebody_waits


class HashingEmbedder:
    """Every word falls into one of 64 dimensions."""

    spec = EmbedderSpec(name="hashing", artefact="hashing", dimension=64, max_tokens=256)

    async def embed(self, texts: Sequence[str]) -> Matrix:
        vectors = np.full((len(texts), 64), 1e-6, dtype=np.float32)
        for vector, content in zip(vectors, texts, strict=True):
            for word in re.findall(r"\w+", content.lower()):
                vector[int(hashlib.sha256(word.encode()).hexdigest(), 16) % 64] += 1
            vector /= np.linalg.norm(vector)
        return vectors

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


@pytest.fixture
def indexer(spec: IndexSpec) -> Indexer:
    return Indexer(spec, HashingEmbedder(), analyzer("plain"))


@pytest.fixture
async def store(spec: IndexSpec) -> MemoryStore:
    store = MemoryStore()
    await store.prepare(spec.generation, spec)
    return store


@pytest.fixture
def stored(store: MemoryStore, spec: IndexSpec) -> Callable[..., Awaitable[list[int]]]:
    """The revision of every row that the store holds in a generation, visible or not."""

    async def stored(generation: str | None = None, tenant: str = "acme") -> list[int]:
        where = Filter(tenant=tenant, groups=None)
        vector = np.full(64, 0.125, dtype=np.float32)
        hits = await store.search(
            generation or spec.generation, Dense(vector), where, 10_000, exclude=frozenset()
        )
        return sorted(hit.chunk.revision for hit in hits)

    return stored
