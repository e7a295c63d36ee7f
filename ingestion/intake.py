"""The way into ingestion for everybody above it: hand in, delete and read documents, follow jobs.

The only module of this folder that the service may call. A `put` that returned is durable: bytes first,
then versions and jobs in one transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace

from ingestion.blobs import Blobs
from ingestion.checks import COLLECTION, ID, check_idempotency_key, checked, request_hash
from ingestion.documents import Claim
from ingestion.errors import DocumentInvalid, NotFound
from ingestion.ledger import Ledger
from ingestion.parse import EXTENSIONS as EXTENSIONS  # Which files of a folder can be handed in.
from ingestion.types import Collection, Document, Job, JobState, NewDocument

MAX_PAGE = 1_000
WRITES_AT_ONCE = 16
WATCH_INTERVAL = 0.25
MOST_SEEN = 10_000
ENDED: frozenset[JobState] = frozenset({"succeeded", "failed", "quarantined", "cancelled"})


class Intake:
    def __init__(self, ledger: Ledger, blobs: Blobs, *, upload_limit: int) -> None:
        self._ledger = ledger
        self._seen: set[tuple[str, str]] = set()
        self._blobs = blobs
        self._upload_limit = upload_limit

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
    ) -> list[Job]:
        """Accept documents, new or in a new version, all or none; one job each, in their order.

        The same key with the same documents leads to the same jobs. Raises `Refused`, `LedgerUnavailable`
        or `StorageUnavailable`, having accepted nothing.
        """
        accepted = await asyncio.to_thread(checked, documents, self._upload_limit)
        claim = None
        if idempotency_key is not None:
            check_idempotency_key(idempotency_key)
            claim = Claim(idempotency_key, request_hash(accepted))
            before = await self._ledger.replayed(tenant, claim)
            if before is not None:
                return before
        await self._store(tenant, [one.content for one in documents])
        return await self._ledger.put(tenant, accepted, claim, traceparent)

    async def names(self, documents: Sequence[NewDocument]) -> list[str]:
        """The ids under which `put` would accept these documents; raises the `Refused` that it would."""
        accepted = await asyncio.to_thread(checked, documents, self._upload_limit)
        return [one.id for one in accepted]

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

    async def delete(self, tenant: str, groups: frozenset[str] | None, document_id: str) -> Document:
        """Delete a document. Once this returned no reader is shown any of it. What was deleted is
        returned, with the version number of the deletion."""
        return await self._ledger.delete(tenant, groups, _known_form(document_id))

    async def get(self, tenant: str, groups: frozenset[str] | None, document_id: str) -> Document:
        return await self._ledger.document(tenant, groups, _known_form(document_id))

    async def list_documents(
        self,
        tenant: str,
        groups: frozenset[str] | None,
        *,
        collection: str | None,
        after: str | None,
        limit: int,
    ) -> tuple[list[Document], str | None]:
        """A page in the order of ids, and what to pass as `after` for the next one, None on the last.
        Raises `NotFound` for a collection that the tenant does not have."""
        limit = max(1, min(limit, MAX_PAGE))
        if after and not ID.fullmatch(after):
            raise DocumentInvalid("`after` is the id of the last document of the page before.", "after")
        if collection is not None:
            await self.require_collections(tenant, [collection])
        found = await self._ledger.documents(
            tenant, groups, collection=collection, after=after or "", limit=limit + 1
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

    async def jobs(self, tenant: str, *, state: JobState | None, limit: int) -> list[Job]:
        """The newest jobs, newest first."""
        return await self._ledger.jobs(tenant, state=state, limit=max(1, min(limit, MAX_PAGE)))

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
                await asyncio.sleep(WATCH_INTERVAL)

    async def collections(self, tenant: str) -> list[Collection]:
        return await self._ledger.collections(tenant)

    async def require_collections(self, tenant: str, names: Sequence[str]) -> None:
        """Raise `NotFound` for the first of these collections that the tenant does not have.

        A collection never goes away, so one that was seen once is not asked about again."""
        unseen = [name for name in names if (tenant, name) not in self._seen]
        if not unseen:
            return
        possible = [name for name in unseen if COLLECTION.fullmatch(name)]
        known = await self._ledger.known_collections(tenant, possible)
        for name in unseen:
            if name not in known:
                raise NotFound("collection", name)
        if len(self._seen) + len(unseen) > MOST_SEEN:
            self._seen.clear()
        self._seen.update((tenant, name) for name in unseen)

    async def queue_depth(self) -> Mapping[JobState, int]:
        """Jobs of all tenants that are queued and running."""
        return await self._ledger.queue_depth()


def _known_form(document_id: str) -> str:
    if not ID.fullmatch(document_id):
        raise NotFound("document", document_id)
    return document_id


def _same(job: Job, seen: Job) -> bool:
    """Whether nothing happened; an estimate changes all the time."""
    return replace(job, eta_seconds=None) == replace(seen, eta_seconds=None)
