"""The composition root: the one place that builds things and knows every folder.

`open_services` is what the API, the evaluation and the tests run on; `open_worker` is a worker process.
Both are context managers: what they opened is closed in reverse order when the block ends.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from app import access, migrate, stores, telemetry
from app.admission import Admission
from app.answers import Answers
from app.assignment import Assigner, Assignments
from app.chat import Chat
from app.database import connect_args, dsn, open_engine
from app.embedders import Embedders
from app.erasure import BACKUPS, OutputsStep, RecordsStep, receipts_of, traces
from app.indexes import SAMPLE, Indexes, Unsound
from app.lost import Losses
from app.models import Models, Ping
from app.outcomes import Outcomes
from app.probes import Probes
from app.promotion import Promotions
from app.release import Release
from app.releases import Registry, first_release
from app.rerankers import Rerankers
from app.search import Search
from app.serving import Current, Serving, Servings
from app.settings import Settings
from app.shadow import Shadow
from app.similarity import Similarity
from app.stores import STORE_TIMEOUT, open_store
from app.summarize import Summarizer
from app.tracing import JobTraces, TracedStore
from app.trials import Trials
from ingestion import erase, spotcheck
from ingestion.blobs import Blobs
from ingestion.erase import Eraser, Step
from ingestion.erasesteps import FilesStep, IndexStep, LedgerStep, LogStep, Stated
from ingestion.errors import Conflict, LedgerUnavailable
from ingestion.forgetter import Forgetter
from ingestion.indexers import Indexer, OpenIndexers, is_of_this_version
from ingestion.intake import Intake
from ingestion.ledger import Ledger
from ingestion.parse import PARSER_VERSION
from ingestion.purger import Purger
from ingestion.reads import Reads
from ingestion.receipts import Receipt, Receipts
from ingestion.sandbox import Sandbox
from ingestion.sweeper import Sweeper
from ingestion.types import Containment, Erasure, Generation, Placed
from ingestion.vacuum import DatabaseStep
from ingestion.worker import BACKFILL, ORDINARY, Crew, Worker
from llm import extractive
from llm.outputs import MemoryOutputs, RedisOutputs
from llm.pipe import Line
from llm.types import ChatModel, Scorer
from llm.types import Outputs as KeptOutputs
from retrieval.analyze import analyzer
from retrieval.embedders.http import Records
from retrieval.errors import EmbedderUnavailable, StoreUnavailable
from retrieval.search import Index
from retrieval.types import Embedder, EmbedderSpec, Encoder, IndexSpec, ServedStore, Store, Visibility

PRODUCT = version("plumbline")
OUTPUTS = f"{PRODUCT}/{extractive.version()}"
"""What kept outputs depend on beside the release, which names the built-in model and not its version."""
LONGEST_WRITE = 4 * STORE_TIMEOUT
"""Seconds for which a write that was given up may still be carried out: it waits for others, then makes
requests of its own."""
GLANCE = 2
"""Documents whose rows readiness looks for in the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacements:
    """Parts that stand in for the real ones, so that a measurement can leave their time out. `model` makes
    one by its name; the store and the embedder stay the caller's to close."""

    store: ServedStore | None = None
    embedder: Encoder | None = None
    model: Callable[[str], ChatModel] | None = None


