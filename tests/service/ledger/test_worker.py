"""What is handed in gets searchable, whatever fails on the way; what fails for good fails alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.database import open_engine
from ingestion import pipeline
from ingestion.blobs import Blobs
from ingestion.errors import LedgerUnavailable, Quarantined
from ingestion.indexers import Indexer, OpenIndexers
from ingestion.intake import ENDED, Intake
from ingestion.ledger import Ledger
from ingestion.parse import parse
from ingestion.reads import Reads
from ingestion.sweeper import Sweeper
from ingestion.types import Attempt, Generation, Job, Lease, NewDocument, Parsed
from ingestion.worker import BACKFILL, ORDINARY, Crew, Worker
from retrieval.errors import EmbedderUnavailable, StoreUnavailable
from retrieval.stores.memory import MemoryStore
from retrieval.types import Encoder, Filter, Hit, IndexSpec, Keyword, Matrix, Row, Store

ACME = Filter(tenant="acme", groups=None)
Stored = Callable[..., Awaitable[list[int]]]
Switch = Callable[[str, str], Awaitable[None]]


class Reader:
    """The product's parser, in this process; documents that say so are trouble. Long ones are read once
    `turned` is set."""

    def __init__(self) -> None:
        self.turned = asyncio.Event()

    async def parse(
        self,
        content: bytes,
        filename: str | None,
        media_type: str | None,
        *,
        tenant: str | None = None,
        told: Callable[[str], None] | None = None,
    ) -> Parsed:
        if content.startswith(b"broken"):
            raise Quarantined("damaged", "The page cannot be read.", "page 7")
        if content.startswith(b"bug"):
            raise ValueError("a bug")
        if content.startswith(b"long") and told:
            told("page 12")
            await self.turned.wait()
        return parse(content, filename, media_type)


class Outcomes:
    def __init__(self) -> None:
        self.attempts: list[Attempt] = []

    def finished(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)

    def said(self) -> list[str]:
        return sorted(attempt.outcome for attempt in self.attempts)


@pytest.fixture
def outcomes() -> Outcomes:
    return Outcomes()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(str(tmp_path / "blobs"))


@pytest.fixture
def intake(ledger: Ledger, blobs: Blobs) -> Intake:
    return Intake(ledger, blobs, upload_limit=2**20)


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def make_worker(
    ledger: Ledger, blobs: Blobs, reader: Reader, indexer: Indexer, outcomes: Outcomes
) -> Callable[..., Worker]:
    def make_worker(
        store: Store,
        *,
        indexers: Sequence[Indexer] = (indexer,),
        lease: float = 15.0,
        crew: Crew = ORDINARY,
        grace: float = 5.0,
    ) -> Worker:
        async def opened(known: Generation) -> Indexer:
            for each in indexers:
                if each.spec.generation == known.id:
                    return each
            raise EmbedderUnavailable(f"Nothing here writes the index generation {known.id}.")

        return Worker(
            ledger,
            blobs,
            reader,
            store,
            OpenIndexers(ledger, store, opened),
            name="w",
            lease=lease,
            observer=outcomes,
            crew=crew,
            grace=grace,
        )

    return make_worker


MakeWorker = Callable[..., Worker]


@pytest.fixture
def ended(ledger: Ledger) -> Callable[[Worker, Sequence[Job]], Awaitable[list[Job]]]:
    """Let a worker run until these jobs have ended."""

    async def ended(worker: Worker, jobs: Sequence[Job]) -> list[Job]:
        stop = asyncio.Event()
        running = asyncio.create_task(worker.run(stop))
        try:
            return [await _end(ledger, running, job) for job in jobs]
        finally:
            stop.set()
            await running

    return ended


Ended = Callable[[Worker, Sequence[Job]], Awaitable[list[Job]]]


async def _end(ledger: Ledger, running: asyncio.Task[None], job: Job) -> Job:
    async with asyncio.timeout(60):
        while True:
            assert not running.done(), running.exception()
            with suppress(LedgerUnavailable):
                now = await ledger.job(job.tenant, job.id)
                if now.state in ENDED:
                    return now
            await asyncio.sleep(0.05)


async def _found(reads: Reads, store: Store, generation: str, words: str) -> list[Hit]:
    """What a reader is shown: the store's hits that the ledger lets through."""
    hits = await store.search(generation, Keyword(words), ACME, 100, exclude=frozenset())
    pairs = [(hit.chunk.document_id, hit.chunk.revision) for hit in hits]
    shown = await reads.visible(generation, ACME, pairs)
    return [hit for hit in hits if hit.chunk.revision in shown]


def _text(words: str) -> bytes:
    return f"{words} is a word of this page.".encode()


