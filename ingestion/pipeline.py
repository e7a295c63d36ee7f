"""From leased jobs to visible revisions: bytes -> parsed -> chunks -> vectors -> rows -> flip.

A batch of documents goes through together, so that the embedder sees the texts of all of them at once.
Each document ends by itself; what concerns none in particular (a part that is down) is raised.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np

from ingestion.blobs import Blobs
from ingestion.documents import default_title
from ingestion.errors import LedgerUnavailable, NotFound, Quarantined, StorageUnavailable, UnsupportedType
from ingestion.indexers import Indexer, Indexers
from ingestion.leases import Leases
from ingestion.ledger import Ledger
from ingestion.leftovers import Leftovers
from ingestion.reuse import Reuse, Wanted, text_hash
from ingestion.types import Job, JobError, Lease, Parsed, Piece, Stage
from ingestion.validation import Validation
from ingestion.written import Written
from retrieval.errors import EmbedderUnavailable
from retrieval.types import Chunk, Matrix, Row, Store

T = TypeVar("T")
_Work = Callable[[], Coroutine[Any, Any, None]]

TEXTS_AT_ONCE = 256
"""Texts per embedding call, and rows per upsert: progress is told and leases are looked at in between."""
FEW_TEXTS = 16
GROUP_TEXTS = 1_024
"""Texts that are embedded before any of them is written: enough of like length, few enough to hold."""
UPSERTS = 4
"""Upserts of a group that are under way at once: a store that commits by rounds takes them in one."""
LEDGER_PAUSE = 0.25


class Parser(Protocol):
    async def parse(
        self,
        content: bytes,
        filename: str | None,
        media_type: str | None,
        *,
        tenant: str | None = None,
        told: Callable[[str], None] | None = None,
    ) -> Parsed:
        """Raises `Quarantined` or `UnsupportedType` for what can never be read. `told` is called with the
        part that is read, while it takes long."""
        ...


@dataclass(slots=True)
class Draft:
    """A document between its bytes and its flip; `written` counts its rows by generation. `characters` were
    embedded for it in `seconds`, its share of its batch; `reused` vectors were at hand. `handling` is what
    reading and writing it took, in seconds. It is `settled` once the ledger said, after its last row, that
    it is visible or superseded."""

    lease: Lease
    parsed: Parsed
    title: str
    revision: int = 0
    texts: list[tuple[Piece, str]] = field(default_factory=list)
    written: dict[str, int] = field(default_factory=dict)
    characters: int = 0
    seconds: float = 0.0
    reused: int = 0
    handling: float = 0.0
    settled: bool = False

    @property
    def job(self) -> Job:
        return self.lease.job


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """`embedding` is held while the embedder works, by few at once: for so many `texts` and then anew, so
    that nobody waits for the whole of a long document. As many are written at once. Before each such turn
    whoever holds or waits for `first` goes first."""

    ledger: Ledger
    blobs: Blobs
    parser: Parser
    store: Store
    indexers: Indexers
    leases: Leases
    leftovers: Leftovers
    reuse: Reuse
    validation: Validation
    embedding: asyncio.Semaphore
    first: asyncio.Semaphore | None = None
    texts: int = TEXTS_AT_ONCE

    async def run(self, batch: Sequence[Lease]) -> None:
        """Take each of these jobs to its end: ordinary ones, or such as fill the same generation. What was
        not finished when this raises is still held."""
        stages: dict[Stage, tuple[float, float]] = {}
        async with _timed(stages, "parse"):
            read, unreachable = await self._read_all(batch)
        drafts = await self._begin(read)
        try:
            await self._write_all(drafts, stages)
        finally:
            for draft in drafts:
                if not draft.settled:
                    self.leftovers.note(draft.revision, draft.job.tenant)
        if unreachable:
            raise unreachable

    async def _write_all(self, drafts: Sequence[Draft], stages: dict[Stage, tuple[float, float]]) -> None:
        """Write drafts to one generation after the other until none is missing, and show them."""
        while drafts:
            missing = await self._missing(drafts)
            for generation in missing:
                indexer = await self.indexers.get(generation)
                drafts = await self._cut(drafts, indexer)
                last = generation == missing[-1]
                drafts = await self._index(drafts, generation, indexer, stages, last=last)
            if not missing:
                drafts = await self._flip(drafts, stages)

    async def _read_all(self, batch: Sequence[Lease]) -> tuple[list[Draft], StorageUnavailable | None]:
        """The documents that could be read, and what kept files away, which may be one file's trouble."""
        drafts: list[Draft] = []
        unreachable: StorageUnavailable | None = None
        for lease in batch:
            try:
                draft = await self._read(lease)
            except StorageUnavailable as error:
                unreachable = error
            else:
                drafts += [draft] if draft else []
        return drafts, unreachable

    async def _read(self, lease: Lease) -> Draft | None:
        """Fetch and parse one document; None if it can never be read."""
        begun = time.monotonic()
        try:
            content = await self.blobs.get(lease.job.tenant, lease.content_hash)
            tenant = lease.job.tenant
            told = partial(self.leases.reading, lease)
            parsed = await self.parser.parse(
                content, lease.filename, lease.media_type, tenant=tenant, told=told
            )
            await self.validation.check(lease, parsed)
        except (Quarantined, UnsupportedType) as error:
            await self._quarantine(lease, error)
            return None
        except NotFound as error:
            await self._fail(lease, JobError(code="file_missing", message=str(error)))
            return None
        fallback = default_title(parsed.title, lease.filename, lease.job.document_id)
        return Draft(lease, parsed, lease.title or fallback, handling=time.monotonic() - begun)

    async def _begin(self, drafts: Sequence[Draft]) -> list[Draft]:
        """Take and record revisions: nothing is written before the ledger knows its number."""
        if not drafts:
            return []
        revisions = await self._patiently(lambda: self.ledger.begin([draft.job for draft in drafts]), drafts)
        for draft in drafts:
            draft.revision = revisions.get(draft.job.id, 0)
            if not draft.revision:
                self.leases.finish(draft.lease, "lost")
        return [draft for draft in drafts if draft.revision]

    async def _missing(self, drafts: Sequence[Draft]) -> list[str]:
        """The generations that these drafts are still to be written to."""
        filled = drafts[0].job.generation
        wanted = {filled} if filled else await self._patiently(self.ledger.serving, drafts)
        if not wanted:
            raise EmbedderUnavailable("No index generation is registered yet.")
        return sorted(wanted - drafts[0].written.keys())

    async def _cut(self, drafts: Sequence[Draft], indexer: Indexer) -> list[Draft]:
        """Chunk each document for this generation; one without any text is put aside."""
        found = await asyncio.to_thread(
            lambda: [indexer.texts(draft.parsed, draft.title) for draft in drafts]
        )
        for draft, texts in zip(drafts, found, strict=True):
            draft.texts = texts
            if not draft.texts:
                await self._quarantine(draft.lease, Quarantined("empty", "The document holds no text."))
        left = [draft for draft in drafts if draft.texts]
        await self._progress("embed", [(draft.job, 0, len(draft.texts)) for draft in left])
        return left

    async def _index(
        self,
        drafts: Sequence[Draft],
        generation: str,
        indexer: Indexer,
        stages: dict[Stage, tuple[float, float]],
        *,
        last: bool,
    ) -> list[Draft]:
        """Embed and write, a group of documents at a time: one is written while the next is embedded, and no
        more than these two are held. Those of the `last` generation are shown as soon as they are written;
        the drafts that are not done yet."""

        async def write(group: Sequence[Draft], vectors: Matrix) -> None:
            async with _timed(stages, "index"):
                await self._write(group, generation, indexer, vectors)
            if last:
                await self._flip(self._held(group), stages)

        writing: asyncio.Task[None] | None = None
        try:
            for group in _groups(drafts):
                async with _timed(stages, "embed"):
                    vectors = await self._embed(group, indexer)
                if writing:
                    await writing
                writing = asyncio.create_task(write(group, vectors))
            if writing:
                await writing
        finally:
            if writing:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
        return self._held(drafts)

    async def _embed(self, drafts: Sequence[Draft], indexer: Indexer) -> Matrix:
        """Vectors of all texts of all drafts, in their order, computed in the order of length. Those that are
        at hand are not computed, and a text that occurs again is computed once."""
        texts = [text for draft in drafts for _, text in draft.texts]
        vectors = np.zeros((len(texts), indexer.spec.dimension), dtype=np.float32)
        owners = [n for n, draft in enumerate(drafts) for _ in draft.texts]
        done = [0] * len(drafts)
        places = _places(drafts, indexer)
        for name, vector in (await self.reuse.known(indexer.spec, _wanted(drafts, indexer))).items():
            for n in places.pop(name, ()):
                vectors[n] = vector
                done[owners[n]] += 1
                drafts[owners[n]].reused += 1
        order = sorted(places.values(), key=lambda same: len(texts[same[0]]))
        seconds = 0.0
        while order := self._still_wanted(order, owners, drafts):
            chosen, order = [same[0] for same in order[: self.texts]], order[self.texts :]
            await self._let_first()
            async with self._turn(len(places)):
                begun = time.monotonic()
                vectors[chosen] = await indexer.embed([texts[n] for n in chosen])
                seconds += time.monotonic() - begun
            for n in chosen:
                done[owners[n]] += 1
            if len(places) > self.texts:
                counts = [(one.job, n, len(one.texts)) for one, n in zip(drafts, done, strict=True)]
                await self._progress("embed", counts)
        for first, *others in places.values():
            vectors[others] = vectors[first]
        _share(drafts, seconds)
        return vectors

    def _still_wanted(
        self, order: Sequence[list[int]], owners: Sequence[int], drafts: Sequence[Draft]
    ) -> list[list[int]]:
        """The texts of `order` that any draft wants whose job is not over, as one that was cancelled is."""
        held = {id(draft) for draft in self._held(drafts)}
        wanted = [id(draft) in held for draft in drafts]
        return [same for same in order if any(wanted[owners[n]] for n in same)]

    def _turn(self, texts: int) -> AbstractAsyncContextManager[object]:
        """One of the few turns at the embedder; a document of few texts needs none, since the embedder lets
        such a call in between the parts of a long one."""
        return nullcontext() if texts <= FEW_TEXTS else self.embedding

    async def _let_first(self) -> None:
        """Wait for those who go first; they are asked in order, so this ends whatever they do next."""
        if self.first is not None:
            async with self.first:
                pass

    async def _write(
        self, drafts: Sequence[Draft], generation: str, indexer: Indexer, vectors: Matrix
    ) -> None:
        """Upsert the rows of all drafts whose lease still holds; the others are lost."""
        begun = time.monotonic()
        places = [(draft, ordinal) for draft in drafts for ordinal in range(len(draft.texts))]
        if len(places) > self.texts:  # Otherwise it is done as soon as it is told.
            await self._progress("index", [(one.job, len(one.texts), len(one.texts)) for one in drafts])
        held = {draft.revision: draft for draft in drafts}
        async with _at_once(UPSERTS) as begin:
            for start in range(0, len(places), self.texts):
                # One that lapsed in between has lost rows for good, even if it is renewed later.
                held = {n: draft for n, draft in held.items() if self.leases.holds(draft.lease)}
                part = slice(start, start + self.texts)
                rows = await asyncio.to_thread(_rows, places[part], held, indexer, vectors[part])
                if rows:
                    await begin(partial(self.store.upsert, generation, rows))
        each = (time.monotonic() - begun) / max(1, len(places))
        for draft in drafts:
            draft.handling += each * len(draft.texts)
            draft.written[generation] = len(draft.texts)
            draft.texts = []
            if draft.revision not in held:
                self.leases.finish(draft.lease, "lost")

    async def _flip(
        self, drafts: Sequence[Draft], stages: Mapping[Stage, tuple[float, float]]
    ) -> list[Draft]:
        """Ask the ledger to show what was written; the drafts that must write another generation first."""
        if not drafts:
            return []
        written = [
            Written(
                job=draft.job,
                revision=draft.revision,
                chunks=draft.written,
                characters=draft.characters,
                seconds=draft.seconds,
                reused=draft.reused,
                handling=draft.handling,
                called=draft.title,
            )
            for draft in drafts
        ]
        outcomes = await self._patiently(lambda: self.ledger.flip(written), drafts)
        for draft, one in zip(drafts, written, strict=True):
            outcome = outcomes[draft.job.id]
            draft.settled = outcome in ("flipped", "superseded")
            if outcome != "generations_changed":
                said = "succeeded" if outcome == "flipped" else outcome
                chunks = max(one.chunks.values())
                self.leases.finish(draft.lease, said, chunks=chunks, stages=stages)
        return self._held(drafts)

    def _held(self, drafts: Sequence[Draft]) -> list[Draft]:
        unfinished = {lease.job.id for lease in self.leases.unfinished(draft.lease for draft in drafts)}
        return [draft for draft in drafts if draft.job.id in unfinished]

    async def _fail(self, lease: Lease, problem: JobError) -> None:
        last = await self.ledger.fail(lease.job, problem)
        self.leases.finish(lease, "failed" if last else "retried")

    async def _quarantine(self, lease: Lease, error: Quarantined | UnsupportedType) -> None:
        if isinstance(error, Quarantined):
            problem = JobError(code=error.reason, message=str(error), part=error.part)
        else:
            problem = JobError(code=error.code, message=str(error))
        await self.ledger.quarantine(lease.job, problem)
        self.leases.finish(lease, "quarantined")

    async def _progress(self, stage: Stage, counts: Sequence[tuple[Job, int, int]]) -> None:
        # Only told, never relied on.
        with suppress(LedgerUnavailable):
            if counts:
                await self.ledger.progress(stage, counts)

    async def _patiently(self, ask: Callable[[], Awaitable[T]], drafts: Sequence[Draft]) -> T:
        """Ask the ledger until it answers or no lease holds any more; rather than do the work again."""
        while True:
            try:
                return await ask()
            except LedgerUnavailable:
                if not any(self.leases.holds(draft.lease) for draft in drafts):
                    raise
                await asyncio.sleep(LEDGER_PAUSE)