REAL = Replacements()


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything that a request may need. `health` gives a check for each part that can be away now."""

    settings: Settings
    release: Registry
    promotions: Promotions
    trials: Trials
    assigner: Assigner
    outcomes: Outcomes
    shadow: Shadow
    answers: Answers
    indexes: Indexes
    access: access.Access
    intake: Intake
    receipts: Receipts
    chat: Chat
    search: Search
    summarizer: Summarizer
    store: Store
    visibility: Visibility
    outputs: KeptOutputs
    admission: Admission
    current: Callable[[], Serving]
    health: Callable[[], Mapping[str, Ping]]

    @property
    def embedder(self) -> Embedder:
        """The champion's."""
        return self.current().index.embedder


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What the API and the workers both stand on."""

    ledger: Ledger
    reads: Reads
    blobs: Blobs
    served: ServedStore
    store: Store
    losses: Losses
    embedders: Embedders
    rerankers: Rerankers
    registry: Registry
    engine: AsyncEngine


@asynccontextmanager
async def open_services(settings: Settings, replacements: Replacements = REAL) -> AsyncIterator[Services]:
    """The query side. Needs DATABASE_URL, REDIS_URL and a store (`app.stores`)."""
    settings.require("database_url", "redis_url")
    async with AsyncExitStack() as stack:
        ground = await _ground(settings, stack, replacements)
        outputs = RedisOutputs(_secret(settings.redis_url))
        stack.push_async_callback(outputs.aclose)
        await ground.reads.warm()
        live = _answering(settings, ground, replacements, stack, outputs)
        servings, models = live.servings, live.models
        await stack.enter_async_context(_following(ground, servings))
        answering = partial(_answering_now, ground.registry, servings)
        await stack.enter_async_context(ground.losses.looking(answering))
        indexes = _indexes(ground)
        trials = Trials(ground.engine, ground.registry, indexes)
        outcomes = Outcomes(ground.engine)
        await stack.enter_async_context(outcomes.writing())
        assignments = Assignments(Line(_secret(settings.redis_url)))
        stack.callback(assignments.close)
        admission = Admission(
            max_running=settings.max_running, max_waiting=settings.max_waiting, load=models.load
        )
        shadow = _shadow(settings, ground, replacements, stack, outcomes, admission, live)
        await stack.enter_async_context(shadow.running())
        yield Services(
            settings=settings,
            release=ground.registry,
            promotions=Promotions(ground.engine, ground.registry, indexes, trials, servings.prepare),
            trials=trials,
            assigner=Assigner(ground.registry, servings, assignments, indexes),
            outcomes=outcomes,
            shadow=shadow,
            answers=live.answers,
            indexes=indexes,
            access=access.Access(ground.engine, open_access=access.opened(settings)),
            intake=_intake(settings, ground),
            receipts=receipts_of(settings),
            chat=live.chat,
            search=Search(servings.current),
            summarizer=live.summarizer,
            store=ground.store,
            visibility=ground.reads,
            outputs=outputs,
            admission=admission,
            current=servings.current,
            health=lambda: {
                "ledger": ground.ledger.ping,
                "store": ground.served.ping,
                "outputs": outputs.ping,
                "files": ground.blobs.ping,
                "index": lambda: ground.losses.look(servings.current().index.generation),
                **models.health(ground.registry.champion().release),
            },
        )


@asynccontextmanager
async def open_worker(
    settings: Settings, replacements: Replacements = REAL
) -> AsyncIterator[Callable[[asyncio.Event], Awaitable[None]]]:
    """The writing side: yields what runs jobs and sweeps until the given event is set."""
    settings.require("database_url")
    async with AsyncExitStack() as stack:
        ground = await _ground(settings, stack, replacements)
        window = settings.lease + LONGEST_WRITE
        purger = Purger(ground.ledger, ground.store, ground.blobs, window=window)
        sweeper = Sweeper(
            *(ground.ledger, ground.store),
            lease=settings.lease,
            call_deadline=LONGEST_WRITE,
            removed=purger.noted,
        )
        eraser = _eraser(settings, ground, stack)
        forgetter = Forgetter(ground.ledger, age=settings.history_days * 86_400.0)
        await _ensure_champion(ground, sweeper)
        indexers = OpenIndexers(ground.ledger, ground.store, _opener(ground.embedders))
        ordinary = _worker(settings, ground, indexers, ORDINARY, stack)
        backfill = _worker(settings, ground, indexers, BACKFILL, stack, first=ordinary.embedding)

        async def run(stop: asyncio.Event) -> None:
            async with asyncio.TaskGroup() as group:
                for part in (ordinary, backfill, sweeper, purger, eraser, forgetter):
                    group.create_task(part.run(stop))

        yield run


@asynccontextmanager
async def open_encoder(settings: Settings, name: str, records: Records) -> AsyncIterator[Encoder]:
    """An embedder as the service has it, for what needs nothing else. Raises `EmbedderUnavailable`."""
    embedders = Embedders(settings, telemetry.tracer(), records)
    try:
        yield await embedders.get(name)
    finally:
        await embedders.aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What decides on releases from outside of the API."""

    registry: Registry
    trials: Trials
    promotions: Promotions
    engine: AsyncEngine