async def test_a_document_handed_in_is_found_with_all_that_was_said_about_it(
    reads: Reads,
    intake: Intake,
    store: MemoryStore,
    spec: IndexSpec,
    make_worker: MakeWorker,
    ended: Ended,
) -> None:
    document = NewDocument(
        id="leave",
        content=b"# Leave\n\nEveryone has thirty days of paid leave a year.",
        filename="leave.md",
        title="Paid leave",
        metadata={"year": 2026},
        groups=frozenset({"staff"}),
        collection="policies",
    )
    (job,) = await ended(make_worker(store), await intake.put("acme", [document]))
    assert (job.state, job.error) == ("succeeded", None)
    (hit,) = await _found(reads, store, spec.generation, "thirty")
    chunk = hit.chunk
    assert (chunk.tenant, chunk.collection, chunk.document_id) == ("acme", "policies", "leave")
    assert (chunk.title, chunk.heading, chunk.groups) == ("Paid leave", "Leave", frozenset({"staff"}))
    assert chunk.metadata == {"year": 2026}
    assert chunk.id == f"{chunk.revision}-{chunk.ordinal}"
    document_now = await intake.get("acme", None, "leave")
    assert (document_now.visible, document_now.chunks) == (True, 1)


@pytest.mark.parametrize(
    ("given", "content", "filename", "expected"),
    [
        ("Given", b"# Found\n\ntext", "stem.md", "Given"),
        (None, b"<title>Found</title><p>text</p>", "stem.html", "Found"),
        (None, b"text only", "stem.txt", "stem"),
        (None, b"text only", None, "the-id"),
    ],
)
async def test_a_document_is_called_by_the_best_name_there_is(
    intake: Intake,
    reads: Reads,
    store: MemoryStore,
    spec: IndexSpec,
    make_worker: MakeWorker,
    ended: Ended,
    given: str | None,
    content: bytes,
    filename: str | None,
    expected: str,
) -> None:
    document = NewDocument(id="the-id", content=content, filename=filename, title=given)
    await ended(make_worker(store), await intake.put("acme", [document]))
    (hit,) = await _found(reads, store, spec.generation, "text")
    assert hit.chunk.title == expected


async def test_documents_of_one_batch_fail_separately(
    ledger: Ledger,
    intake: Intake,
    store: MemoryStore,
    spec: IndexSpec,
    make_worker: MakeWorker,
    ended: Ended,
    outcomes: Outcomes,
) -> None:
    good = [NewDocument(id=f"good-{n}", content=_text(f"apple{n}")) for n in range(5)]
    broken = NewDocument(id="broken", content=b"broken page")
    bug = NewDocument(id="bug", content=b"bug in the parser")
    jobs = await intake.put("acme", [*good[:2], broken, bug, *good[2:]])
    *_, first_broken = states = await ended(make_worker(store), [*jobs[:2], *jobs[4:], jobs[2]])
    assert [job.state for job in states] == ["succeeded"] * 5 + ["quarantined"]
    assert first_broken.error is not None
    assert (first_broken.error.code, first_broken.error.part) == ("damaged", "page 7")
    waiting = await ledger.job("acme", jobs[3].id)
    assert (waiting.state, waiting.attempts) == ("queued", 1)
    assert waiting.error is not None
    assert waiting.error.code == "internal"
    assert outcomes.said() == ["quarantined", "retried", *["succeeded"] * 5]


async def test_a_store_that_is_down_delays_documents_and_fails_none(
    reads: Reads,
    intake: Intake,
    store: MemoryStore,
    spec: IndexSpec,
    indexer: Indexer,
    make_worker: MakeWorker,
    ended: Ended,
    outcomes: Outcomes,
) -> None:
    class Flaky(MemoryStore):
        refusals = 7

        async def upsert(self, generation: str, rows: Sequence[Row]) -> None:
            if self.refusals:
                self.refusals -= 1
                raise StoreUnavailable("Milvus is down.")
            await super().upsert(generation, rows)

    flaky = Flaky()
    jobs = await intake.put("acme", [NewDocument(id=f"p{n}", content=_text(f"pear{n}")) for n in range(3)])
    after = await ended(make_worker(flaky), jobs)
    assert [(job.state, job.attempts) for job in after] == [("succeeded", 0)] * 3
    assert "released" in outcomes.said()
    assert len(await _found(reads, flaky, spec.generation, "word")) == 3