def _places(drafts: Sequence[Draft], indexer: Indexer) -> dict[tuple[str, str], list[int]]:
    """Where each text of each tenant occurs, by its hash, among all texts of all drafts."""
    places: dict[tuple[str, str], list[int]] = {}
    texts = ((draft.job.tenant, text) for draft in drafts for _, text in draft.texts)
    for n, (tenant, content) in enumerate(texts):
        places.setdefault((tenant, text_hash(indexer.embedded(content))), []).append(n)
    return places


def _wanted(drafts: Sequence[Draft], indexer: Indexer) -> list[Wanted]:
    return [
        Wanted(
            draft.job.tenant,
            draft.job.document_id,
            draft.lease.content_hash,
            frozenset(text_hash(indexer.embedded(content)) for _, content in draft.texts),
        )
        for draft in drafts
    ]


def _share(drafts: Sequence[Draft], seconds: float) -> None:
    """Charge each document its part of the seconds that embedding them took."""
    sizes = [sum(len(text) for _, text in draft.texts) for draft in drafts]
    for draft, size in zip(drafts, sizes, strict=True):
        draft.characters += size
        draft.seconds += seconds * size / max(1, sum(sizes))


def _groups(drafts: Sequence[Draft]) -> Iterator[list[Draft]]:
    """The drafts in groups of at most `GROUP_TEXTS` texts, unless one alone has more. Short ones come first,
    so that they wait for no long one."""
    group: list[Draft] = []
    texts = 0
    for draft in sorted(drafts, key=lambda draft: len(draft.texts)):
        if group and texts + len(draft.texts) > GROUP_TEXTS:
            yield group
            group, texts = [], 0
        group.append(draft)
        texts += len(draft.texts)
    if group:
        yield group


