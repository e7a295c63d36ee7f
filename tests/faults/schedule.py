"""One schedule: some clients, an API, two or three workers and a sweeper, and what chance does to them.

Intake, worker, pipeline, sweeper, search and ledger are the product's own, the ledger's SQL on a real
PostgreSQL; the store is the one in memory. Time, chance and what lies between the parts are the simulation's.
Each ledger call is one step: what may happen within its transaction is PostgreSQL's promise.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any, cast
from unittest.mock import patch

import numpy as np
from sqlalchemy.ext.asyncio import AsyncEngine

from ingestion.blobs import Blobs
from ingestion.errors import LedgerUnavailable, NotFound, ParserUnavailable, StorageUnavailable
from ingestion.indexers import Indexer, OpenIndexers
from ingestion.intake import Intake
from ingestion.ledger import Ledger
from ingestion.parse import parse
from ingestion.sweeper import Sweeper
from ingestion.types import Attempt, Generation, Job, NewDocument, Parsed
from ingestion.worker import Crew, Worker
from retrieval.analyze import analyzer
from retrieval.embedders.prefixed import Prefixed
from retrieval.errors import EmbedderUnavailable, StoreUnavailable
from retrieval.search import Index, search
from retrieval.stores.memory import MemoryStore
from retrieval.types import EmbedderSpec, Filter, Hit, IndexSpec, Matrix, Row, SearchParams, Store, Visibility
from tests.faults.clock import VirtualLoop, virtual
from tests.faults.database import Database
from tests.faults.history import (
    Event,
    Finished,
    Flaw,
    History,
    Look,
    Read,
    Rule,
    Shown,
    Write,
    judge,
)
from tests.faults.network import CALM, QUICK, Killed, Network, Process, Reached, Weather

TENANT = "acme"
LEASE = 2.0
DEADLINE = 0.6
# One that stands still between looking at its lease and writing does so for less than a sweeper waits.
LONGEST_STALL = LEASE + 0.7 * DEADLINE
PATIENCE = 120.0
CREW = Crew(backfill=False, lanes=2, more=1, batch=3, texts=2, idle=0.5)
SPEC = IndexSpec(
    embedder="tiny",
    dimension=8,
    chunker="structure",
    chunk_tokens=20,
    chunk_overlap=0,
    header_template="",
    analyzer="plain",
    parser="1",
)
EVERYTHING = SearchParams(limit=100, candidates=100, dense_weight=0.5)
WORD = "plumb"
_TOLD = frozenset({"present", "leave", "progress"})
"""Ledger calls that nothing rests on: most of them are let pass, for speed."""
_QUEUEING = frozenset({"put", "retry", "release", "fail"})
"""Those after which there may be work where there was none."""
_MARK = re.compile(r"(d\d+v\d+)p(\d+)")
_AWAY = (LedgerUnavailable, StorageUnavailable, StoreUnavailable, EmbedderUnavailable, Killed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """A mistake that is built in for a run: another ledger, another way to the store or to what readers see,
    or one function of a module in the place of another. `rules` are those by which it may be found out."""

    name: str
    rules: frozenset[Rule]
    ledger: Callable[[AsyncEngine], Ledger] = Ledger
    store: Callable[[Store], Store] | None = None
    visibility: Callable[[Ledger, Visibility], Visibility] | None = None
    patches: tuple[tuple[Any, str, Any], ...] = ()
    weather: Weather | None = None
    longest: float = LONGEST_STALL


NO_BUG = Bug(name="none", rules=frozenset())


@dataclass(frozen=True, slots=True)
class Outcome:
    seed: int
    history: History
    flaws: list[Flaw]
    seen: Counter[str]


def run(database: Database, seed: int, bug: Bug = NO_BUG) -> Outcome:
    """Play one schedule and judge it. The same seed plays the same schedule."""
    loop = database.loop
    loop.now = 0.0
    database.reset()
    asyncio.set_event_loop(loop)
    with ExitStack() as stack:
        dice = stack.enter_context(virtual(loop, seed))
        for place, name, replacement in bug.patches:
            stack.enter_context(patch.object(place, name, replacement))
        try:
            return loop.run_until_complete(_Schedule(database, dice, bug).run(seed))
        except BaseException as error:
            error.add_note(f"in the schedule of seed {seed}, {bug.name} built in")
            raise
        finally:
            _end_all(loop)


def _end_all(loop: VirtualLoop) -> None:
    """What is still under way would happen in the next schedule."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))