async def test_a_file_that_is_missing_holds_up_no_other_document(
    ledger: Ledger,
    intake: Intake,
    blobs: Blobs,
    store: MemoryStore,
    make_worker: MakeWorker,
    ended: Ended,
) -> None:
    lost, *others = await intake.put(
        "acme", [NewDocument(id=f"p{n}", content=_text(f"pear{n}")) for n in range(3)]
    )
    await blobs.remove("acme", (await intake.get("acme", None, "p0")).content_hash)
    assert [job.state for job in await ended(make_worker(store), others)] == ["succeeded"] * 2
    waiting = await ledger.job("acme", lost.id)
    assert (waiting.state, waiting.attempts) == ("queued", 1)
    assert waiting.error is not None
    assert waiting.error.code == "file_missing"


async def test_documents_survive_the_ledger_being_cut_off_again_and_again(
    ledger_url: str,
    engine: AsyncEngine,
    ledger: Ledger,
    reads: Reads,
    intake: Intake,
    store: MemoryStore,
    spec: IndexSpec,
    make_worker: MakeWorker,
    ended: Ended,
    stored: Stored,
) -> None:
    documents = [NewDocument(id=f"p{n}", content=_text(f"plum{n}")) for n in range(80)]
    jobs = await intake.put("acme", documents)
    cutter = open_engine(ledger_url, pool_size=1).execution_options(isolation_level="AUTOCOMMIT")

    async def cut() -> None:
        while True:
            async with cutter.connect() as connection:
                await connection.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                )
            await asyncio.sleep(0.1)

    cutting = asyncio.create_task(cut())
    worker = make_worker(store, lease=1.0)
    ending = asyncio.ensure_future(ended(worker, jobs))
    await asyncio.sleep(1.5)
    cutting.cancel()
    await asyncio.gather(cutting, return_exceptions=True)
    await cutter.dispose()
    assert {job.state for job in await ending} == {"succeeded"}
    found = await _found(reads, store, spec.generation, "word")
    assert sorted(hit.chunk.document_id for hit in found) == sorted(f"p{n}" for n in range(80))
    sweeper = Sweeper(ledger, store, lease=0, call_deadline=0)
    while await sweeper.sweep():
        pass
    assert len(await stored()) == 80


async def test_a_generation_that_takes_over_while_a_document_is_embedded_is_written_too(
    ledger: Ledger,
    reads: Reads,
    intake: Intake,
    store: MemoryStore,
    indexer: Indexer,
    make_worker: MakeWorker,
    ended: Ended,
    outcomes: Outcomes,
    switch: Switch,
) -> None:
    other = replace(indexer, spec=replace(indexer.spec, parser="2"))

    switched: list[bool] = []

    class Adding(type(indexer.embedder)):  # type: ignore[misc]
        async def embed(self, texts: Sequence[str]) -> Matrix:
            if not switched:
                switched.append(True)
                await ledger.build_generation(other.spec, "hashing")
                await switch(other.spec.generation, indexer.spec.generation)
            vectors: Matrix = await super().embed(texts)
            return vectors

    adding = replace(indexer, embedder=Adding())
    jobs = await intake.put("acme", [NewDocument(id="page", content=_text("fig"))])
    (job,) = await ended(make_worker(store, indexers=[adding, other]), jobs)
    assert job.state == "succeeded"
    for generation in (indexer.spec.generation, other.spec.generation):
        assert len(await _found(reads, store, generation, "fig")) == 1
    assert outcomes.said() == ["succeeded"]