async def containment(settings: Settings) -> Containment:
    """What the processes that read files are kept from on this machine. Raises `ParserUnavailable`."""
    sandbox = Sandbox(timeout=settings.parse_timeout, memory=settings.parse_memory)
    try:
        return await sandbox.containment()
    finally:
        await sandbox.close()


@asynccontextmanager
async def open_control(settings: Settings) -> AsyncIterator[Control]:
    """The side that watches trials. Nothing is loaded before it is needed."""
    settings.require("database_url")
    async with AsyncExitStack() as stack:
        engine, registry = await _registry(settings, stack)
        embedders = Embedders(settings, telemetry.tracer(), Probes(engine))
        stack.push_async_callback(embedders.aclose)
        indexes = Indexes(Ledger(engine), embedders, _unseen, parser=PARSER_VERSION)
        trials = Trials(engine, registry, indexes)
        promotions = Promotions(engine, registry, indexes, trials, _at_once)
        yield Control(registry=registry, trials=trials, promotions=promotions, engine=engine)


async def _at_once(release: Release) -> None:
    """Nothing is served here: there is nothing to prepare."""


async def _unseen(spec: IndexSpec, embedder: Encoder, sample: Sequence[Placed]) -> str | None:
    """Of a release on trial, the index was looked into when the trial began."""
    return "it was never tried"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answering:
    """What answers, with one cache of outputs: the service's own, or that of a shadow."""

    models: Models
    servings: Servings
    answers: Answers
    chat: Chat
    summarizer: Summarizer


def _answering(
    settings: Settings,
    ground: _Ground,
    replacements: Replacements,
    stack: AsyncExitStack,
    outputs: KeptOutputs,
    current: Current | None = None,
) -> _Answering:
    """`current` is what answers unless a request says otherwise, by default what these servings hold."""
    models = Models(settings, _scorer(lambda: now()), outputs, product=OUTPUTS, build=replacements.model)
    stack.push_async_callback(models.aclose)
    servings = Servings(
        lambda: ground.registry.champion().release, lambda release: _serving(release, ground, models)
    )
    now = current or servings.current
    answers = Answers(outputs, product=OUTPUTS)
    return _Answering(
        models=models,
        servings=servings,
        answers=answers,
        chat=Chat(now, ground.reads, answers, product=OUTPUTS, tokens=models.tokens),
        summarizer=Summarizer(now, ground.reads, ground.store, product=OUTPUTS, tokens=models.tokens),
    )


def _intake(settings: Settings, ground: _Ground) -> Intake:
    return Intake(
        ground.ledger,
        ground.blobs,
        upload_limit=settings.upload_limit,
        most_queued=settings.max_queued,
        most_queued_bytes=settings.max_queued_bytes,
    )


def _indexes(ground: _Ground) -> Indexes:
    return Indexes(ground.ledger, ground.embedders, _unsound(ground), parser=PARSER_VERSION)


def _shadow(
    settings: Settings,
    ground: _Ground,
    replacements: Replacements,
    stack: AsyncExitStack,
    outcomes: Outcomes,
    admission: Admission,
    live: _Answering,
) -> Shadow:
    """With models, breakers and caches of its own, all of them empty; only the store and the embedders are
    the same."""
    own = _answering(settings, ground, replacements, stack, MemoryOutputs(), live.servings.current)
    return Shadow(
        lambda: ground.registry.standing().shadow,
        own.servings,
        own.chat,
        own.summarizer,
        outcomes,
        admission,
        live.models.load,
    )


async def reapply(engine: AsyncEngine, receipts: Sequence[Receipt], who: str) -> list[Erasure]:
    """Have what these receipts are about erased again; a worker does it."""
    erasing = Ledger(engine).erasing
    return [await erase.reapply(erasing, one, who) for one in receipts]


async def unknown_receipts(database_url: str, settings: Settings) -> int:
    """How many receipts are newer than the ledger."""
    engine = open_engine(database_url, pool_size=1)
    try:
        kept = await asyncio.to_thread(receipts_of(settings).ids)
        return len(kept - await Ledger(engine).erasing.finished())
    finally:
        await engine.dispose()


def _losses(ledger: Ledger, reads: Reads, store: Store) -> Losses:
    async def require(generation: str, missing: Placed | None) -> None:
        if missing is None:
            looked_for = await ledger.some(generation, GLANCE)
        else:
            looked_for = [missing, *await ledger.sample(generation, SAMPLE)]
        await spotcheck.require_rows(store, reads, generation, looked_for)

    return Losses(require)


