"""Another chunker and another embedder, built and switched to and back while the service is searched and
updated all along: real PostgreSQL, Redis, embedders, HTTP server and worker; Milvus Lite in the first."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

import app
from app.cli import build
from app.database import open_engine
from app.embedded import free_port
from app.release import DEFAULT_RELEASE, IndexPart, ModelRef, Release, load_release
from app.settings import Settings, load_settings
from app.wiring import Replacements, Services, open_services, open_worker
from ingestion.ledger import Ledger
from ingestion.types import JobError
from retrieval.embedders.openvino import find_model
from retrieval.stores.memory import MemoryStore
from retrieval.types import Filter
from tests.service.http.house import serving
from tests.unit.test_openvino_embedder import small_model

EVERYTHING = Filter(tenant="default", groups=None)
SAMPLE = Path(app.__file__).with_name("sample")
WORDS = ("leave", "warranty", "outage", "price")
NOTES = {f"{word}.md": f"# Notes\n\n{f'All about {word}. ' * 60}".encode() for word in WORDS}
OTHER = "other-embedder"
PATIENCE = 120.0


@dataclass(slots=True)
class Running:
    """A service. `http` is a client with every right."""

    settings: Settings
    replacements: Replacements
    services: Services
    url: str
    http: httpx.AsyncClient

    @asynccontextmanager
    async def writing(self, **changes: Any) -> AsyncIterator[None]:
        """A worker, with other settings if need be, until the block ends."""
        stop = asyncio.Event()
        async with open_worker(self.settings.model_copy(update=changes), self.replacements) as work:
            task = asyncio.ensure_future(work(stop))
            yield
            stop.set()
            await task

    async def candidate(self, name: str = "candidate", query_prefix: str = "", **index: Any) -> Release:
        """Register a release with another [index] or prefix of questions, evaluated and passed."""
        body = load_release(DEFAULT_RELEASE).body
        first = load_release(DEFAULT_RELEASE)
        part = IndexPart.model_validate({**body.index.model_dump(), **index})
        search = body.search.model_copy(update={"query_prefix": query_prefix})
        release = Release(
            body=body.model_copy(update={"name": name, "index": part, "search": search}),
            answer=first.answer,
            summarize=first.summarize,
            rewrite=first.rewrite,
        )
        await self.services.release.add(release)
        await self.services.release.judge(release.id, {}, passed=True)
        return release

    async def search(self, query: str, limit: int = 50) -> dict[str, Any]:
        reply = await self.http.post("/v1/search", json={"query": query, "limit": limit})
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found

    async def texts(self, query: str) -> dict[str, str]:
        """What is found, by document."""
        told: dict[str, str] = {}
        for hit in (await self.search(query))["hits"]:
            told[hit["document_id"]] = told.get(hit["document_id"], "") + hit["text"]
        return told

    async def put(self, document_id: str, content: bytes, filename: str) -> str:
        reply = await self.http.put(
            f"/v1/documents/{document_id}", params={"filename": filename}, content=content
        )
        assert reply.status_code == 202, reply.text
        return str(reply.json()["jobs"][0]["id"])

    async def ended(self, job_id: str) -> str:
        async def job() -> Any:
            reply = await self.http.get(f"/v1/jobs/{job_id}")
            assert reply.status_code == 200, reply.text
            status = reply.json()["status"]
            return None if status in ("queued", "running") else status

        return str(await until(job))

    async def load(self, files: Mapping[str, bytes]) -> None:
        jobs = [await self.put(name, content, name) for name, content in files.items()]
        assert {await self.ended(job) for job in jobs} == {"succeeded"}

    async def index(self, release: Release) -> dict[str, Any]:
        reply = await self.http.get(f"/v1/releases/{release.id}/index")
        assert reply.status_code == 200, reply.text
        status: dict[str, Any] = reply.json()
        return status

    async def built(self, release: Release, *, left: int = 2) -> dict[str, Any]:
        """Wait until no more is left to do: with updates all the time there is always something."""
        reply = await self.http.post(f"/v1/releases/{release.id}/index")
        assert reply.status_code == 202, reply.text

        async def status() -> Any:
            now = await self.index(release)
            return now if now["documents"]["left"] <= left and now["documents"]["done"] else None

        return dict(await until(status))

    async def promoted(self, release: Release, **body: Any) -> httpx.Response:
        return await self.http.post(f"/v1/releases/{release.id}/promote", json=body)


async def until(ask: Callable[[], Awaitable[Any]]) -> Any:
    """What it says when it says anything."""
    async with asyncio.timeout(PATIENCE):
        while not (said := await ask()):
            await asyncio.sleep(0.05)
    return said


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """With a second embedder, of other dimensions, beside the packaged one."""
    models = tmp_path / "models"
    small_model(models / OTHER, find_model("all-MiniLM-L6-v2", None))
    return load_settings(
        {},
        data=tmp_path,
        database_url=database_url,
        redis_url=redis_url,
        embedder_path=models,
        open_access=True,
    )


@pytest.fixture
async def running(settings: Settings) -> AsyncIterator[Running]:
    """On the shipped memory store."""
    async with _running(settings, Replacements(store=MemoryStore())) as running:
        yield running


@pytest.fixture
async def whole(settings: Settings, milvus_uri: str) -> AsyncIterator[Running]:
    """On Milvus Lite."""
    served = settings.model_copy(update={"milvus_uri": milvus_uri})
    async with _running(served, Replacements()) as running:
        yield running


@asynccontextmanager
async def _running(settings: Settings, replacements: Replacements) -> AsyncIterator[Running]:
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(open_services(settings, replacements))
        url = await stack.enter_async_context(serving(services))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=60))
        yield Running(settings, replacements, services, url, http)


@dataclass(slots=True)
class Life:
    """Somebody who searches and somebody who updates, without a pause. `words` is what each document must
    hold after all updates that were acknowledged."""

    service: Running
    searches: int = 0
    words: dict[str, str] = field(default_factory=dict)
    updates: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def search(self) -> None:
        while not self.over.is_set():
            found = await self.service.search(WORDS[self.searches % len(WORDS)], 8)
            assert found["hits"]
            # With every row in reach of every search, an update may overtake all its attempts: that is said.
            assert set(found["degraded"]) <= {"visibility"}
            self.searches += 1

    async def update(self) -> None:
        while not self.over.is_set():
            number = self.updates
            name, word = f"notice-{number % 5}", f"zq{number}x"
            text = f"# Notice\n\nThe word of this notice is {word}. It replaces the one before."
            job = await self.service.put(name, text.encode(), "notice.md")
            assert await self.service.ended(job) == "succeeded"
            self.updates += 1
            self.words[name] = word

    async def more(self, updates: int = 5) -> None:
        """Let it go on for a while."""
        wanted = self.updates + updates

        async def enough() -> bool:
            return self.updates >= wanted

        await until(enough)


@asynccontextmanager
async def living(service: Running) -> AsyncIterator[Life]:
    """Both at work until the block ends; what goes wrong for one of them ends it too."""
    life = Life(service)
    async with asyncio.TaskGroup() as group:
        for work in (life.search, life.update):
            group.create_task(work())
        yield life
        life.over.set()


async def _current(service: Running, life: Life) -> bool:
    """Whether every document shows what its last acknowledged update said, and nothing older."""
    for name, word in life.words.items():
        assert word in (await service.texts(word))[name]
    for word in (f"zq{number}x" for number in range(life.updates)):
        holders = {name for name, text in (await service.texts(word)).items() if word in text.split(" ")}
        assert not holders - {name for name, last in life.words.items() if last == word}
    return True


async def test_searches_and_updates_go_on_while_the_index_is_rebuilt_switched_and_switched_back(
    whole: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(file for file in SAMPLE.rglob("*") if file.is_file())
    sample = {str(file.relative_to(SAMPLE)).replace("/", ":"): file.read_bytes() for file in files}
    async with whole.writing():
        await whole.load(sample)
    first = (await whole.search("leave"))["release"]
    candidate = await whole.candidate(embedder=OTHER, chunk_tokens=64)
    async with whole.writing(), open_services(whole.settings) as elsewhere, living(whole) as life:
        await life.more()
        status = await whole.built(candidate)
        assert status["documents"]["done"] >= len(sample)
        await life.more()

        reply = await whole.promoted(candidate)
        assert reply.status_code == 200, reply.text
        assert (await whole.search("leave"))["release"] == candidate.id
        assert await followed(elsewhere, candidate.id)
        await life.more()

        begun = time.monotonic()
        reply = await whole.http.post("/v1/releases/rollback", json={"reason": "try"})
        assert reply.status_code == 200, reply.text
        assert (await whole.search("leave"))["release"] == first
        seconds = time.monotonic() - begun
        assert await followed(elsewhere, first)
        await life.more()

        reply = await whole.promoted(candidate)
        assert reply.status_code == 200, reply.text
        await life.more()
    assert await _current(whole, life)
    reply = await whole.http.post("/v1/releases/rollback", json={})
    assert reply.status_code == 200, reply.text
    assert await _current(whole, life)
    with capsys.disabled():
        print(f"\n{life.searches} searches, {life.updates} updates, rolled back after {seconds:.2f} s")


async def followed(services: Services, release_id: str) -> bool:
    """Whether another process serves this release now, waiting for it to notice."""

    async def serves() -> bool:
        return services.current().release.id == release_id

    return bool(await until(serves))


async def test_readiness_tells_of_the_models_of_the_release_that_serves_now(settings: Settings) -> None:
    away = settings.model_copy(update={"model_url": f"http://127.0.0.1:{free_port()}/v1"})
    async with _running(away, Replacements(store=MemoryStore())) as service:

        async def told() -> dict[str, str]:
            said = (await service.http.get("/health/ready")).json()
            return {"status": said["status"], **said["parts"]}

        parts = ("ledger", "store", "outputs", "files", "index")
        assert await told() == {"status": "ready", **dict.fromkeys(parts, "up")}
        first = load_release(DEFAULT_RELEASE)
        models = [ModelRef(name="m"), *first.body.models]
        release = replace(first, body=first.body.model_copy(update={"name": "served", "models": models}))
        await service.services.release.add(release)
        await service.services.release.judge(release.id, {}, passed=True)
        reply = await service.promoted(release)
        assert reply.status_code == 200, reply.text
        found = await told()
        assert (found["status"], found["model:m"]) == ("degraded", "down: model_unavailable")

        await service.http.post("/v1/releases/rollback", json={})
        assert (await told())["status"] == "ready"


async def test_a_candidate_that_always_fails_holds_up_nothing_and_says_why(
    running: Running, tmp_path: Path
) -> None:
    """Its embedder is not where the worker looks for it."""
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    async with running.writing(embedder_path=nothing):
        await running.load(NOTES)
        candidate = await running.candidate(embedder=OTHER)
        reply = await running.http.post(f"/v1/releases/{candidate.id}/index")
        assert reply.status_code == 202, reply.text
        async with living(running) as life:
            await life.more(6)

            async def troubled() -> Any:
                return (await running.index(candidate))["trouble"]

            assert OTHER in await until(troubled)
            await life.more(6)
        assert await _current(running, life)
        status = await running.index(candidate)
        assert status["documents"]["done"] == 0
        assert status["documents"]["left"] == status["documents"]["total"] == len(NOTES) + len(life.words)
        reply = await running.promoted(candidate)
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "index_behind")
        assert (await running.http.delete(f"/v1/releases/{candidate.id}/index")).status_code == 200


async def test_a_release_whose_embedder_is_not_here_is_refused(running: Running) -> None:
    candidate = await running.candidate(embedder="absent")
    for reply in (
        await running.http.post(f"/v1/releases/{candidate.id}/index"),
        await running.promoted(candidate),
    ):
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "embedder_unavailable")


async def test_a_release_without_an_index_of_its_own_is_not_promoted(running: Running) -> None:
    async with running.writing():
        await running.load(NOTES)
    candidate = await running.candidate(chunk_tokens=64)
    reply = await running.promoted(candidate)
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "index_missing")
    assert "build-index" in reply.json()["error"]["message"]
    reply = await running.http.get(f"/v1/releases/{candidate.id}/index")
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "index_missing")


async def test_an_index_that_lost_rows_is_not_promoted(running: Running) -> None:
    async with running.writing():
        await running.load(NOTES)
        candidate = await running.candidate(chunk_tokens=64)
        generation = (await running.built(candidate, left=0))["generation"]
    shown = await running.services.visibility.contents(generation, EVERYTHING, 100)
    await running.services.store.remove(generation, [revision for _, revision, _ in shown])
    reply = await running.promoted(candidate)
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "index_unsound")
    assert (await running.search("leave"))["release"] != candidate.id


async def test_an_index_that_lacks_a_document_is_promoted_only_if_that_is_allowed(running: Running) -> None:
    async with running.writing():
        await running.load(NOTES)
    candidate = await running.candidate(chunk_tokens=64)
    await running.http.post(f"/v1/releases/{candidate.id}/index")
    engine = open_engine(running.settings.database_url.get_secret_value())  # type: ignore[union-attr]
    ledger = Ledger(engine)
    (lease,) = await ledger.lease_backfill("w", 30.0, 1)
    await ledger.quarantine(lease.job, JobError(code="damaged", message="It cannot be read."))
    await engine.dispose()
    async with running.writing():

        async def through() -> bool:
            return bool((await running.index(candidate))["documents"]["left"] == 0)

        assert await until(through)
        assert (await running.index(candidate))["failures"] == {"damaged": 1}
    reply = await running.promoted(candidate)
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "index_incomplete")
    reply = await running.promoted(candidate, allow_missing=True)
    assert reply.status_code == 200, reply.text
    found = await running.http.get(f"/v1/documents/{lease.job.document_id}")
    assert (found.status_code, found.json()["visible"]) == (200, False)


async def test_the_command_builds_an_index_and_says_what_it_took(running: Running) -> None:
    async with running.writing():
        await running.load(NOTES)
        candidate = await running.candidate(chunk_tokens=64)
        command = ["release", "build-index", candidate.id, "--url", running.url, "--json"]
        ended = await asyncio.to_thread(CliRunner().invoke, build(), command)
        assert ended.exit_code == 0, ended.output
        told = json.loads(ended.stdout)
        assert told["documents"] == {"total": len(NOTES), "done": len(NOTES), "failed": 0, "left": 0}
        assert told["cost"]["chunks"] > len(NOTES)
        assert told["cost"]["embedding_seconds"] > 0


async def test_a_canary_with_an_index_of_its_own_sees_every_update_and_leaves_nothing_behind(
    running: Running,
) -> None:
    async with running.writing():
        await running.load(NOTES)
        candidate = await running.candidate(chunk_tokens=64)
        refused = await running.http.post(f"/v1/releases/{candidate.id}/canary", json={})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "index_missing")
        await running.built(candidate, left=0)
        started = await running.http.post(f"/v1/releases/{candidate.id}/canary", json={})
        assert started.status_code == 201, started.text
        generation = started.json()["plan"]["generation"]
        assert generation

        await running.load({"leave.md": b"# Notes\n\nLeave is now called zqholiday."})
        reply = await running.http.post(
            "/v1/search", json={"query": "zqholiday", "model": f"plumbline@{candidate.id}"}
        )
        assert reply.json()["release"] == candidate.id
        assert "zqholiday" in reply.json()["hits"][0]["text"]

        stopped = await running.http.post(f"/v1/releases/{candidate.id}/stop", json={"reason": "seen"})
        assert stopped.json()["state"] == "evaluated"
        ledger = Ledger(running.services.release._engine)

        async def gone() -> bool:
            known = {one.id: one.state for one in await ledger.generations()}
            return known.get(generation, "retired") == "retired"

        assert await until(gone)
    assert "zqholiday" in (await running.texts("zqholiday"))["leave.md"]


async def test_an_index_that_two_releases_share_outlives_the_trial_of_one(running: Running) -> None:
    tried = await running.candidate("tried", chunk_tokens=64)
    mirrored = await running.candidate("mirrored", chunk_tokens=64)
    promoted = await running.candidate("promoted", chunk_tokens=64)
    ledger = Ledger(running.services.release._engine)

    async def state(generation: str) -> str:
        return {one.id: one.state for one in await ledger.generations()}.get(generation, "retired")

    async def on_trial(kind: str, release: Release) -> dict[str, Any]:
        started = await running.http.post(f"/v1/releases/{release.id}/{kind}", json={})
        assert started.status_code == 201, started.text
        trial: dict[str, Any] = started.json()
        return trial

    async def stop(release: Release) -> None:
        stopped = await running.http.post(f"/v1/releases/{release.id}/stop", json={})
        assert stopped.status_code == 200, stopped.text

    async with running.writing():
        await running.load(NOTES)
        await running.built(tried, left=0)
        generation = (await on_trial("canary", tried))["plan"]["generation"]
        await on_trial("shadow", mirrored)
        await stop(tried)
        assert await state(generation) == "serving"
        await stop(mirrored)
        assert await state(generation) == "retired"

        async def rebuilt() -> bool:
            reply = await running.http.post(f"/v1/releases/{tried.id}/index")
            return reply.status_code == 202

        await until(rebuilt)
        await running.built(tried, left=0)
        await on_trial("canary", tried)
        assert (await running.promoted(promoted)).status_code == 200
        assert await state(generation) == "serving"
        found = await running.search("All about warranty")
        assert (found["release"], found["degraded"]) == (promoted.id, [])
        assert found["hits"][0]["document_id"] == "warranty.md"
    [trial] = (await running.http.get(f"/v1/releases/{tried.id}/trials")).json()["trials"][1:]
    assert trial["state"] == "stopped"


async def test_a_prefix_of_documents_needs_an_index_of_its_own_and_one_of_questions_none(
    running: Running,
) -> None:
    asked = await running.candidate("asked", query_prefix="query: ")
    read = await running.candidate("read", query_prefix="query: ", document_prefix="passage: ")
    async with running.writing():
        await running.load(NOTES)
        assert (await running.promoted(asked)).status_code == 200
        assert (await running.search("All about warranty"))["hits"][0]["document_id"] == "warranty.md"
        reply = await running.promoted(read)
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "index_missing")
        await running.built(read, left=0)
        assert (await running.promoted(read)).status_code == 200
        found = await running.search("All about warranty")
        assert (found["release"], found["degraded"]) == (read.id, [])
        assert found["hits"][0]["document_id"] == "warranty.md"
        assert not any("passage:" in hit["text"] for hit in found["hits"])
        await running.load({"new.md": b"# New\n\nThe kettle is descaled monthly."})
        assert (await running.search("kettle descaled"))["hits"][0]["document_id"] == "new.md"

    async def embedded(text: str, **said: str) -> tuple[list[float], int]:
        reply = await running.http.post("/v1/embeddings", json={"input": text, **said})
        assert reply.status_code == 200, reply.text
        return reply.json()["data"][0]["embedding"], reply.json()["usage"]["prompt_tokens"]

    plain, tokens = await embedded("kettle")
    for side, prefix in (("query", "query: "), ("document", "passage: ")):
        made, counted = await embedded("kettle", input_type=side)
        spelled, spelled_tokens = await embedded(f"{prefix}kettle")
        assert made == pytest.approx(spelled, abs=1e-3)
        assert made != pytest.approx(plain, abs=1e-3)
        assert counted == spelled_tokens > tokens
    reply = await running.http.post("/v1/embeddings", json={"input": "x", "input_type": "passage"})
    assert reply.status_code == 400
    assert "input_type" in reply.text
