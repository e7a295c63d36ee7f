"""The ledger: what was accepted, who works on it, what may be seen. Every other folder's truth.

Each method is one transaction, or one read, on PostgreSQL; the SQL lies beside the noun it is about
(`documents`, `jobs`, `queue`, `revisions`, `visibility`, `generations`, `backfill`). When PostgreSQL is away
every method raises `LedgerUnavailable`, having changed nothing that it does not find again when asked again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ingestion import backfill, documents, generations, jobs, queue, revisions, visibility
from ingestion.documents import Accepted, Claim
from ingestion.transaction import reading, transaction
from ingestion.types import (
    Build,
    Document,
    Generation,
    GenerationState,
    Job,
    JobError,
    JobState,
    Lease,
    Placed,
    Stage,
)
from ingestion.types import Collection as DocumentCollection
from ingestion.written import Flip, Written
from retrieval.types import Filter, IndexSpec

CLAIM_AGE = 24 * 3600.0
"""How long an idempotency key is remembered, in seconds."""
SWEEP_BATCH = 500
QUEUE_BATCH = 5_000
LEASE_BYTES = 16 * 2**20
"""Documents that are leased together have no more bytes together, unless one alone has."""


class Ledger:
    """Implements `retrieval.types.Visibility`, and all that intake, worker and sweeper need.

    The engine is the caller's to dispose of.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def ping(self) -> None:
        async with reading(self._engine) as connection:
            await connection.execute(text("SELECT 1"))

    # What readers ask.

    async def visible(
        self, generation: str, where: Filter, candidates: Collection[tuple[str, int]]
    ) -> frozenset[int]:
        if not candidates:
            return frozenset()
        async with reading(self._engine) as connection:
            return await visibility.visible(connection, generation, where, candidates)

    async def epoch(self, where: Filter) -> str:
        async with reading(self._engine) as connection:
            return await visibility.epoch(connection, where)

    async def contents(self, generation: str, where: Filter, limit: int) -> list[tuple[str, int, int]]:
        async with reading(self._engine) as connection:
            return await visibility.contents(connection, generation, where, limit)

    # Documents.

    async def put(
        self,
        tenant: str,
        accepted: Sequence[Accepted],
        claim: Claim | None = None,
        traceparent: str | None = None,
    ) -> list[Job]:
        async with transaction(self._engine) as connection:
            return await documents.put(connection, tenant, accepted, claim, traceparent)

    async def replayed(self, tenant: str, claim: Claim) -> list[Job] | None:
        """The jobs that this idempotency key led to, None if it is new."""
        async with reading(self._engine) as connection:
            return await documents.replayed(connection, tenant, claim)

    async def delete(self, tenant: str, groups: frozenset[str] | None, document_id: str) -> Document:
        async with transaction(self._engine) as connection:
            return await documents.delete(connection, tenant, groups, document_id)

    async def document(self, tenant: str, groups: frozenset[str] | None, document_id: str) -> Document:
        async with reading(self._engine) as connection:
            return await documents.get(connection, tenant, groups, document_id)

    async def documents(
        self,
        tenant: str,
        groups: frozenset[str] | None,
        *,
        collection: str | None,
        after: str,
        limit: int,
    ) -> list[Document]:
        async with reading(self._engine) as connection:
            return await documents.page(
                connection, tenant, groups, collection=collection, after=after, limit=limit
            )

    async def collections(self, tenant: str) -> list[DocumentCollection]:
        async with reading(self._engine) as connection:
            return await documents.collections(connection, tenant)

    async def known_collections(self, tenant: str, names: Sequence[str]) -> set[str]:
        async with reading(self._engine) as connection:
            return await documents.known_collections(connection, tenant, names)

    # Jobs, for their owners.

    async def job(self, tenant: str, job_id: str) -> Job:
        async with reading(self._engine) as connection:
            return await jobs.one(connection, tenant, job_id)

    async def jobs(self, tenant: str, *, state: JobState | None, limit: int) -> list[Job]:
        async with reading(self._engine) as connection:
            return await jobs.newest(connection, tenant, state, limit)

    async def cancel(self, tenant: str, job_id: str) -> Job:
        async with transaction(self._engine) as connection:
            return await jobs.cancel(connection, tenant, job_id)

    async def retry(self, tenant: str, job_id: str) -> Job:
        async with transaction(self._engine) as connection:
            return await jobs.retry(connection, tenant, job_id)

    async def queue_depth(self) -> dict[JobState, int]:
        """Jobs of all tenants that are queued and running."""
        async with reading(self._engine) as connection:
            return await jobs.depth(connection)

    # Jobs, for workers.

    async def lease(
        self, worker: str, seconds: float, limit: int, max_bytes: int = LEASE_BYTES
    ) -> list[Lease]:
        async with transaction(self._engine) as connection:
            return await queue.lease(connection, worker, seconds, limit, max_bytes)

    async def lease_backfill(
        self, worker: str, seconds: float, limit: int, max_bytes: int = LEASE_BYTES
    ) -> list[Lease]:
        """Jobs that fill one generation that is being built."""
        async with transaction(self._engine) as connection:
            return await queue.lease_backfill(connection, worker, seconds, limit, max_bytes)

    async def heartbeat(self, held: Sequence[tuple[str, int]], seconds: float) -> set[str]:
        """Extend leases given as (job id, fence); the ids of those that still hold."""
        async with transaction(self._engine) as connection:
            return await queue.heartbeat(connection, held, seconds)

    async def progress(self, stage: Stage, counts: Sequence[tuple[Job, int, int]]) -> None:
        """Record the stage, and done of total, of jobs that still hold."""
        async with transaction(self._engine) as connection:
            await queue.progress(connection, stage, counts)

    async def begin(self, held: Sequence[Job]) -> dict[str, int]:
        """A new revision, recorded, for each of these jobs that still holds; by job id."""
        async with transaction(self._engine) as connection:
            return await revisions.begin(connection, held)

    async def flip(self, written: Sequence[Written]) -> dict[str, Flip]:
        """Make revisions the visible ones where that is allowed; the outcome of each by job id. Asking
        again after an outage is safe. All of them are of ordinary jobs, or all fill a generation."""
        flip = backfill.fill if any(one.job.generation for one in written) else visibility.flip
        async with transaction(self._engine) as connection:
            return await flip(connection, written)

    async def release(self, held: Sequence[Job], error: JobError | None = None, delay: float = 0.0) -> None:
        """Back into the queue after `delay` seconds, not counted as an attempt."""
        async with transaction(self._engine) as connection:
            await queue.release(connection, held, error, delay)

    async def fail(self, job: Job, error: JobError) -> bool:
        """Count an attempt; True if it was the last one."""
        async with transaction(self._engine) as connection:
            return await queue.fail(connection, job, error)

    async def quarantine(self, job: Job, error: JobError) -> None:
        async with transaction(self._engine) as connection:
            await queue.quarantine(connection, job, error)

    # Generations.

    async def ensure_generation(self, spec: IndexSpec, embedder: str) -> None:
        """See to it that the champion's generation takes traffic; `embedder` is the name of its artefact.
        Raises `Conflict` while it is being removed."""
        async with transaction(self._engine) as connection:
            await generations.ensure(connection, spec, embedder)

    async def build_generation(self, spec: IndexSpec, embedder: str) -> GenerationState:
        """Register a generation as being built, and queue a job for every document that is not in it; its
        state. Asked again it goes on where it was, and tries again what failed."""
        async with transaction(self._engine) as connection:
            state = await generations.build(connection, spec, embedder)
            if state in generations.UNFINISHED:
                await backfill.again(connection, spec.generation)
        last: tuple[str, str] | None = ("", "")
        # From the first commit on every flip leaves a job for its documents: these are the ones before.
        while state in generations.UNFINISHED and last is not None:
            async with transaction(self._engine) as connection:
                last = await backfill.enqueue(connection, spec.generation, last, QUEUE_BATCH)
        return state

    async def discard_generation(self, generation: str) -> None:
        """Give up one that is being built. Raises `Conflict` if it takes traffic or may come back."""
        async with transaction(self._engine) as connection:
            await generations.discard(connection, generation)

    async def join_generation(self, generation: str, seconds: float) -> None:
        """Have every job write a generation that is being built, for so long; 0 ends it."""
        async with transaction(self._engine) as connection:
            await generations.join(connection, generation, seconds)

    async def build(self, generation: str) -> Build | None:
        """How far a generation is, None if there is none."""
        async with reading(self._engine) as connection:
            return await backfill.status(connection, generation)

    async def sample(self, generation: str, limit: int) -> list[Placed]:
        async with reading(self._engine) as connection:
            return await backfill.sample(connection, generation, limit)

    async def closed_generation(self, connection: AsyncConnection, generation: str) -> Generation | None:
        """What is known of it; no generation is written or changed until the caller's transaction ends."""
        await generations.close(connection)
        return await generations.one(connection, generation)

    async def closed_build(self, connection: AsyncConnection, generation: str) -> Build | None:
        """As `build`, in the caller's transaction, after `closed_generation`."""
        return await backfill.status(connection, generation)

    async def switch_generation(self, connection: AsyncConnection, new: str, old: str) -> None:
        """Let `new` take traffic and `old` come back; in the caller's transaction, after
        `closed_generation`."""
        await generations.switch(connection, new, old)

    async def admit_generation(self, connection: AsyncConnection, generation: str) -> None:
        """Let it take traffic beside those that do; in the caller's transaction, after
        `closed_generation`."""
        await generations.admit(connection, generation)

    async def retire_generation(self, connection: AsyncConnection, generation: str) -> None:
        """Let nothing write or search it any more; in the caller's transaction."""
        await generations.retire(connection, generation)

    async def generations(self) -> list[Generation]:
        async with reading(self._engine) as connection:
            return await generations.listed(connection)

    async def generation(self, generation: str) -> Generation | None:
        async with reading(self._engine) as connection:
            return await generations.one(connection, generation)

    async def serving(self) -> frozenset[str]:
        """The generations that every ordinary job must write."""
        async with reading(self._engine) as connection:
            return generations.written_by_all(await generations.states(connection))

    # For the sweeper.

    async def expire(self) -> None:
        """Retire revisions whose writers hold no lease any more, and forget old idempotency keys."""
        async with transaction(self._engine) as connection:
            await revisions.expire(connection, SWEEP_BATCH)
            await documents.forget_claims(connection, CLAIM_AGE)

    async def due(self, window: float) -> tuple[list[int], list[int]]:
        """Retired revisions to remove now: those to come back to, and those retired for `window` seconds."""
        async with reading(self._engine) as connection:
            return await revisions.due(connection, window, SWEEP_BATCH)

    async def removed(self, again: Sequence[int], final: Sequence[int], window: float) -> None:
        """Record that the rows of these revisions were removed from the store."""
        async with transaction(self._engine) as connection:
            await revisions.looked(connection, again, window)
            await revisions.swept(connection, final)

    async def clear(self, generation: str) -> int:
        """Hide some of the documents of a retired generation; how many that were."""
        async with transaction(self._engine) as connection:
            return await backfill.clear(connection, generation, SWEEP_BATCH)

    @asynccontextmanager
    async def removing(self, generation: str) -> AsyncIterator[bool]:
        """Whether the caller alone may remove a retired generation from the store within the block; at its
        end the ledger forgets it."""
        async with transaction(self._engine) as connection:
            mine = await generations.claim_removal(connection, generation)
            yield mine
            if mine:
                await generations.forget(connection, generation)