def _rows(
    places: Sequence[tuple[Draft, int]], held: Collection[int], indexer: Indexer, vectors: Matrix
) -> list[Row]:
    """The rows of these texts of drafts, by their number, whose revision is held."""
    rows = []
    for (draft, ordinal), vector in zip(places, vectors, strict=True):
        if draft.revision in held:
            piece, text = draft.texts[ordinal]
            chunk = _chunk(draft, ordinal, piece, text_hash(indexer.embedded(text)))
            rows.append(Row(chunk=chunk, vector=vector, terms=indexer.analyzer.terms(text)))
    return rows


def _chunk(draft: Draft, ordinal: int, piece: Piece, content_hash: str) -> Chunk:
    lease = draft.lease
    return Chunk(
        id=f"{draft.revision}-{ordinal}",
        tenant=lease.job.tenant,
        collection=lease.collection,
        document_id=lease.job.document_id,
        revision=draft.revision,
        ordinal=ordinal,
        content_hash=content_hash,
        title=draft.title,
        heading=piece.heading,
        text=piece.text,
        page=piece.page,
        span=piece.span,
        groups=lease.groups,
        metadata=lease.metadata,
    )


@asynccontextmanager
async def _at_once(most: int) -> AsyncIterator[Callable[[_Work], Awaitable[None]]]:
    """`begin` begins a piece of work at once and returns when fewer than `most` are under way; the block ends
    with the last. What one raises is raised when none is under way any more: rows that come later would be
    left behind."""
    going = deque[asyncio.Task[None]]()

    async def begin(work: _Work) -> None:
        going.append(asyncio.create_task(work()))
        if len(going) == most:
            await going.popleft()

    try:
        yield begin
        while going:
            await going.popleft()
    except asyncio.CancelledError:
        for one in going:
            one.cancel()
        raise
    finally:
        await asyncio.gather(*going, return_exceptions=True)


@asynccontextmanager
async def _timed(stages: dict[Stage, tuple[float, float]], stage: Stage) -> AsyncIterator[None]:
    """Note from when to when a stage ran; the second time from its first beginning."""
    started = stages[stage][0] if stage in stages else time.time()
    yield
    stages[stage] = (started, time.time())