def _answering_now(registry: Registry, servings: Servings) -> set[str]:
    """The generations that are searched for those who ask."""
    standing = registry.standing()
    canary = standing.canary.release if standing.canary else None
    releases = (standing.champion.release, standing.soaking, canary)
    ready = [servings.ready(release) for release in releases if release]
    return {serving.index.generation for serving in ready if serving}


async def index_trouble(settings: Settings) -> str | None:
    """What is wrong with a sample of what serves, None if nothing is. Raises `LedgerUnavailable`."""
    database_url = _secret(settings.database_url)
    async with AsyncExitStack() as stack:
        engine = open_engine(database_url, pool_size=1)
        stack.push_async_callback(engine.dispose)
        reads = Reads(dsn(database_url), connect_args())
        stack.push_async_callback(reads.close)
        store = open_store(settings)
        stack.push_async_callback(store.close)
        embedders = Embedders(settings, telemetry.tracer(), Probes(engine))
        stack.push_async_callback(embedders.aclose)
        ledger, open_indexer = Ledger(engine), _opener(embedders)
        for known in await ledger.generations():
            if known.state != "serving":
                continue
            try:
                sample = await ledger.sample(known.id, SAMPLE)
                wrong = await spotcheck.unsound(store, reads, await open_indexer(known), sample)
            except (StoreUnavailable, EmbedderUnavailable) as error:
                wrong = str(error)
            if wrong:
                return wrong
    return None


def _eraser(settings: Settings, ground: _Ground, stack: AsyncExitStack) -> Eraser:
    """What keeps nothing, and what is not ours, is in its receipts too."""
    erasing, data = ground.ledger.erasing, settings.data.resolve()
    kept = receipts_of(settings)
    patient = open_engine(_secret(settings.database_url), pool_size=1, command_timeout=None)
    stack.push_async_callback(patient.dispose)
    steps: list[Step] = [
        IndexStep(ground.ledger, erasing, ground.store),
        FilesStep(erasing, ground.blobs),
        LogStep(erasing, data / "logs"),
        RecordsStep(ground.engine),
        Stated("traces", traces()),
        Stated("backups", BACKUPS),
        LedgerStep(erasing, kept),
        DatabaseStep(patient, data),
    ]
    if settings.redis_url:
        outputs = RedisOutputs(_secret(settings.redis_url))
        stack.push_async_callback(outputs.aclose)
        steps.insert(1, OutputsStep(erasing.documents, outputs, data))
    return Eraser(erasing, steps, kept)


def _worker(
    settings: Settings,
    ground: _Ground,
    indexers: OpenIndexers,
    crew: Crew,
    stack: AsyncExitStack,
    first: asyncio.Semaphore | None = None,
) -> Worker:
    """A crew, with a parsing process for each lane: a file that takes long holds up no other lane or crew."""
    sandbox = Sandbox(settings.parse_timeout, settings.parse_memory, children=crew.lanes)
    stack.push_async_callback(sandbox.close)
    return Worker(
        ground.ledger,
        ground.blobs,
        sandbox,
        ground.store,
        indexers,
        name=f"{socket.gethostname()}/{os.getpid()}",
        lease=settings.lease,
        observer=JobTraces(telemetry.tracer()),
        crew=crew,
        grace=settings.grace,
        first=first,
        version=PRODUCT,
    )


async def _ground(settings: Settings, stack: AsyncExitStack, replacements: Replacements = REAL) -> _Ground:
    engine, registry = await _registry(settings, stack)
    reads = Reads(dsn(_secret(settings.database_url)), connect_args())
    stack.push_async_callback(reads.close)
    tracer = telemetry.tracer()
    served = replacements.store
    system = None
    if served is None:
        served, kind = open_store(settings), stores.named(settings)
        system = kind.name if kind else None
        stack.push_async_callback(served.close)
    rerankers = Rerankers(settings)
    stack.push_async_callback(rerankers.aclose)
    embedders = Embedders(settings, tracer, Probes(engine), replacements.embedder)
    stack.push_async_callback(embedders.aclose)
    ledger = Ledger(engine)
    return _Ground(
        ledger=ledger,
        reads=reads,
        blobs=Blobs(settings.blobs_url or str(settings.data.resolve() / "blobs")),
        served=served,
        store=TracedStore(served, tracer, system=system),
        # Not the traced one: nobody's request makes these looks.
        losses=_losses(ledger, reads, served),
        embedders=embedders,
        rerankers=rerankers,
        registry=registry,
        engine=engine,
    )


