"""One running service for all HTTP tests: real PostgreSQL, Redis, embedder, worker and HTTP server, the
shipped memory store and the shipped scripted model. Tests keep apart by tenant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app import migrate, tables, telemetry
from app.access import Access
from app.admission import Admission
from app.answers import Answers
from app.assignment import Assigner, Assignments
from app.chat import Chat
from app.database import connect_args, dsn, open_engine
from app.embedders import Embedders
from app.indexes import Indexes
from app.outcomes import Outcomes
from app.probes import Probes
from app.promotion import Promotions
from app.release import DEFAULT_RELEASE, Release, load_release
from app.releases import Registry
from app.search import Search
from app.serving import Serving, Servings
from app.settings import load_settings
from app.shadow import Shadow
from app.summarize import Summarizer
from app.tracing import JobTraces, TracedEmbedder, TracedModel, TracedStore
from app.trials import Trials
from app.wiring import PRODUCT, Services
from ingestion import spotcheck
from ingestion import tables as ledger_tables
from ingestion.blobs import Blobs
from ingestion.indexers import Indexer, OpenIndexers
from ingestion.intake import Intake
from ingestion.ledger import Ledger
from ingestion.parse import PARSER_VERSION
from ingestion.reads import Reads
from ingestion.receipts import Receipts
from ingestion.sandbox import Sandbox
from ingestion.types import Generation, Placed
from ingestion.worker import Worker
from llm.extractive import Extractive
from llm.outputs import MemoryOutputs, RedisOutputs
from llm.pipe import Line
from llm.types import ChatModel
from retrieval.analyze import analyzer
from retrieval.embedders.openvino import OpenVinoEmbedder, find_model
from retrieval.embedders.prefixed import Prefixed
from retrieval.search import Index
from retrieval.stores.memory import MemoryStore
from retrieval.types import Encoder, IndexSpec
from tests.service.http.house import House, Stage, Tenant, serving

UPLOAD_LIMIT = 2 * 2**20
QUESTION_LIMIT = 1_000


@pytest.fixture(scope="session")
async def http_database(postgres_url: str) -> AsyncIterator[str]:
    """One migrated database; `engine` empties it, `house` has another."""
    async with _database(postgres_url, "http_tests") as url:
        yield url


@pytest.fixture
async def engine(http_database: str) -> AsyncIterator[AsyncEngine]:
    engine = open_engine(http_database)
    names = ", ".join([*tables.metadata.tables, *ledger_tables.metadata.tables])
    async with engine.begin() as connection:
        await connection.execute(text(f"TRUNCATE {names}"))
    yield engine
    await engine.dispose()


@asynccontextmanager
async def _database(postgres_url: str, name: str) -> AsyncIterator[str]:
    admin = open_engine(postgres_url).execution_options(isolation_level="AUTOCOMMIT")
    async with admin.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    url = postgres_url.replace("@/postgres?", f"@/{name}?")
    await migrate.upgrade(url)
    yield url
    async with admin.connect() as connection:
        await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    await admin.dispose()


@pytest.fixture(scope="session")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = find_model("all-MiniLM-L6-v2", None)
    return TracedEmbedder(
        OpenVinoEmbedder.load(folder, tmp_path_factory.mktemp("openvino"), "all-MiniLM-L6-v2"),
        telemetry.tracer(),
    )


@pytest.fixture(scope="session")
async def house(
    postgres_url: str, redis_url: str, embedder: Encoder, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("house")
    async with AsyncExitStack() as stack:
        database_url = await stack.enter_async_context(_database(postgres_url, "http_house"))
        house = await _built(database_url, redis_url, embedder, folder, stack)
        house.url = await stack.enter_async_context(serving(house.services))
        opened = replace(house.services, access=Access(_engine_of(house.services), open_access=True))
        house.open_url = await stack.enter_async_context(serving(opened))
        yield house
        for client in house.clients:
            await client.aclose()


@pytest.fixture
async def tenant(house: House) -> Tenant:
    return await house.tenant()


def _engine_of(services: Services) -> AsyncEngine:
    return services.access._engine


async def _built(
    database_url: str, redis_url: str, embedder: Encoder, folder: Path, stack: AsyncExitStack
) -> House:
    settings = load_settings(
        {},
        data=folder,
        upload_limit=UPLOAD_LIMIT,
        question_limit=QUESTION_LIMIT,
        request_timeout=30.0,
        stall=0.0,
    )
    engine = open_engine(database_url)
    stack.push_async_callback(engine.dispose)
    registry = Registry(engine, poll=0.05)
    await registry.start(load_release(DEFAULT_RELEASE))
    # On a busy machine Redis may take longer than the usual quarter of a second, and that would be a miss.
    outputs = RedisOutputs(redis_url, timeout=5)
    stack.push_async_callback(outputs.aclose)
    ledger, tracer = Ledger(engine), telemetry.tracer()
    reads = Reads(dsn(database_url), connect_args())
    stack.push_async_callback(reads.close)
    store = TracedStore(MemoryStore(), tracer)
    blobs = Blobs(str(folder / "blobs"))

    async def score(tenant: str, question: str, sentences: Sequence[str]) -> Sequence[float]:
        vectors = await embedder.embed([question, *sentences])
        return [float(x) for x in vectors[1:] @ vectors[0]]

    stage = Stage(Extractive(score))
    stages: dict[str, ChatModel] = {}
    model = TracedModel(stage, tracer, provider="plumbline")
    spec = registry.champion().release.index_spec(embedder.spec, PARSER_VERSION)
    await store.prepare(spec.generation, spec)
    await ledger.ensure_generation(spec, embedder.spec.name)
    index = Index(
        generation=spec.generation,
        store=store,
        embedder=Prefixed(embedder),
        analyzer=analyzer(spec.analyzer),
        visibility=reads,
    )

    async def build(release: Release) -> Serving:
        return Serving(release=release, index=index, model=stages.get(release.id, model))

    servings = Servings(lambda: registry.champion().release, build)
    current = servings.current
    await servings.prepare(registry.champion().release)
    await stack.enter_async_context(registry.following(servings.prepare))

    async def open_indexer(known: Generation) -> Indexer:
        return Indexer(known.spec, embedder, analyzer(known.spec.analyzer))

    async def unsound(spec: IndexSpec, embedder: Encoder, sample: Sequence[Placed]) -> str | None:
        return await spotcheck.unsound(store, reads, Indexer(spec, embedder, analyzer(spec.analyzer)), sample)

    embedders = Embedders(settings, tracer, Probes(engine), embedder)
    indexes = Indexes(ledger, embedders, unsound, parser=PARSER_VERSION)
    sandbox = Sandbox(30.0, 2**30)
    stack.push_async_callback(sandbox.close)
    worker = Worker(
        ledger,
        blobs,
        sandbox,
        store,
        OpenIndexers(ledger, store, open_indexer),
        name="worker",
        lease=15.0,
        observer=JobTraces(tracer),
    )
    stop = asyncio.Event()
    working = asyncio.create_task(worker.run(stop))

    async def end() -> None:
        stop.set()
        await working

    stack.push_async_callback(end)
    intake = Intake(ledger, blobs, upload_limit=settings.upload_limit)
    answers = Answers(outputs, product=PRODUCT)
    admission = Admission(max_running=8, max_waiting=16)
    trials, written = Trials(engine, registry, indexes), Outcomes(engine)
    await stack.enter_async_context(written.writing())
    assignments = Assignments(Line(redis_url, timeout=5))
    stack.callback(assignments.close)
    shadow = Shadow(
        lambda: registry.standing().shadow,
        servings,
        Chat(current, reads, Answers(MemoryOutputs(), product=PRODUCT), product=PRODUCT),
        Summarizer(current, reads, store, product=PRODUCT),
        written,
        admission,
        lambda: None,
    )
    await stack.enter_async_context(shadow.running())
    services = Services(
        settings=settings,
        receipts=Receipts(str(folder / "receipts")),
        release=registry,
        promotions=Promotions(engine, registry, indexes, trials, servings.prepare),
        trials=trials,
        assigner=Assigner(registry, servings, assignments, indexes),
        outcomes=written,
        shadow=shadow,
        answers=answers,
        indexes=indexes,
        access=Access(engine),
        intake=intake,
        chat=Chat(current, reads, answers, product=PRODUCT),
        search=Search(current),
        summarizer=Summarizer(current, reads, store, product=PRODUCT),
        store=store,
        visibility=reads,
        outputs=outputs,
        admission=admission,
        current=current,
        health=lambda: {
            "ledger": ledger.ping,
            "store": ledger.ping,
            "outputs": outputs.ping,
            "files": blobs.ping,
        },
    )
    return House(services, stage, stages)
