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
from importlib.metadata import version

import httpx
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from app import access, migrate, telemetry
from app.admission import Admission
from app.answers import Answers
from app.chat import Chat
from app.database import open_engine
from app.models import Models, Ping
from app.release import Release
from app.releases import Registry, first_release
from app.search import Search
from app.serving import Serving, Servings
from app.settings import Settings
from app.stores import STORE_TIMEOUT, ServedStore, open_store
from app.summarize import Summarizer
from app.tracing import JobTraces, TracedEmbedder, TracedStore
from ingestion.blobs import Blobs
from ingestion.intake import Intake
from ingestion.ledger import Ledger
from ingestion.parse import PARSER_VERSION
from ingestion.pipeline import Indexer
from ingestion.sandbox import Sandbox
from ingestion.sweeper import Sweeper
from ingestion.worker import Worker
from llm.cache import RedisOutputs
from llm.types import Outputs, Scorer
from retrieval.analyze import analyzer
from retrieval.embedders.openvino import OpenVinoEmbedder, find_model
from retrieval.errors import StoreUnavailable
from retrieval.search import Index
from retrieval.types import Embedder, IndexSpec, Store, Visibility

PRODUCT = version("plumbline")
LONGEST_WRITE = 4 * STORE_TIMEOUT
"""A write that was given up may still be carried out for so long: it waits for others, then makes requests
of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything that a request may need. `health` has a check for each part that can be away."""

    settings: Settings
    release: Registry
    access: access.Access
    intake: Intake
    chat: Chat
    search: Search
    summarizer: Summarizer
    store: Store
    embedder: Embedder
    visibility: Visibility
    outputs: Outputs
    admission: Admission
    current: Callable[[], Serving]
    health: Mapping[str, Ping]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What the API and the workers both stand on."""

    ledger: Ledger
    blobs: Blobs
    served: ServedStore
    store: Store
    embedder: Embedder
    registry: Registry
    engine: AsyncEngine


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """The query side. Needs DATABASE_URL, REDIS_URL and MILVUS_URI."""
    settings.require("database_url", "redis_url")
    async with AsyncExitStack() as stack:
        ground = await _ground(settings, stack)
        await stack.enter_async_context(ground.registry.following())
        outputs = RedisOutputs(_secret(settings.redis_url))
        stack.push_async_callback(outputs.aclose)
        client = httpx.AsyncClient(limits=httpx.Limits(max_connections=None))
        await stack.enter_async_context(client)
        models = Models(settings, client, _scorer(ground.embedder), outputs, product=PRODUCT)
        servings = Servings(
            lambda: ground.registry.champion().release, lambda release: _serving(release, ground, models)
        )
        intake = Intake(ground.ledger, ground.blobs, upload_limit=settings.upload_limit)
        answers = Answers(outputs, product=PRODUCT)
        current = servings.current
        await _prepare(ground)
        yield Services(
            settings=settings,
            release=ground.registry,
            access=access.Access(ground.engine, open_access=access.opened(settings)),
            intake=intake,
            chat=Chat(current, ground.ledger, answers, product=PRODUCT),
            search=Search(current),
            summarizer=Summarizer(current, ground.ledger, ground.store, product=PRODUCT),
            store=ground.store,
            embedder=ground.embedder,
            visibility=ground.ledger,
            outputs=outputs,
            admission=Admission(max_running=settings.max_running, max_waiting=settings.max_waiting),
            current=current,
            health={
                "ledger": ground.ledger.ping,
                "store": ground.served.ping,
                "outputs": outputs.ping,
                **models.health(),
            },
        )


@asynccontextmanager
async def open_worker(settings: Settings) -> AsyncIterator[Callable[[asyncio.Event], Awaitable[None]]]:
    """The writing side: yields what runs jobs and sweeps until the given event is set."""
    settings.require("database_url")
    async with AsyncExitStack() as stack:
        ground = await _ground(settings, stack)
        spec = _champion_spec(ground)
        await _prepare(ground)
        await ground.ledger.ensure_generation(spec)
        await _retire_others(ground, spec)
        sandbox = Sandbox(timeout=settings.parse_timeout, memory=settings.parse_memory)
        stack.push_async_callback(sandbox.close)
        worker = Worker(
            ground.ledger,
            ground.blobs,
            sandbox,
            ground.store,
            {spec.generation: Indexer(spec, ground.embedder, analyzer(spec.analyzer))},
            name=f"{socket.gethostname()}/{os.getpid()}",
            lease=settings.lease,
            observer=JobTraces(telemetry.tracer()),
        )
        sweeper = Sweeper(ground.ledger, ground.store, lease=settings.lease, call_deadline=LONGEST_WRITE)

        async def run(stop: asyncio.Event) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(worker.run(stop))
                group.create_task(sweeper.run(stop))

        yield run


async def _ground(settings: Settings, stack: AsyncExitStack) -> _Ground:
    database_url = _secret(settings.database_url)
    await migrate.upgrade(database_url)
    engine = open_engine(database_url)
    stack.push_async_callback(engine.dispose)
    registry = Registry(engine)
    await registry.start(first_release(settings))
    tracer = telemetry.tracer()
    served = open_store(settings)
    stack.push_async_callback(served.close)
    return _Ground(
        ledger=Ledger(engine),
        blobs=Blobs(settings.blobs_url or str(settings.data.resolve() / "blobs")),
        served=served,
        store=TracedStore(served, tracer),
        embedder=TracedEmbedder(_embedder(settings, registry.champion().release), tracer),
        registry=registry,
        engine=engine,
    )


def _champion_spec(ground: _Ground) -> IndexSpec:
    return ground.registry.champion().release.index_spec(ground.embedder.spec, PARSER_VERSION)


async def _prepare(ground: _Ground) -> None:
    """Make the champion's generation, so that it can be searched before anything is in it. A store that is
    away now is no reason not to start: what needs it says so until it is back."""
    spec = _champion_spec(ground)
    with suppress(StoreUnavailable):
        await ground.store.prepare(spec.generation, spec)


async def _retire_others(ground: _Ground, spec: IndexSpec) -> None:
    """Releases that may serve share the champion's index, so a generation of an older version of the product
    is not searched any more: nobody need write it."""
    for known in await ground.ledger.generations():
        if known.spec.generation != spec.generation:
            await ground.ledger.retire_generation(known.spec.generation)
            with suppress(StoreUnavailable):
                await ground.store.drop(known.spec.generation)


def _embedder(settings: Settings, release: Release) -> Embedder:
    name = release.body.index.embedder
    folder = find_model(name, settings.embedder_path)
    return OpenVinoEmbedder.load(folder, settings.data.resolve() / "cache" / "embedders", name)


def _serving(release: Release, ground: _Ground, models: Models) -> Serving:
    spec = release.index_spec(ground.embedder.spec, PARSER_VERSION)
    return Serving(
        release=release,
        index=Index(
            generation=spec.generation,
            store=ground.store,
            embedder=ground.embedder,
            analyzer=analyzer(spec.analyzer),
            visibility=ground.ledger,
        ),
        model=models.chain(release),
    )


def _scorer(embedder: Embedder) -> Scorer:
    """How close sentences are to a question, for the built-in model."""

    async def score(question: str, sentences: Sequence[str]) -> Sequence[float]:
        texts = [_clipped(embedder, text) for text in (question, *sentences)]
        vectors = await embedder.embed(texts)
        return [float(score) for score in vectors[1:] @ vectors[0]]

    return score


def _clipped(embedder: Embedder, text: str) -> str:
    """What of the text fits the embedder's window: enough to tell how close a long sentence is."""
    spans = embedder.token_spans(text)
    most = embedder.spec.max_tokens - 2
    return text if len(spans) <= most else text[: spans[most - 1][1]]


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value else ""