async def _registry(settings: Settings, stack: AsyncExitStack) -> tuple[AsyncEngine, Registry]:
    """The ledger's database, up to date, and the registry in it."""
    database_url = _secret(settings.database_url)
    await migrate.upgrade(database_url)
    engine = open_engine(database_url)
    stack.push_async_callback(engine.dispose)
    registry = Registry(engine)
    await registry.start(first_release(settings))
    return engine, registry


@asynccontextmanager
async def _following(ground: _Ground, servings: Servings) -> AsyncIterator[None]:
    """The champion ready to serve, and those that follow it; so is what it would be rolled back to."""
    await servings.prepare(ground.registry.champion().release)
    warming = asyncio.create_task(_warm(ground), name="load what may be rolled back to")
    try:
        async with ground.registry.following(servings.prepare):
            yield
    finally:
        warming.cancel()
        await asyncio.gather(warming, return_exceptions=True)


async def _warm(ground: _Ground) -> None:
    with suppress(LedgerUnavailable, EmbedderUnavailable):
        earlier = await ground.registry.before()
        if earlier:
            await ground.embedders.get(earlier.release.body.index.embedder)


async def _ensure_champion(ground: _Ground, sweeper: Sweeper) -> None:
    """Let the champion's generation take traffic, which another version of the product may have left."""
    release = ground.registry.champion().release
    name = release.body.index.embedder
    spec = release.index_spec((await ground.embedders.of(release)).spec, PARSER_VERSION)
    try:
        await ground.ledger.ensure_generation(spec, name)
    except Conflict:
        await sweeper.sweep()
        await ground.ledger.ensure_generation(spec, name)


def _opener(embedders: Embedders) -> Callable[[Generation], Awaitable[Indexer]]:
    async def open_indexer(known: Generation) -> Indexer:
        embedder = await embedders.get(known.embedder)
        if embedder.spec.artefact != known.spec.embedder:
            raise EmbedderUnavailable(
                f"The embedder {known.embedder!r} here is not the one that the index generation {known.id} "
                "is made with: its files differ."
            )
        if not is_of_this_version(known):
            raise EmbedderUnavailable(f"The index generation {known.id} is of another version of Plumbline.")
        return Indexer(known.spec, embedder, analyzer(known.spec.analyzer))

    return open_indexer


def _unsound(ground: _Ground) -> Unsound:
    async def look(spec: IndexSpec, embedder: Encoder, sample: Sequence[Placed]) -> str | None:
        indexer = Indexer(spec, embedder, analyzer(spec.analyzer))
        return await spotcheck.unsound(ground.store, ground.reads, indexer, sample)

    return look


async def _serving(release: Release, ground: _Ground, models: Models) -> Serving:
    """Loads its embedder. A store that is away now is no reason not to serve: what needs it says so until it
    is back."""
    embedder = await ground.embedders.of(release)
    spec = release.index_spec(embedder.spec, PARSER_VERSION)
    # It can be searched before anything is in it.
    with suppress(StoreUnavailable):
        await ground.store.prepare(spec.generation, spec)
    return Serving(
        release=release,
        index=Index(
            generation=spec.generation,
            store=ground.store,
            embedder=embedder,
            analyzer=analyzer(spec.analyzer),
            visibility=ground.reads,
            reranker=await ground.rerankers.get(release.body.rerank),
            lost=partial(ground.losses.has, spec.generation),
        ),
        model=models.chain(release),
    )


def _scorer(current: Current) -> Scorer:
    """Sentences are ranked by the embedder of the release that serves."""
    known: dict[EmbedderSpec, Similarity] = {}

    async def score(tenant: str, text: str, sentences: Sequence[str]) -> Sequence[float]:
        embedder = current().index.embedder
        similarity = known.setdefault(embedder.spec, Similarity(embedder))
        return await similarity.score(tenant, text, sentences)

    return score


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value else ""