async def test_a_generation_that_this_worker_cannot_write_is_left_to_another(
    ledger: Ledger,
    intake: Intake,
    store: MemoryStore,
    indexer: Indexer,
    make_worker: MakeWorker,
    ended: Ended,
    switch: Switch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = replace(indexer, spec=replace(indexer.spec, parser="2"))
    await ledger.build_generation(other.spec, "hashing")
    await switch(other.spec.generation, indexer.spec.generation)
    (job,) = await intake.put("acme", [NewDocument(id="page", content=_text("fig"))])
    stop = asyncio.Event()
    old = asyncio.create_task(make_worker(store).run(stop))
    async with asyncio.timeout(30):
        while (now := await ledger.job("acme", job.id)).error is None:
            await asyncio.sleep(0.05)
    assert now.error is not None
    assert (now.error.code, now.error.message) == ("embedder_unavailable", EmbedderUnavailable.told)
    assert other.spec.generation in caplog.text
    stop.set()
    await old
    (after,) = await ended(make_worker(store, indexers=[indexer, other]), [job])
    assert after.state == "succeeded"


class Stuck:
    """An embedder that says when it began and never ends."""

    def __init__(self, embedder: Encoder) -> None:
        self.spec = embedder.spec
        self.token_spans = embedder.token_spans
        self.began = asyncio.Event()

    async def embed(self, texts: Sequence[str]) -> Matrix:
        self.began.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


async def test_a_stopped_worker_gives_its_jobs_back_at_once(
    ledger: Ledger,
    intake: Intake,
    store: MemoryStore,
    indexer: Indexer,
    make_worker: MakeWorker,
    ended: Ended,
) -> None:
    stuck = Stuck(indexer.embedder)
    (job,) = await intake.put("acme", [NewDocument(id="page", content=_text("fig"))])
    stop = asyncio.Event()
    worker = make_worker(store, indexers=[replace(indexer, embedder=stuck)], grace=0.1)
    running = asyncio.create_task(worker.run(stop))
    await stuck.began.wait()
    stop.set()
    await running
    waiting = await ledger.job("acme", job.id)
    assert (waiting.state, waiting.attempts) == ("queued", 0)
    (after,) = await ended(make_worker(store), [job])
    assert after.state == "succeeded"


async def test_a_stopped_worker_ends_what_it_has_begun(
    ledger: Ledger, intake: Intake, store: MemoryStore, reader: Reader, make_worker: MakeWorker
) -> None:
    (job,) = await intake.put("acme", [NewDocument(id="book", content=b"long book")])
    stop = asyncio.Event()
    running = asyncio.create_task(make_worker(store, grace=30.0).run(stop))
    async with asyncio.timeout(30):
        while (await ledger.job("acme", job.id)).state != "running":
            await asyncio.sleep(0.02)
    stop.set()
    async with asyncio.timeout(30):
        while [one.state for one in await ledger.workers()] != ["stopping"]:
            await asyncio.sleep(0.02)
    reader.turned.set()
    await running
    assert (await ledger.job("acme", job.id)).state == "succeeded"


async def test_a_worker_in_which_something_breaks_ends_with_that(
    ledger: Ledger, store: MemoryStore, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever started it starts another; one that went on with fewer lanes would be noticed by nobody."""

    async def breaks(*given: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(ledger, "lease", breaks)
    with pytest.raises(ValueError, match="a bug"):
        await make_worker(store).run(asyncio.Event())


async def test_an_idle_worker_stops(make_worker: MakeWorker, store: MemoryStore, outcomes: Outcomes) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(make_worker(store).run(stop))
    await asyncio.sleep(0.1)
    stop.set()
    await asyncio.wait_for(running, 10)
    assert outcomes.attempts == []


async def test_a_document_deleted_while_it_is_embedded_never_shows_and_leaves_no_rows(
    ledger: Ledger,
    reads: Reads,
    intake: Intake,
    store: MemoryStore,
    indexer: Indexer,
    make_worker: MakeWorker,
    ended: Ended,
    outcomes: Outcomes,
    stored: Stored,
) -> None:
    class Deleting(type(indexer.embedder)):  # type: ignore[misc]
        async def embed(self, texts: Sequence[str]) -> Matrix:
            await intake.delete("acme", None, "page")
            vectors: Matrix = await super().embed(texts)
            return vectors

    deleting = replace(indexer, embedder=Deleting())
    jobs = await intake.put("acme", [NewDocument(id="page", content=_text("fig"))])
    stop = asyncio.Event()
    running = asyncio.create_task(make_worker(store, indexers=[deleting]).run(stop))
    async with asyncio.timeout(30):
        while not outcomes.attempts:
            await asyncio.sleep(0.05)
    stop.set()
    await running
    assert outcomes.said() == ["lost"]
    assert (await ledger.job("acme", jobs[0].id)).state == "cancelled"
    assert await _found(reads, store, indexer.spec.generation, "fig") == []
    await Sweeper(ledger, store, lease=15, call_deadline=5).sweep()
    assert await stored() == []


@pytest.mark.parametrize("answers", [True, False])
async def test_a_writer_held_up_until_its_revision_was_swept_leaves_no_rows(
    answers: bool,
    ledger: Ledger,
    intake: Intake,
    store: MemoryStore,
    indexer: Indexer,
    make_worker: MakeWorker,
    outcomes: Outcomes,
    stored: Stored,
) -> None:
    """Its lease held when it looked, and it stood still then."""
    sweeper = Sweeper(ledger, store, lease=0, call_deadline=0)

    class HeldUp(MemoryStore):
        async def upsert(self, generation: str, rows: Sequence[Row]) -> None:
            await intake.delete("acme", None, "page")
            while await sweeper.sweep():
                pass
            await store.upsert(generation, rows)
            if not answers:
                raise StoreUnavailable("the connection broke")

    await intake.put("acme", [NewDocument(id="page", content=_text("fig"))])
    stop = asyncio.Event()
    running = asyncio.create_task(make_worker(HeldUp()).run(stop))
    async with asyncio.timeout(30):
        while not outcomes.attempts:
            await asyncio.sleep(0.05)
    stop.set()
    await running
    assert len(await stored()) == 1
    await sweeper.sweep()
    assert await stored() == []


async def test_a_writer_held_up_until_its_worker_stops_leaves_no_rows(
    ledger: Ledger, intake: Intake, store: MemoryStore, make_worker: MakeWorker, stored: Stored
) -> None:
    sweeper = Sweeper(ledger, store, lease=0, call_deadline=0)
    landed = asyncio.Event()

    class HeldUp(MemoryStore):
        async def upsert(self, generation: str, rows: Sequence[Row]) -> None:
            await intake.delete("acme", None, "page")
            while await sweeper.sweep():
                pass
            await store.upsert(generation, rows)
            landed.set()
            await asyncio.Event().wait()

    await intake.put("acme", [NewDocument(id="page", content=_text("fig"))])
    stop = asyncio.Event()
    running = asyncio.create_task(make_worker(HeldUp(), grace=0.0).run(stop))
    await asyncio.wait_for(landed.wait(), 30)
    stop.set()
    await running
    await sweeper.sweep()
    assert await stored() == []


async def test_rows_written_under_a_lease_that_lapsed_are_not_shown(
    ledger: Ledger,
    reads: Reads,
    intake: Intake,
    store: MemoryStore,
    indexer: Indexer,
    make_worker: MakeWorker,
    ended: Ended,
) -> None:
    """Two workers share the queue, one stalls for longer than its lease: the document shows once."""
    stuck = Stuck(indexer.embedder)
    (job,) = await intake.put("acme", [NewDocument(id="page", content=_text("fig"))])
    (lease,) = await ledger.lease("stalled", 0.0, 1)
    (after,) = await ended(make_worker(store), [job])
    assert after.state == "succeeded"
    assert after.fence > lease.job.fence
    assert not stuck.began.is_set()
    assert len(await _found(reads, store, indexer.spec.generation, "fig")) == 1


class Clock:
    """The time by which a worker holds its leases."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        clock = SimpleNamespace(monotonic=lambda: self.now, time=time.time)
        for place in ("worker", "leases"):
            monkeypatch.setattr(f"ingestion.{place}.time", clock)


async def test_a_lease_counts_from_when_it_was_asked_for(
    ledger: Ledger,
    intake: Intake,
    store: MemoryStore,
    make_worker: MakeWorker,
    ended: Ended,
    outcomes: Outcomes,
    stored: Stored,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the time the answer is there another worker may hold the job."""
    clock, lease = Clock(monkeypatch), ledger.lease

    async def late(worker: str, seconds: float, limit: int) -> list[Lease]:
        first = not clock.now
        found = await lease(worker, 0.3 if first else seconds, limit)
        clock.now += 20.0 if found and first else 0.0
        return found

    jobs = await intake.put("acme", [NewDocument(id="page", content=_text("fig"))])
    monkeypatch.setattr(ledger, "lease", late)
    await ended(make_worker(store, lease=15.0, crew=replace(ORDINARY, lanes=1)), jobs)
    assert outcomes.said() == ["lost", "succeeded"]
    assert len(await stored()) == 1


@pytest.mark.parametrize(("answered_after", "outcome"), [(0.1, "succeeded"), (1.0, "lost")])
async def test_a_renewal_counts_from_when_it_was_asked_for(
    ledger: Ledger,
    intake: Intake,
    store: MemoryStore,
    reader: Reader,
    make_worker: MakeWorker,
    outcomes: Outcomes,
    monkeypatch: pytest.MonkeyPatch,
    answered_after: float,
    outcome: str,
) -> None:
    clock, heartbeat = Clock(monkeypatch), ledger.heartbeat

    async def late(held: Sequence[tuple[str, int]], seconds: float) -> set[tuple[str, int]]:
        renewed = await heartbeat(held, 60.0)
        if not reader.turned.is_set():
            clock.now += answered_after
            asyncio.get_running_loop().call_later(0.05, reader.turned.set)
        return renewed

    monkeypatch.setattr(ledger, "heartbeat", late)
    await intake.put("acme", [NewDocument(id="book", content=b"long book")])
    stop = asyncio.Event()
    running = asyncio.create_task(make_worker(store, lease=0.6, crew=replace(ORDINARY, lanes=1)).run(stop))
    async with asyncio.timeout(30):
        while not outcomes.attempts:
            await asyncio.sleep(0.02)
    stop.set()
    await running
    assert outcomes.said() == [outcome]


async def test_a_job_that_is_leased_during_a_renewal_is_not_lost_by_it(
    ledger: Ledger,
    intake: Intake,
    store: MemoryStore,
    reader: Reader,
    make_worker: MakeWorker,
    ended: Ended,
    outcomes: Outcomes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heartbeat = ledger.heartbeat
    jobs = await intake.put("acme", [NewDocument(id="a", content=b"long book")])

    async def slow(held: Sequence[tuple[str, int]], seconds: float) -> set[tuple[str, int]]:
        renewed = await heartbeat(held, seconds)
        if len(jobs) == 1:
            jobs.extend(await intake.put("acme", [NewDocument(id="b", content=b"long story")]))
            while (await ledger.job("acme", jobs[1].id)).state != "running":
                await asyncio.sleep(0.02)
            asyncio.get_running_loop().call_later(0.05, reader.turned.set)
        return renewed

    monkeypatch.setattr(ledger, "heartbeat", slow)
    (first,) = await ended(make_worker(store, lease=1.5), jobs[:1])
    assert first.state == "succeeded"
    assert outcomes.said() == ["succeeded", "succeeded"]


async def test_large_documents_are_embedded_in_parts_with_progress(
    reads: Reads,
    intake: Intake,
    store: MemoryStore,
    spec: IndexSpec,
    make_worker: MakeWorker,
    ended: Ended,
) -> None:
    words = " ".join(f"grape{n} is a word of this long page." for n in range(3_000)).encode()
    (job,) = await ended(make_worker(store), await intake.put("acme", [NewDocument(id="p", content=words)]))
    assert job.state == "succeeded"
    assert job.done == job.total > 256
    assert (await intake.get("acme", None, "p")).chunks == job.total
    hits = await _found(reads, store, spec.generation, "grape2999")
    assert any("grape2999" in hit.chunk.text for hit in hits)


async def test_the_observer_hears_of_every_attempt_with_its_stages(
    intake: Intake, store: MemoryStore, make_worker: MakeWorker, ended: Ended, outcomes: Outcomes
) -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    document = NewDocument(id="page", content=_text("fig"))
    await ended(make_worker(store), await intake.put("acme", [document], traceparent=traceparent))
    (attempt,) = outcomes.attempts
    assert (attempt.outcome, attempt.chunks, attempt.job.traceparent) == ("succeeded", 1, traceparent)
    assert set(attempt.stages) == {"parse", "embed", "index"}
    assert all(attempt.started <= start <= end <= attempt.ended for start, end in attempt.stages.values())


async def test_a_document_that_takes_long_to_read_shows_how_far_its_reader_is(
    ledger: Ledger, intake: Intake, store: MemoryStore, reader: Reader, make_worker: MakeWorker
) -> None:
    (job,) = await intake.put("acme", [NewDocument(id="book", content=b"long book")])
    stop = asyncio.Event()
    running = asyncio.create_task(make_worker(store, lease=1.2).run(stop))
    async with asyncio.timeout(30):
        while (now := await ledger.job("acme", job.id)).part is None:
            assert now.state != "succeeded"
            await asyncio.sleep(0.05)
    assert (now.part, now.stage, now.pulse) == ("page 12", "parse", "working")
    assert now.leased_at
    assert now.moved_at
    assert (now.moved_at - now.leased_at).total_seconds() < 1.2, "it is told with each renewal of the lease"
    reader.turned.set()
    stop.set()
    await running
    assert (await ledger.job("acme", job.id)).part is None


async def test_a_worker_says_that_it_is_there_and_leaves_when_it_stops(
    ledger: Ledger, store: MemoryStore, make_worker: MakeWorker
) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(make_worker(store).run(stop))
    async with asyncio.timeout(30):
        while not (there := await ledger.workers()):
            await asyncio.sleep(0.02)
    assert [(one.name, one.state) for one in there] == [("w", "idle")]
    # It has a crew that fills generations, which is no worker of its own.
    ended = asyncio.Event()
    ended.set()
    await make_worker(store, crew=BACKFILL).run(ended)
    assert len(await ledger.workers()) == 1
    stop.set()
    await running
    assert await ledger.workers() == []


async def test_a_group_is_embedded_while_another_is_written_and_no_third_before_that_is_done(
    intake: Intake, indexer: Indexer, make_worker: MakeWorker, ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "GROUP_TEXTS", 2)
    opened, embedded = asyncio.Event(), list[str]()

    class Standing(MemoryStore):
        async def upsert(self, generation: str, rows: Sequence[Row]) -> None:
            await opened.wait()
            await super().upsert(generation, rows)

    plain = indexer.embedder

    class Noting:
        spec = plain.spec
        token_spans = staticmethod(plain.token_spans)

        async def embed(self, texts: Sequence[str]) -> Matrix:
            embedded.extend(texts)
            return await plain.embed(texts)

    crew = replace(ORDINARY, lanes=1)
    worker = make_worker(Standing(), indexers=[replace(indexer, embedder=Noting())], crew=crew)
    jobs = await intake.put("acme", [NewDocument(id=f"p{n}", content=_text(f"pear{n}")) for n in range(8)])
    ending = asyncio.ensure_future(ended(worker, jobs))
    async with asyncio.timeout(30):
        while len(embedded) < 4:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)
    assert len(embedded) == 4
    opened.set()
    assert {job.state for job in await ending} == {"succeeded"}
    assert len(embedded) == 8


async def test_what_is_left_of_a_cancelled_document_is_not_embedded(
    ledger: Ledger,
    intake: Intake,
    store: MemoryStore,
    indexer: Indexer,
    make_worker: MakeWorker,
    ended: Ended,
    outcomes: Outcomes,
) -> None:
    """What it shares with another document of its batch is, for that one."""
    embedded = list[str]()
    plain = indexer.embedder

    class Cancelling:
        spec = plain.spec
        token_spans = staticmethod(plain.token_spans)

        async def embed(self, texts: Sequence[str]) -> Matrix:
            embedded.extend(texts)
            if not outcomes.attempts:
                await ledger.cancel("acme", long.id)
                async with asyncio.timeout(30):
                    while not outcomes.attempts:
                        await asyncio.sleep(0.02)
            return await plain.embed(texts)

    parts = [f"# Part\n\nThe {'great ' * n}whale." for n in range(6)]
    documents = [("long", parts), ("short", [parts[0], parts[5]])]
    long, short = await intake.put(
        "acme",
        [
            NewDocument(id=name, content="\n\n".join(p).encode(), filename="a.md", title="Whales")
            for name, p in documents
        ],
    )
    worker = make_worker(
        store,
        lease=3.0,
        indexers=[replace(indexer, embedder=Cancelling())],
        crew=replace(ORDINARY, lanes=1, texts=1),
    )
    states = [job.state for job in await ended(worker, [long, short])]
    assert states == ["cancelled", "succeeded"]
    assert outcomes.said() == ["lost", "succeeded"]
    assert len(embedded) == 2
    assert (await intake.get("acme", None, "short")).chunks == 2


async def test_the_rows_of_a_long_document_are_handed_to_the_store_together(
    intake: Intake, make_worker: MakeWorker, ended: Ended, outcomes: Outcomes
) -> None:
    together = asyncio.Barrier(3)

    class Rounds(MemoryStore):
        async def upsert(self, generation: str, rows: Sequence[Row]) -> None:
            async with asyncio.timeout(10):
                await together.wait()
            await super().upsert(generation, rows)

    whole = "\n\n".join(f"# Part {n}\n\nThe whale of part {n}." for n in range(3)).encode()
    jobs = await intake.put("acme", [NewDocument(id="a", content=whole, filename="a.md")])
    [job] = await ended(make_worker(Rounds(), crew=replace(ORDINARY, texts=1)), jobs)
    assert (job.state, outcomes.said()) == ("succeeded", ["succeeded"])
    assert (await intake.get("acme", None, "a")).chunks == 3


async def test_a_failed_upsert_is_told_when_no_other_of_its_document_is_under_way(
    ledger: Ledger, intake: Intake, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, opened, swept = asyncio.Event(), asyncio.Event(), asyncio.Event()
    landed = list[int]()

    class Failing(MemoryStore):
        async def upsert(self, generation: str, rows: Sequence[Row]) -> None:
            if rows[0].chunk.ordinal == 0:
                raise StoreUnavailable("Milvus is down.")
            tried.set()
            await opened.wait()
            landed.append(rows[0].chunk.ordinal)

    async def sweep_again(revisions: object) -> None:
        assert landed, "the rows landed after they were to be swept"
        swept.set()

    monkeypatch.setattr(ledger, "sweep_again", sweep_again)
    whole = "\n\n".join(f"# Part {n}\n\nThe whale of part {n}." for n in range(2)).encode()
    await intake.put("acme", [NewDocument(id="a", content=whole, filename="a.md")])
    stop = asyncio.Event()
    worker = make_worker(Failing(), crew=replace(ORDINARY, texts=1))
    running = asyncio.create_task(worker.run(stop))
    async with asyncio.timeout(30):
        await tried.wait()
        await asyncio.sleep(0.5)
        opened.set()
        await swept.wait()
        stop.set()
        await running


async def test_a_short_document_does_not_wait_for_a_long_one_of_its_batch(
    ledger: Ledger,
    intake: Intake,
    store: MemoryStore,
    indexer: Indexer,
    make_worker: MakeWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "GROUP_TEXTS", 2)
    plain = indexer.embedder
    released = asyncio.Event()

    class Held:
        spec = plain.spec
        token_spans = staticmethod(plain.token_spans)

        async def embed(self, texts: Sequence[str]) -> Matrix:
            if any("whale" in one for one in texts):
                await released.wait()
            return await plain.embed(texts)

    whole = "\n\n".join(f"# Part {n}\n\nThe whale of part {n}." for n in range(4)).encode()
    long = NewDocument(id="a", content=whole, filename="a.md")
    jobs = await intake.put("acme", [long, NewDocument(id="b", content=_text("fig"))])
    worker = make_worker(store, indexers=[replace(indexer, embedder=Held())], crew=replace(ORDINARY, lanes=1))
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    short = await _end(ledger, running, jobs[1])
    waiting = await ledger.job("acme", jobs[0].id)
    released.set()
    done = await _end(ledger, running, jobs[0])
    stop.set()
    await running
    assert (short.state, waiting.state, done.state) == ("succeeded", "running", "succeeded")
    assert (await intake.get("acme", None, "a")).chunks == 4


@pytest.mark.parametrize("few", [0, pipeline.FEW_TEXTS])
async def test_a_short_document_does_not_wait_until_long_ones_are_embedded(
    ledger: Ledger,
    intake: Intake,
    store: MemoryStore,
    indexer: Indexer,
    make_worker: MakeWorker,
    monkeypatch: pytest.MonkeyPatch,
    few: int,
) -> None:
    monkeypatch.setattr(pipeline, "FEW_TEXTS", few)
    plain = indexer.embedder

    class Slow:
        spec = plain.spec
        token_spans = staticmethod(plain.token_spans)

        async def embed(self, texts: Sequence[str]) -> Matrix:
            await asyncio.sleep(0.05 if any("whale" in one for one in texts) else 0)
            return await plain.embed(texts)

    whole = "\n\n".join(f"# Part {n}\n\nThe whale of part {n}." for n in range(100)).encode()
    stop = asyncio.Event()
    crew = replace(ORDINARY, texts=1)
    running = asyncio.create_task(
        make_worker(store, indexers=[replace(indexer, embedder=Slow())], crew=crew).run(stop)
    )
    long = []
    for name in ("a", "b"):
        long += await intake.put(
            "acme", [NewDocument(id=name, content=whole + name.encode(), filename="a.md")]
        )
        await _embedding(ledger, running, long[-1])
    [short] = await intake.put("acme", [NewDocument(id="c", content=_text("fig"))])
    assert (await _end(ledger, running, short)).state == "succeeded"
    assert [(await ledger.job("acme", job.id)).state for job in long] == ["running", "running"]
    assert [(await _end(ledger, running, job)).state for job in long] == ["succeeded", "succeeded"]
    stop.set()
    await running


async def _embedding(ledger: Ledger, running: asyncio.Task[None], job: Job) -> None:
    async with asyncio.timeout(30):
        while (await ledger.job("acme", job.id)).done == 0:
            assert not running.done()
            await asyncio.sleep(0.02)


async def test_one_more_lane_is_opened_where_all_turn_out_to_have_long_work(
    ledger: Ledger,
    intake: Intake,
    store: MemoryStore,
    reader: Reader,
    make_worker: MakeWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ingestion.worker.RELIEF", 0.2)
    stop = asyncio.Event()
    running = asyncio.create_task(make_worker(store, crew=replace(ORDINARY, lanes=2, more=1)).run(stop))
    long = []
    for name in ("a", "b"):
        long += await intake.put("acme", [NewDocument(id=name, content=b"long " + name.encode())])
        async with asyncio.timeout(30):
            while (await ledger.job("acme", long[-1].id)).state != "running":
                await asyncio.sleep(0.02)
    [short] = await intake.put("acme", [NewDocument(id="c", content=_text("fig"))])
    assert (await _end(ledger, running, short)).state == "succeeded"
    reader.turned.set()
    assert [(await _end(ledger, running, job)).state for job in long] == ["succeeded", "succeeded"]
    stop.set()
    await running


async def test_a_document_is_called_what_its_passages_are_called(
    ledger: Ledger,
    intake: Intake,
    store: MemoryStore,
    make_worker: MakeWorker,
    ended: Callable[[Worker, Sequence[Job]], Awaitable[list[Job]]],
) -> None:
    found = NewDocument(id="a", content=b"# The whale\n\nIt is large.\n", filename="w-2.md")
    given = replace(found, id="b", title="Whales")
    await ended(make_worker(store), await intake.put("acme", [found, given]))
    listed, _ = await intake.list_documents("acme", None, collection=None, after=None, limit=9)
    assert [one.title for one in listed] == ["The whale", "Whales"]
    assert (await intake.get("acme", None, "a")).title == "The whale"