class _Schedule:
    def __init__(self, database: Database, dice: random.Random, bug: Bug) -> None:
        self._database = database
        self._loop = database.loop
        self._dice = dice
        self._bug = bug
        self._seen: Counter[str] = Counter()
        weather = bug.weather or Weather.drawn(dice)
        self._network = Network(dice, weather, longest=bug.longest, deadline=DEADLINE, seen=self._seen)
        self._server = _Server(self._loop, self._network)
        self._blobs = _MemoryBlobs()
        self._documents = [f"d{n}" for n in range(dice.randint(2, 3))]
        self._sizes: dict[str, int] = {}
        self._hashes: dict[str, str] = {}
        self._numbers = count(1)
        self._events: list[Event] = []
        self._flaws: list[Flaw] = []
        self._no_work_before = 0.0
        self._api = self._new_api()
        self._workers: list[_Running] = []

    async def run(self, seed: int) -> Outcome:
        await self._prepare()
        for number in range(self._dice.randint(2, 3)):
            self._workers.append(self._new_worker(number))
        sweeping = Process(self._loop, "sweeper")
        sweeps = sweeping.start(self._sweep_now_and_then(sweeping))
        accidents = self._loop.create_task(self._accidents())
        clients = [self._loop.create_task(self._client()) for _ in range(self._dice.randint(2, 3))]
        await asyncio.gather(*clients)
        accidents.cancel()
        await self._settle()
        sweeps.cancel()
        await asyncio.gather(accidents, sweeps, return_exceptions=True)
        await self._clean()
        await self._look(settled=True)
        self._count()
        self._events += self._database.accepted(self._hashes)
        history = History(events=self._events, sizes=self._sizes, audited=True)
        return Outcome(seed, history, [*judge(history), *self._flaws], self._seen)

    async def _prepare(self) -> None:
        self._database.tick()
        if self._database.resets == 1:
            self._loop.outside(Ledger(self._database.engine).ensure_generation(SPEC, "tiny"))
        await self._server.prepare(SPEC.generation, SPEC)

    # Processes.

    def _ledger(self, process: Process, ledger: Ledger) -> Ledger:
        return cast(Ledger, self._reached(process, ledger, "ledger"))

    def _reached(self, process: Process, ledger: object, name: str) -> Reached:
        async def perform(name: str, act: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
            if (name in _TOLD and self._dice.random() < 0.9) or (
                name == "lease" and self._loop.time() < self._no_work_before
            ):
                return []
            self._database.tick()
            answer = self._loop.outside(act())
            self._note(name, answer)
            return answer

        return Reached(self._network, process, ledger, name, LedgerUnavailable, perform)

    def _note(self, name: str, answer: Any) -> None:
        if name == "flip":
            self._seen.update(f"flip: {one}" for one in answer.values())
        if name == "lease" and not answer:
            self._no_work_before = self._database.next_work()
        elif name in _QUEUEING:
            self._no_work_before = 0.0

    def _store(self, process: Process) -> Store:
        reached = Reached(self._network, process, self._server, "store", StoreUnavailable, _perform)
        store = cast(Store, reached)
        return self._bug.store(store) if self._bug.store else store

    def _files(self, process: Process) -> Blobs:
        reached = Reached(self._network, process, self._blobs, "blobs", StorageUnavailable, _perform)
        return cast(Blobs, reached)

    def _new_api(self) -> _Api:
        process = Process(self._loop, "api")
        real = self._bug.ledger(self._database.engine)
        ledger = self._ledger(process, real)
        reads = cast(Visibility, self._reached(process, self._database.reads, "reads"))
        seen = self._bug.visibility(real, reads) if self._bug.visibility else reads
        words = analyzer("plain")
        index = Index(
            SPEC.generation, self._store(process), Prefixed(_Tiny(self._network, process)), words, seen
        )
        return _Api(process, Intake(ledger, self._files(process), upload_limit=10_000), index)

    def _new_worker(self, number: int) -> _Running:
        process = Process(self._loop, f"worker {number}")
        ledger = self._ledger(process, self._bug.ledger(self._database.engine))
        store = self._store(process)

        async def opened(generation: Generation) -> Indexer:
            return Indexer(generation.spec, _Tiny(self._network, process), analyzer("plain"))

        worker = Worker(
            ledger,
            self._files(process),
            _Direct(self._network, process),
            store,
            OpenIndexers(ledger, store, opened),
            name=process.name,
            lease=LEASE,
            observer=_Observer(self._seen),
            crew=CREW,
            grace=1.0,
        )
        stop = asyncio.Event()
        return _Running(number, process, stop, process.start(worker.run(stop)))

    async def _sweep_now_and_then(self, process: Process) -> None:
        sweeper = self._sweeper(process)
        while True:
            await asyncio.sleep(self._dice.uniform(0.5, 2.5))
            try:
                self._seen["swept"] += await sweeper.sweep()
            except (LedgerUnavailable, StoreUnavailable):
                self._seen["sweep failed"] += 1

    def _sweeper(self, process: Process) -> Sweeper:
        ledger = self._ledger(process, self._bug.ledger(self._database.engine))
        return Sweeper(ledger, self._store(process), lease=LEASE, call_deadline=DEADLINE)

    async def _accidents(self) -> None:
        """Processes are killed, and come back; a worker may be told to end in good order."""
        for _ in range(self._dice.choice((0, 0, 1, 1, 2, 3))):
            await asyncio.sleep(self._dice.uniform(0.1, 1.5))
            if self._dice.random() < 0.3:
                self._seen["killed api"] += 1
                await self._api.process.kill()
                await asyncio.sleep(self._dice.uniform(0.0, 0.5))
                self._api = self._new_api()
            else:
                await self._replace(self._dice.randrange(len(self._workers)))

    async def _replace(self, place: int) -> None:
        worker = self._workers[place]
        if self._dice.random() < 0.2:
            self._seen["stopped worker"] += 1
            worker.stop.set()
            await asyncio.wait({worker.task})
        else:
            self._seen["killed worker"] += 1
            await worker.process.kill()
        await asyncio.sleep(self._dice.uniform(0.0, 0.5))
        self._workers[place] = self._new_worker(worker.number)

    # Clients.

    async def _client(self) -> None:
        for _ in range(self._dice.randint(2, 4)):
            await asyncio.sleep(self._dice.uniform(0.0, 0.8))
            drawn = self._dice.random()
            if drawn < 0.5:
                await self._put(self._dice.choice(self._documents))
            elif drawn < 0.65:
                await self._delete(self._dice.choice(self._documents))
            elif drawn < 0.9:
                await self._look()
            else:
                await self._read(self._dice.choice(self._documents))

    async def _put(self, document: str) -> None:
        content = f"{document}v{next(self._numbers)}"
        self._sizes[content] = self._dice.choice((1, 3, 4))
        body = _body(content, self._sizes[content])
        self._hashes[hashlib.sha256(body).hexdigest()] = content
        key = f"key-{content}" if self._dice.random() < 0.5 else None
        new = NewDocument(content=body, id=document, media_type="text/plain")
        for _ in range(4):
            began = self._loop.time()
            job: Job | None = None
            try:
                put = self._api.intake.put(TENANT, [new], idempotency_key=key)
                (job,) = await self._api.process.serve(put)
            except _AWAY:
                pass
            self._events.append(
                Write(
                    document=document,
                    content=content,
                    began=began,
                    ended=self._loop.time() if job else None,
                    version=job.version if job else None,
                    key=key,
                )
            )
            if job:
                self._seen["accepted"] += 1
                await self._follow(job)
            if key is None or (job and self._dice.random() < 0.9):
                return
            self._seen["put again"] += 1
            await asyncio.sleep(self._dice.uniform(0.0, 1.0))

    async def _follow(self, job: Job) -> None:
        if self._dice.random() < 0.6:
            return
        for _ in range(3):
            await asyncio.sleep(self._dice.uniform(0.2, 1.0))
            try:
                job = await self._api.process.serve(self._api.intake.job(TENANT, job.id))
            except _AWAY:
                continue
            except NotFound:
                return  # The history says that it was acknowledged.
            if job.state == "succeeded":
                at = self._loop.time()
                self._events.append(Finished(document=job.document_id, version=job.version, seen=at))
                await self._look()
            if job.state not in ("queued", "running"):
                return

    async def _delete(self, document: str) -> None:
        began, version = self._loop.time(), None
        try:
            gone = await self._api.process.serve(self._api.intake.delete(TENANT, None, document))
            version = gone.version
        except NotFound:
            return
        except _AWAY:
            pass
        ended = self._loop.time() if version else None
        self._events.append(Write(document=document, content=None, began=began, ended=ended, version=version))
        if version:
            self._seen["deleted"] += 1
            await self._look()

    async def _look(self, settled: bool = False) -> None:
        # Not in the moment of the answer before it: the judge takes them for simultaneous.
        await asyncio.sleep(self._dice.uniform(0.001, QUICK))
        began = self._loop.time()
        where = Filter(tenant=TENANT, groups=None)
        try:
            found = await self._api.process.serve(search(self._api.index, WORD, where, EVERYTHING))
        except _AWAY:
            return
        self._events.append(
            Look(
                documents=frozenset(self._documents),
                shown=shown(found.hits),
                began=began,
                ended=self._loop.time(),
                whole="visibility" not in found.degraded,
                settled=settled,
            )
        )

    async def _read(self, document: str) -> None:
        began, version = self._loop.time(), None
        try:
            known = await self._api.process.serve(self._api.intake.get(TENANT, None, document))
            version = known.version
        except NotFound:
            pass
        except _AWAY:
            return
        self._events.append(Read(document=document, version=version, began=began, ended=self._loop.time()))

    # The end.

    async def _settle(self) -> None:
        """Nothing fails any more: all work comes to its end."""
        self._network.weather = CALM
        if not self._api.process.alive:
            self._api = self._new_api()
        for place, worker in enumerate(self._workers):
            if not worker.process.alive or worker.task.done():
                self._workers[place] = self._new_worker(worker.number)
        deadline = self._loop.time() + PATIENCE
        # A put that its client gave up may still be on its way.
        while self._network.busy() or self._database.working():
            if self._loop.time() > deadline:
                self._flaws.append(Flaw("never finished", "", "jobs are open after two minutes of calm"))
                break
            await asyncio.sleep(0.5)
        for worker in self._workers:
            worker.stop.set()
        await asyncio.wait({worker.task for worker in self._workers})
        self._flaws += [
            Flaw("never finished", "", f"a worker ended with {worker.task.exception()!r}")
            for worker in self._workers
            if worker.task.exception()
        ]

    async def _clean(self) -> None:
        """What nobody may see is gone from the store when no writer can be left."""
        process = Process(self._loop, "sweeper")
        sweeper = self._sweeper(process)
        await sweeper.sweep()
        await asyncio.sleep(LEASE + DEADLINE + 0.1)
        while await sweeper.sweep():
            pass
        left = self._server.revisions() - self._database.shown()
        if left:
            self._flaws.append(Flaw("left behind", "", f"rows of revisions {sorted(left)} stay in the store"))

    def _count(self) -> None:
        retired = self._database.retired()
        for revision, at in self._server.written.items():
            if retired.get(revision, at) < at:
                self._seen["rows written after their revision was retired"] += 1
        self._seen["leases that ran out"] += self._database.losses()


async def _perform(name: str, act: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return await act()


def shown(hits: Sequence[Hit]) -> dict[str, Shown]:
    """What these hits show of each document."""
    revisions: dict[str, set[int]] = {}
    parts: dict[str, dict[str, set[int]]] = {}
    for hit in hits:
        document = hit.chunk.document_id
        revisions.setdefault(document, set()).add(hit.chunk.revision)
        for content, part in _MARK.findall(hit.chunk.text):
            parts.setdefault(document, {}).setdefault(content, set()).add(int(part))
    return {
        document: Shown(
            revisions=frozenset(numbers),
            parts={content: frozenset(found) for content, found in parts.get(document, {}).items()},
        )
        for document, numbers in revisions.items()
    }


def _body(content: str, size: int) -> bytes:
    """A text of so many paragraphs, each of them a chunk."""
    filler = " ".join(["so"] * 12)
    return "\n\n".join(f"{WORD} {content}p{part} {filler}." for part in range(size)).encode()


@dataclass(frozen=True, slots=True)
class _Api:
    process: Process
    intake: Intake
    index: Index


@dataclass(frozen=True, slots=True)
class _Running:
    number: int
    process: Process
    stop: asyncio.Event
    task: asyncio.Task[None]


class _Server(MemoryStore):
    """The store, which remembers when it was last told rows of a revision."""

    def __init__(self, loop: VirtualLoop, network: Network) -> None:
        super().__init__()
        self.written: dict[int, float] = {}
        self._loop = loop
        self._network = network

    async def upsert(self, generation: str, rows: Sequence[Row]) -> None:
        self.written.update((row.chunk.revision, self._loop.time()) for row in rows)
        await super().upsert(generation, rows)

    async def remove(self, generation: str, revisions: Collection[int]) -> None:
        if self._network.under_way["store.upsert"]:
            self._network.seen["sweeps while rows were on their way"] += 1
        await super().remove(generation, revisions)

    def revisions(self) -> set[int]:
        return {row.chunk.revision for rows in self._rows.values() for row in rows.values()}


class _MemoryBlobs:
    def __init__(self) -> None:
        self._files: dict[tuple[str, str], bytes] = {}

    async def put(self, tenant: str, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self._files[tenant, digest] = content
        return digest

    async def get(self, tenant: str, digest: str) -> bytes:
        try:
            return self._files[tenant, digest]
        except KeyError:
            raise NotFound("file", digest) from None

    async def remove(self, tenant: str, digest: str) -> None:
        self._files.pop((tenant, digest), None)

    async def ping(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Direct:
    """Parses in place."""

    network: Network
    process: Process

    async def parse(
        self,
        content: bytes,
        filename: str | None,
        media_type: str | None,
        *,
        tenant: str | None = None,
        told: Callable[[str], None] | None = None,
    ) -> Parsed:
        async def read() -> Parsed:
            return parse(content, filename, media_type)

        return await self.network.call(self.process, "parser", read, ParserUnavailable)


class _Tiny:
    """Embeds by a hash."""

    spec = EmbedderSpec(name="tiny", artefact="tiny", dimension=8, max_tokens=64)

    def __init__(self, network: Network, process: Process) -> None:
        self._network = network
        self._process = process

    async def embed(self, texts: Sequence[str]) -> Matrix:
        async def embed() -> Matrix:
            digests = [hashlib.sha256(text.encode()).digest()[:8] for text in texts]
            vectors = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 8).astype(np.float32) + 1
            normal: Matrix = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            return normal

        return await self._network.call(self._process, "embedder", embed, EmbedderUnavailable)

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


@dataclass(frozen=True, slots=True)
class _Observer:
    seen: Counter[str]

    def finished(self, attempt: Attempt) -> None:
        self.seen[f"attempt {attempt.outcome}"] += 1
