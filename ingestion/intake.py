"""The way into ingestion for everybody above it: hand in, delete and read documents, follow jobs.

The only module of this folder that the service may call. A `put` that returned is durable: bytes first,
then versions and jobs in one transaction.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ingestion.blobs import Blobs
from ingestion.checks import MOST_PRIORITY as MOST_PRIORITY  # What callers may ask for.
from ingestion.checks import check_idempotency_key, checked, request_hash
from ingestion.documents import Accepted, Claim
from ingestion.erase import erase
from ingestion.errors import DocumentInvalid, NotFound, QueueFull, RuleBroken
from ingestion.ledger import Ledger
from ingestion.names import COLLECTION, ID
from ingestion.parse import EXTENSIONS as EXTENSIONS  # Which files of a folder can be handed in.
from ingestion.rules import NONE, Rules, RulesReport, missing_metadata
from ingestion.types import (
    Collection,
    Document,
    Erasure,
    ErasureScope,
    Expected,
    Job,
    JobQuery,
    JobState,
    Limits,
    NewDocument,
    Operation,
    PauseMode,
    Queue,
    Tally,
    WorkerStatus,
)
from retrieval.types import Filter

MAX_PAGE = 1_000
WRITES_AT_ONCE = 16
WATCH_INTERVAL = 0.25
LONGEST_WATCH = 2.0
"""Whoever waits far back in the queue is told less often."""
ROOM_KNOWN_FOR = 5.0
SHORTEST_WAIT, LONGEST_WAIT = 1.0, 60.0
MOST_SEEN = 10_000
SEEN_FOR = 5.0
ENDED: frozenset[JobState] = frozenset({"succeeded", "failed", "quarantined", "cancelled"})


@dataclass(slots=True)
class Room:
    """What a tenant may still add to the queue, as far as it was known at `at` (`time.monotonic`)."""

    at: float
    jobs: int
    size: int


class Intake:
    """`upload_limit` bounds a document, in bytes; `most_queued` and `most_queued_bytes` bound what of one
    tenant waits: several processes that accept at once may exceed them by what each has in hand."""

    def __init__(
        self,
        ledger: Ledger,
        blobs: Blobs,
        *,
        upload_limit: int,
        most_queued: int = 1_000_000,
        most_queued_bytes: int = 2**40,
    ) -> None:
        self._ledger = ledger
        self._most_queued = most_queued
        self._most_queued_bytes = most_queued_bytes
        self._rooms: dict[str, Room] = {}
        self._seen: dict[tuple[str, frozenset[str] | None, str], float] = {}
        self._blobs = blobs
        self._upload_limit = upload_limit

    @property
    def limits(self) -> Limits:
        return Limits(
            document_bytes=self._upload_limit,
            queued=self._most_queued,
            queued_bytes=self._most_queued_bytes,
        )

    async def ping(self) -> None:
        """Raise `LedgerUnavailable` or `StorageUnavailable` if documents could not be taken now."""
        await self._ledger.ping()
        await self._blobs.ping()

    async def put(
        self,
        tenant: str,
        documents: Sequence[NewDocument],
        *,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
        groups: frozenset[str] | None = None,
        expected: Expected | None = None,
    ) -> list[Job]:
        """Accept documents, new or in a new version, all or none; one job each, in their order.

        The same key with the same documents leads to the same jobs. `groups` are the caller's, who replaces
        only what they may read; None may all. Raises `Refused`, `Taken`, `Changed` (one is not as
        `expected`), `QueueFull`, `LedgerUnavailable` or `StorageUnavailable`, having accepted nothing.
        """
        accepted = await asyncio.to_thread(checked, documents, self._upload_limit)
        claim = None
        if idempotency_key is not None:
            check_idempotency_key(idempotency_key)
            claim = Claim(idempotency_key, request_hash(accepted))
            before = await self._ledger.replayed(tenant, claim)
            if before is not None:
                return before
        await self._check_rules(tenant, accepted)
        await self._make_room(tenant, len(accepted), sum(one.size for one in accepted))
        contents = [one.content for one in documents]
        await self._store(tenant, contents)
        jobs = await self._ledger.put(tenant, accepted, claim, traceparent, groups, expected)
        hashes = [one.content_hash for one in accepted]
        await self._mend(tenant, dict(zip(hashes, contents, strict=True)))
        return jobs

    async def _mend(self, tenant: str, contents: Mapping[str, bytes]) -> None:
        """Store again what was there when it was handed in, and may have been removed, being unneeded until
        then, before its document was accepted. What is there is read, not written."""

        async def store(doubtful: set[str]) -> None:
            await self._store(tenant, [contents[digest] for digest in doubtful])

        await self._ledger.restore_files(tenant, sorted(contents), store)

    async def _check_rules(self, tenant: str, accepted: Sequence[Accepted]) -> None:
        """Refuse what lacks metadata that its collection insists on; all other rules ask about the text."""
        rules = await self._ledger.rules_of_all(tenant, sorted({one.collection for one in accepted}))
        for number, one in enumerate(accepted):
            asked = rules.get(one.collection, NONE)
            missing = missing_metadata(asked.refused_without, one.metadata)
            if missing:
                place = f"documents[{number}]"
                told = f"The collection {one.collection} does not take {place} ({one.id}). {missing}"
                raise RuleBroken(told, f"{place}.metadata")

    async def _make_room(self, tenant: str, jobs: int, size: int) -> None:
        """Count these in, or raise `QueueFull`. The ledger is asked again when what it said is old, or says
        that there is no room. A request alone always fits."""
        room = self._rooms.get(tenant)
        now = time.monotonic()
        if room is None or now - room.at > ROOM_KNOWN_FOR or not _fits(room, jobs, size):
            waiting, waiting_bytes = await self._ledger.waiting(tenant, self._most_queued + 1)
            room = Room(now, self._most_queued - waiting, self._most_queued_bytes - waiting_bytes)
            if waiting and not _fits(room, jobs, size):
                raise await self._full(tenant, waiting)
            if len(self._rooms) >= MOST_SEEN:
                self._rooms.clear()
            self._rooms[tenant] = room
        room.jobs -= jobs
        room.size -= size

    async def _full(self, tenant: str, waiting: int) -> QueueFull:
        """With the time in which a tenth of what waits should be done."""
        eta = (await self._ledger.queue(tenant)).eta_seconds
        pause = LONGEST_WAIT if eta is None else min(LONGEST_WAIT, max(SHORTEST_WAIT, eta / 10))
        return QueueFull(
            f"{waiting:,} documents are waiting to be indexed, and no more are accepted now. Nothing was "
            f"kept; try again in {pause:.0f} seconds.",
            pause,
        )

    async def _store(self, tenant: str, contents: Sequence[bytes]) -> None:
        turns = asyncio.Semaphore(WRITES_AT_ONCE)

        async def store(content: bytes) -> None:
            async with turns:
                await self._blobs.put(tenant, content)

        try:
            async with asyncio.TaskGroup() as group:
                for content in contents:
                    group.create_task(store(content))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def delete(
        self,
        tenant: str,
        groups: frozenset[str] | None,
        document_id: str,
        expected: Expected | None = None,
    ) -> Document:
        """Delete a document. Once this returned no reader is shown any of it. What was deleted is
        returned, with the version number of the deletion. Raises `Changed` where it is not as `expected`."""
        return await self._ledger.delete(tenant, groups, known_form(document_id), expected)

    async def delete_all(self, which: Filter) -> list[Document]:
        """Delete every document that the filter means, in bounded transactions: no reader is shown any of
        those that are done. What was deleted is returned, with the version numbers of the deletions."""
        gone: list[Document] = []
        after: str | None = ""
        while after is not None:
            buried, after = await self._ledger.bury(which, after)
            gone += buried
        return gone

    async def matching(self, which: Filter) -> list[str]:
        """The ids of the documents that `delete_all` would delete."""
        found: list[str] = []
        after: str | None = ""
        while after is not None:
            ids, after = await self._ledger.matching(which, after)
            found += ids
        return found

    async def delete_collection(self, which: Filter) -> list[Document]:
        """`delete_all`, of one collection, which is not known any more afterwards unless something stayed or
        came."""
        (name,) = which.collections
        await self.require_collections(which.tenant, which.groups, [name])
        gone = await self.delete_all(which)
        await self._ledger.close_collection(which.tenant, name)
        self._unsee(which.tenant, name)
        return gone

    async def erase(self, which: Filter, scope: ErasureScope, who: str) -> Erasure:
        """Delete every document that the filter means, and have what is left of it, and of those that were
        deleted before, taken out of every store. Raises `NotFound` for the first named document of which the
        ledger knows nothing: a receipt for a misspelt id would be taken for one of the document."""
        if which.document_ids:
            known = await self._ledger.erasing.known(which.tenant, which.document_ids)
            for name in which.document_ids:
                if name not in known:
                    raise NotFound("document", name)
        erasure = await erase(self._ledger.erasing, which, scope, who)
        for name in which.collections:
            self._unsee(which.tenant, name)
        return erasure

    async def erasure(self, tenant: str, erasure_id: str) -> Erasure:
        return await self._ledger.erasing.one(tenant, erasure_id)

    async def erasures(self, tenant: str, limit: int) -> list[Erasure]:
        """The newest first."""
        return await self._ledger.erasing.listed(tenant, max(1, min(limit, MAX_PAGE)))

    async def embeddings_reused(self) -> int:
        """Vectors that were at hand and not computed."""
        return await self._ledger.embeddings_reused()

    async def get(self, tenant: str, groups: frozenset[str] | None, document_id: str) -> Document:
        return await self._ledger.document(tenant, groups, known_form(document_id))

    async def list_documents(
        self,
        tenant: str,
        groups: frozenset[str] | None,
        *,
        collection: str | None,
        after: str | None,
        limit: int,
        named: str = "",
    ) -> tuple[list[Document], str | None]:
        """A page in the order of ids, and what to pass as `after` for the next one, None on the last; of
        those in whose title, file name or id every word of `named` stands, in letters of any size.
        Raises `NotFound` for a collection that the tenant does not have."""
        limit = max(1, min(limit, MAX_PAGE))
        if after and not ID.fullmatch(after):
            raise DocumentInvalid("`after` is the id of the last document of the page before.", "after")
        if collection is not None:
            await self.require_collections(tenant, groups, [collection])
        found = await self._ledger.documents(
            tenant,
            groups,
            collection=collection,
            words=named.split(),
            after=after or "",
            limit=limit + 1,
        )
        page = found[:limit]
        return page, page[-1].id if len(found) > limit else None

    async def original(
        self, tenant: str, groups: frozenset[str] | None, document_id: str
    ) -> tuple[Document, bytes]:
        """A document's newest accepted version with its bytes as they were handed in."""
        document = await self.get(tenant, groups, document_id)
        return document, await self._blobs.get(tenant, document.content_hash)

    async def job(self, tenant: str, job_id: str) -> Job:
        return await self._ledger.job(tenant, job_id)

    async def jobs(self, tenant: str, query: JobQuery, *, limit: int, before: str | None = None) -> list[Job]:
        """The newest of these jobs, newest first; those accepted before the job `before`, if one is named."""
        return await self._ledger.jobs(tenant, query, limit=max(1, min(limit, MAX_PAGE)), before=before)

    async def tally(self, tenant: str, query: JobQuery) -> list[Tally]:
        """How many of these jobs there are, by state and reason."""
        return await self._ledger.tally(tenant, query)

    async def cancel_jobs(self, tenant: str, query: JobQuery) -> int:
        """Cancel those of these jobs that have not ended; how many that were."""
        return await _all_of(lambda: self._ledger.cancel_jobs(tenant, query))

    async def retry_jobs(self, tenant: str, query: JobQuery) -> int:
        """Queue those of these jobs again that ended without success, unless their document was deleted or
        has a newer version; how many that were."""
        return await _all_of(lambda: self._ledger.retry_jobs(tenant, query))

    async def cancel(self, tenant: str, job_id: str) -> Job:
        """Cancel a queued or running job; `Conflict` if it has ended."""
        return await self._ledger.cancel(tenant, job_id)

    async def retry(self, tenant: str, job_id: str) -> Job:
        """Queue a failed, quarantined or cancelled job again; `Conflict` if there is nothing to retry."""
        return await self._ledger.retry(tenant, job_id)

    async def watch(self, tenant: str, job_id: str) -> AsyncGenerator[Job, None]:
        """The job now, and again after every change, until it has ended."""
        seen: Job | None = None
        while seen is None or seen.state not in ENDED:
            job = await self._ledger.job(tenant, job_id)
            if seen is None or not _same(job, seen):
                yield job
                seen = job
            if job.state not in ENDED:
                await asyncio.sleep(_look_again(job))

    async def collections(self, tenant: str, groups: frozenset[str] | None) -> list[Collection]:
        """Those of which these groups may read something, with how much."""
        return await self._ledger.collections(tenant, groups)

    async def rules(self, tenant: str, groups: frozenset[str] | None, collection: str) -> Rules:
        """What a collection asks of its documents. Raises `NotFound` for one that is not known, unless it is
        still to come, and asks something already, of who reads every group."""
        if not COLLECTION.fullmatch(collection):
            raise NotFound("collection", collection)
        rules, _ = await self._ledger.rules(tenant, collection)
        if rules == NONE or groups is not None:
            await self.require_collections(tenant, groups, [collection])
        return rules

    async def set_rules(self, tenant: str, collection: str, rules: Rules) -> None:
        """For every document that is accepted from now on; the collection may be still to come. Raises
        `DocumentInvalid`."""
        if not COLLECTION.fullmatch(collection):
            raise DocumentInvalid(
                "A collection's name has lower-case letters, digits, - and _, at most 63, the first a letter "
                "or digit.",
                "name",
            )
        await self._ledger.set_rules(tenant, collection, rules)

    async def rules_report(self, tenant: str, collection: str) -> RulesReport:
        """How a collection's documents stand to its rules. Raises `NotFound`."""
        await self.rules(tenant, None, collection)
        return await self._ledger.rules_report(tenant, collection)

    async def require_collections(
        self, tenant: str, groups: frozenset[str] | None, names: Sequence[str]
    ) -> None:
        """Raise `NotFound` for the first of these collections that the tenant does not have, or of which
        these groups may read nothing; one that another process deleted may be missed for some seconds."""
        now, seen = time.monotonic(), self._seen
        unseen = [name for name in names if now - seen.get((tenant, groups, name), -SEEN_FOR) >= SEEN_FOR]
        if not unseen:
            return
        possible = [name for name in unseen if COLLECTION.fullmatch(name)]
        known = await self._ledger.known_collections(tenant, groups, possible)
        for name in unseen:
            if name not in known:
                raise NotFound("collection", name)
        if len(self._seen) + len(unseen) > MOST_SEEN:
            self._seen.clear()
        self._seen.update({(tenant, groups, name): now for name in unseen})

    def _unsee(self, tenant: str, name: str) -> None:
        """Whoever asks for the collection next, by whatever groups, asks the ledger."""
        for seen in [one for one in self._seen if (one[0], one[2]) == (tenant, name)]:
            del self._seen[seen]

    async def queue(self, tenant: str | None) -> Queue:
        """How the queue of a tenant stands, or that of all (None)."""
        return await self._ledger.queue(tenant)

    async def pause(self, tenant: str | None, mode: PauseMode, *, reason: str, who: str) -> Queue:
        """Let nothing of a tenant (None: of anybody) begin until it is resumed; what runs is finished."""
        await self._ledger.pause(tenant, mode, reason, who)
        return await self._ledger.queue(tenant)

    async def resume(self, tenant: str | None) -> Queue:
        await self._ledger.resume(tenant)
        return await self._ledger.queue(tenant)

    async def workers(self) -> list[WorkerStatus]:
        return await self._ledger.workers()

    async def operation(self) -> Operation:
        """What an operator watches, of all tenants."""
        return await self._ledger.operation()


def _fits(room: Room, jobs: int, size: int) -> bool:
    return jobs <= room.jobs and size <= room.size


def _look_again(job: Job) -> float:
    far = (job.position or 0) / 100
    return min(LONGEST_WATCH, WATCH_INTERVAL * (1 + far))


async def _all_of(some: Callable[[], Awaitable[int]]) -> int:
    """Do as much as is done in one transaction, until there is nothing left."""
    count = 0
    while done := await some():
        count += done
    return count


def known_form(document_id: str) -> str:
    """The id as it is. Raises `NotFound` for a text that is the id of no document, whoever asks."""
    if not ID.fullmatch(document_id):
        raise NotFound("document", document_id)
    return document_id


def _same(job: Job, seen: Job) -> bool:
    """Whether nothing happened; an estimate changes all the time."""
    return replace(job, eta_seconds=None, moved_at=None) == replace(seen, eta_seconds=None, moved_at=None)
