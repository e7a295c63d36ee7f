"""The ledger: what was accepted, who works on it, what may be seen. Every other folder's truth.

Each method is one transaction, or one read, on PostgreSQL; the SQL lies beside the noun it is about
(`documents`, `jobs`, `queue`, `revisions`, `visibility`, `generations`, `backfill`). When PostgreSQL is away
every method raises `LedgerUnavailable`, having changed nothing that it does not find again when asked again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ingestion import (
    backfill,
    documents,
    files,
    generations,
    history,
    jobs,
    pauses,
    presence,
    queue,
    revisions,
    rulebook,
    sources,
    standing,
    visibility,
)
from ingestion.documents import Accepted, Claim
from ingestion.erasing import Erasing
from ingestion.rules import Breach, Rules, RulesReport
from ingestion.sources import Source, Wanted
from ingestion.transaction import reading, transaction
from ingestion.types import (
    Build,
    Document,
    Expected,
    Generation,
    GenerationState,
    Job,
    JobError,
    JobQuery,
    Lease,
    Operation,
    PauseMode,
    Placed,
    Queue,
    Stage,
    Tally,
    WorkerStatus,
)
from ingestion.types import Collection as DocumentCollection
from ingestion.written import Flip, Written
from retrieval.types import Filter, IndexSpec

EVERY_JOB = JobQuery()
CLAIM_AGE = 24 * 3600.0
"""How long an idempotency key is remembered, in seconds."""
SWEEP_BATCH = 500
FILE_BATCH = 100
HISTORY_BATCH = 500
BURY_BATCH = 250
MATCH_BATCH = 2_000
QUEUE_BATCH = 5_000
LEASE_BYTES = 16 * 2**20
"""Documents that are leased together have no more bytes together, unless one alone has."""


class Ledger:
    """Implements `retrieval.types.Visibility`, and all that intake, worker and sweeper need.

    The engine is the caller's to dispose of.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @property
    def erasing(self) -> Erasing:
        return Erasing(self._engine)

    async def ping(self) -> None:
        async with reading(self._engine) as connection:
            await connection.execute(text("SELECT 1"))

    # Documents.

    async def put(
        self,
        tenant: str,
        accepted: Sequence[Accepted],
        claim: Claim | None = None,
        traceparent: str | None = None,
        groups: frozenset[str] | None = None,
        expected: Expected | None = None,
    ) -> list[Job]:
        async with transaction(self._engine) as connection:
            return await documents.put(connection, tenant, accepted, claim, traceparent, groups, expected)

    async def replayed(self, tenant: str, claim: Claim) -> list[Job] | None:
        """The jobs that this idempotency key led to, None if it is new."""
        async with reading(self._engine) as connection:
            return await documents.replayed(connection, tenant, claim)

    async def delete(
        self,
        tenant: str,
        groups: frozenset[str] | None,
        document_id: str,
        expected: Expected | None = None,
    ) -> Document:
        async with transaction(self._engine) as connection:
            return await documents.delete(connection, tenant, groups, document_id, expected)

    async def bury(self, which: Filter, after: str) -> tuple[list[Document], str | None]:
        """Delete those among the next documents after this id that the filter means; and where to go on,
        None at the end."""
        async with transaction(self._engine) as connection:
            return await documents.bury(connection, which, after, BURY_BATCH)

    async def matching(self, which: Filter, after: str) -> tuple[list[str], str | None]:
        """The ids of those among the next documents that the filter means, and where to go on."""
        async with reading(self._engine) as connection:
            return await documents.matching(connection, which, after, MATCH_BATCH)

    async def close_collection(self, tenant: str, name: str) -> None:
        """Forget a collection, if nothing is in it."""
        async with transaction(self._engine) as connection:
            await documents.close_collection(connection, tenant, name)

    async def restore_files(
        self, tenant: str, hashes: Sequence[str], store: Callable[[set[str]], Awaitable[None]]
    ) -> None:
        """Have the files of an accepted put stored again that may have been removed while it was accepted.
        Until `store` has done so it stays noted that they are gone, and another put of the same bytes
        waits."""
        async with transaction(self._engine) as connection:
            doubtful = await files.doubtful(connection, tenant, hashes)
            if doubtful:
                await store(doubtful)

    async def document(self, tenant: str, groups: frozenset[str] | None, document_id: str) -> Document:
        async with reading(self._engine) as connection:
            return await documents.get(connection, tenant, groups, document_id)

    async def documents(
        self,
        tenant: str,
        groups: frozenset[str] | None,
        *,
        collection: str | None,
        words: Sequence[str],
        after: str,
        limit: int,
    ) -> list[Document]:
        async with reading(self._engine) as connection:
            return await documents.page(
                connection, tenant, groups, collection=collection, words=words, after=after, limit=limit
            )

    async def collections(self, tenant: str, groups: frozenset[str] | None) -> list[DocumentCollection]:
        """With what these groups may read in each; one in which that is nothing is left out."""
        async with reading(self._engine) as connection:
            return await documents.collections(connection, tenant, groups)

    async def known_collections(
        self, tenant: str, groups: frozenset[str] | None, names: Sequence[str]
    ) -> set[str]:
        async with reading(self._engine) as connection:
            return await documents.known_collections(connection, tenant, groups, names)

    # What collections ask of their documents.

    async def rules(self, tenant: str, collection: str) -> tuple[Rules, datetime]:
        """The rules of a collection, and the ledger's time at which they held."""
        async with reading(self._engine) as connection:
            return await rulebook.get(connection, tenant, collection)

    async def rules_of_all(self, tenant: str, collections: Sequence[str]) -> Mapping[str, Rules]:
        """Those of the collections that have any."""
        async with reading(self._engine) as connection:
            return await rulebook.of_all(connection, tenant, collections)

    async def set_rules(self, tenant: str, collection: str, rules: Rules) -> None:
        async with transaction(self._engine) as connection:
            await rulebook.put(connection, tenant, collection, rules)

    async def paragraphs_elsewhere(
        self, tenant: str, collection: str, document_id: str, hashes: Sequence[int]
    ) -> int:
        """How many of these paragraphs other documents of the collection have."""
        async with reading(self._engine) as connection:
            return await rulebook.elsewhere(connection, tenant, collection, document_id, hashes)

    async def validated(self, job: Job, found: Sequence[Breach], hashes: Sequence[int]) -> None:
        """Record what a version that is let in broke, and its paragraphs if they are to be compared."""
        async with transaction(self._engine) as connection:
            await rulebook.validated(connection, job, found, hashes)

    async def rules_report(self, tenant: str, collection: str) -> RulesReport:
        async with reading(self._engine) as connection:
            return await rulebook.report(connection, tenant, collection)

    # Jobs, for their owners.

    async def job(self, tenant: str, job_id: str) -> Job:
        async with reading(self._engine) as connection:
            return await jobs.one(connection, tenant, job_id)

    async def jobs(
        self, tenant: str, query: JobQuery = EVERY_JOB, *, limit: int, before: str | None = None
    ) -> list[Job]:
        """The newest first; those accepted before the job `before`, if one is named."""
        async with reading(self._engine) as connection:
            return await jobs.newest(connection, tenant, query, before, limit)

    async def tally(self, tenant: str, query: JobQuery = EVERY_JOB) -> list[Tally]:
        async with reading(self._engine) as connection:
            return await jobs.tally(connection, tenant, query)

    async def cancel(self, tenant: str, job_id: str) -> Job:
        async with transaction(self._engine) as connection:
            return await jobs.cancel(connection, tenant, job_id)

    async def retry(self, tenant: str, job_id: str) -> Job:
        async with transaction(self._engine) as connection:
            return await jobs.retry(connection, tenant, job_id)

    async def cancel_jobs(self, tenant: str, query: JobQuery) -> int:
        """Cancel some of these that have not ended; how many, 0 when there is none left."""
        async with transaction(self._engine) as connection:
            return await jobs.cancel_many(connection, tenant, query)

    async def retry_jobs(self, tenant: str, query: JobQuery) -> int:
        """Queue some of these again that can be; how many, 0 when there is none left."""
        async with transaction(self._engine) as connection:
            return await jobs.retry_many(connection, tenant, query)

    # The queue as a whole. No tenant means all of them.

    async def queue(self, tenant: str | None) -> Queue:
        async with reading(self._engine) as connection:
            return await standing.queue(connection, tenant)

    async def waiting(self, tenant: str, limit: int) -> tuple[int, int]:
        """How many jobs of a tenant wait, counted up to `limit`, and the bytes of these."""
        async with reading(self._engine) as connection:
            return await standing.waiting(connection, tenant, limit)

    async def operation(self) -> Operation:
        async with reading(self._engine) as connection:
            return await standing.operation(connection)

    async def pause(self, tenant: str | None, mode: PauseMode, reason: str, who: str) -> None:
        """Lease no jobs of this tenant until `resume`, whoever restarts in between."""
        async with transaction(self._engine) as connection:
            await pauses.begin(connection, tenant, mode, reason, who)

    async def resume(self, tenant: str | None) -> None:
        async with transaction(self._engine) as connection:
            await pauses.end(connection, tenant)

    async def workers(self) -> list[WorkerStatus]:
        async with reading(self._engine) as connection:
            return await presence.listed(connection)

    # Jobs, for workers.

    async def present(self, name: str, about: Mapping[str, Any]) -> None:
        """Note that a worker is there, and what it says of itself."""
        async with transaction(self._engine) as connection:
            await presence.tell(connection, name, about)

    async def leave(self, name: str) -> None:
        async with transaction(self._engine) as connection:
            await presence.leave(connection, name)

    async def parts(self, parts: Sequence[tuple[Job, str]]) -> None:
        """Record which part of its document the reader of each of these jobs has reached."""
        async with transaction(self._engine) as connection:
            await queue.reading(connection, parts)

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

    async def heartbeat(self, held: Sequence[tuple[str, int]], seconds: float) -> set[tuple[str, int]]:
        """Extend leases given as (job id, fence); those that still hold."""
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

    async def sweep_again(self, written: Mapping[int, str]) -> None:
        """Have rows of these revisions, given with their tenants, removed once more unless readers see them:
        their writer may have been held up for longer than the sweeper waits."""
        async with transaction(self._engine) as connection:
            await revisions.sweep_again(connection, written)

    async def embedded_before(self, spec: IndexSpec, wanted: Sequence[Wanted]) -> list[Source]:
        """Where vectors of these documents' texts by this index's embedder may be found, behind the same
        prefix, the best places first."""
        async with reading(self._engine) as connection:
            return await sources.sources(connection, spec, wanted)

    async def embeddings_reused(self) -> int:
        """Vectors that were at hand and not computed, in all generations that are known."""
        async with reading(self._engine) as connection:
            return await generations.reused(connection)

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

    async def some(self, generation: str, limit: int) -> list[Placed]:
        """Documents that are in a generation, for a look that is taken often."""
        async with reading(self._engine) as connection:
            return await backfill.some(connection, generation, limit)

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

    # For the sweeper, the purger and the forgetter.

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
            await revisions.swept(connection, final, window)

    @asynccontextmanager
    async def loose_files(self, window: float) -> AsyncIterator[list[files.File]]:
        """Files that no document has needed for `window` seconds: the caller removes them within the block,
        while no put is accepted that counts on one of them."""
        async with transaction(self._engine) as connection:
            due = await files.due(connection, window, FILE_BATCH)
            needed = await files.needed(connection, due) if due else set()
            gone = [one for one in due if one not in needed]
            yield gone
            if due:
                await files.seen(connection, due, gone)

    async def forget_history(self, after: int, age: float) -> int | None:
        """Forget what newer versions replaced of the next versions after this number that are so many seconds
        old; where to go on, None at the end."""
        async with transaction(self._engine) as connection:
            return await history.forget(connection, after, age, HISTORY_BATCH)

    async def clear(self, generation: str) -> int:
        """Hide some of the documents of a retired generation; how many that were. What readers cannot find
        any more is kept, unseen."""
        async with transaction(self._engine) as connection:
            return await backfill.clear(connection, generation, SWEEP_BATCH)

    async def bring_back(self, after: tuple[str, str]) -> tuple[str, str] | None:
        """See to some of what is kept, after the (tenant, document) given: it is let go, or a job brings it
        back. Where to go on, None at the end."""
        async with transaction(self._engine) as connection:
            return await backfill.bring_back(connection, after, SWEEP_BATCH)

    @asynccontextmanager
    async def removing(self, generation: str) -> AsyncIterator[bool]:
        """Whether the caller alone may remove a retired generation from the store within the block; at its
        end the ledger forgets it."""
        async with transaction(self._engine) as connection:
            mine = await generations.claim_removal(connection, generation)
            yield mine
            if mine:
                await generations.forget(connection, generation)
