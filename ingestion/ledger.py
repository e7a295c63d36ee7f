"""The ledger: what was accepted, who works on it, what may be seen. Every other folder's truth.

Each method is one transaction, or one read, on PostgreSQL; the SQL lies beside the noun it is about
(`documents`, `jobs`, `queue`, `revisions`, `visibility`, `generations`). When PostgreSQL is away every
method raises `LedgerUnavailable`, having changed nothing that it does not find again when asked again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ingestion import documents, generations, jobs, queue, revisions, visibility
from ingestion.documents import Accepted, Claim
from ingestion.transaction import reading, transaction
from ingestion.types import Collection as DocumentCollection
from ingestion.types import Document, Generation, Job, JobError, JobState, Lease, Stage
from ingestion.visibility import Flip, Written
from retrieval.types import Filter, IndexSpec

CLAIM_AGE = 24 * 3600.0
"""How long an idempotency key is remembered, in seconds."""
SWEEP_BATCH = 500


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
        self, worker: str, seconds: float, limit: int, max_bytes: int = 16 * 2**20
    ) -> list[Lease]:
        async with transaction(self._engine) as connection:
            return await queue.lease(connection, worker, seconds, limit, max_bytes)

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
        again after an outage is safe."""
        async with transaction(self._engine) as connection:
            return await visibility.flip(connection, written)

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

    async def ensure_generation(self, spec: IndexSpec) -> None:
        """Register the generation as serving; documents that are not in it yet get a job each."""
        async with transaction(self._engine) as connection:
            await generations.ensure(connection, spec)

    async def retire_generation(self, generation: str) -> None:
        async with transaction(self._engine) as connection:
            await generations.retire(connection, generation)

    async def generations(self) -> list[Generation]:
        async with reading(self._engine) as connection:
            return await generations.listed(connection)

    async def serving(self) -> frozenset[str]:
        """The generations that every job must write."""
        async with reading(self._engine) as connection:
            return await generations.serving(connection)

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
