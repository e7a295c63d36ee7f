"""What callers are told while a part is away: what it is, and the request's id; no address, path or driver's
words. The parts are the real ones, at addresses where nothing answers or something else does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from app.access import Access
from app.answers import Answers
from app.assignment import Assigner
from app.chat import Chat
from app.database import connect_args, dsn, open_engine
from app.embedded import free_port
from app.release import Release
from app.search import Search
from app.serving import Serving, Servings
from app.summarize import Summarizer
from app.wiring import PRODUCT, Services
from ingestion.blobs import Blobs
from ingestion.intake import Intake
from ingestion.ledger import Ledger
from ingestion.reads import Reads
from llm.outputs import MemoryOutputs, RedisOutputs
from llm.types import ChatModel
from llm.vllm import Vllm
from retrieval.embedders.http import EmbeddingServer, HttpEmbedder, Known
from retrieval.embedders.openvino import find_model
from retrieval.embedders.prefixed import Prefixed
from retrieval.embedders.tokens import Tokens, open_tokenizer, read_window
from retrieval.stores.milvus import MilvusStore
from retrieval.types import Embedder, Store, Visibility
from tests.replying import Replying, replying
from tests.service.http.house import House, Tenant, serving, tool_call

QUESTION = {"messages": [{"role": "user", "content": "When do owls hunt?"}], "plumbline": {"cache": False}}
TEXTS = {"documents": [{"id": "late", "text": "Owls sleep by day."}]}
INNER = re.compile(
    r"127\.0\.0\.1|localhost|://|/tmp|\.py\b|errno|refused|unreachable|connect|socket|grpc|asyncpg|sqlalchemy|"
    r"aiohttp|httpx|fsspec|not a directory|postgres|milvus|redis|vllm|traceback|10\.9\.8\.7|/srv/",
    re.IGNORECASE,
)


@pytest.fixture
async def owls(tenant: Tenant) -> Tenant:
    await tenant.add({"id": "owls", "text": "Owls hunt at night."})
    return tenant


def told(reply: httpx.Response) -> None:
    """A caller may read all of this reply."""
    own = ("x-request-id", "content-type", "server", "date")
    headers = {name: value for name, value in reply.headers.items() if name not in own}
    for text in (reply.text, *headers.values()):
        assert not (found := INNER.search(text)), f"{reply.request.url.path} tells {found}: {text}"


async def asked(
    client: httpx.AsyncClient, calls: Iterable[tuple[str, str, Any]], status: int, code: str
) -> None:
    for method, path, body in calls:
        reply = await client.request(method, path, json=body)
        assert (path, reply.status_code) == (path, status), reply.text
        error = reply.json()["error"]
        assert error["code"] == code
        assert reply.headers["x-request-id"] in error["message"]
        told(reply)


@asynccontextmanager
async def calling(services: Services, tenant: Tenant) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": tenant.http.headers["authorization"]}
    async with (
        serving(services) as url,
        httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client,
    ):
        yield client


async def without(
    house: House,
    *,
    store: Store | None = None,
    visibility: Visibility | None = None,
    embedder: Embedder | None = None,
    model: ChatModel | None = None,
) -> Services:
    """The service with another store, embedder or model in what serves."""
    services, now = house.services, house.services.current()
    reads, kept = visibility or services.visibility, store or services.store
    index = replace(
        now.index, store=store or now.index.store, embedder=embedder or now.index.embedder, visibility=reads
    )
    other = replace(now, index=index, model=model or now.model)

    async def build(release: Release) -> Serving:
        return other

    champion = services.release.champion
    servings = Servings(lambda: champion().release, build)
    await servings.prepare(champion().release)
    return replace(
        services,
        store=kept,
        visibility=reads,
        current=servings.current,
        search=Search(servings.current),
        chat=Chat(servings.current, reads, Answers(MemoryOutputs(), product=PRODUCT), product=PRODUCT),
        summarizer=Summarizer(servings.current, reads, kept, product=PRODUCT),
        assigner=Assigner(services.release, servings, services.assigner._assignments, services.indexes),
    )


async def test_without_the_ledger(house: House, owls: Tenant, caplog: pytest.LogCaptureFixture) -> None:
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    engine = open_engine(url)
    calls = [
        ("GET", "/v1/documents", None),
        ("GET", "/v1/documents/owls", None),
        ("GET", "/v1/jobs", None),
        ("GET", "/v1/queue", None),
        ("POST", "/v1/documents", TEXTS),
        ("POST", "/v1/erase", {"ids": ["owls"]}),
    ]
    reads = Reads(dsn(url), connect_args())
    blobs = Blobs(str(house.services.settings.data / "blobs"))
    away = replace(
        await without(house, visibility=reads),
        intake=Intake(Ledger(engine), blobs, upload_limit=2**20),
        health=lambda: {"ledger": Ledger(engine).ping},
    )
    async with calling(away, owls) as client:
        await asked(client, [*calls, ("POST", "/v1/search", {"query": "owls"})], 503, "ledger_unavailable")
        for path in ("/health/ready", "/metrics"):
            told(await client.get(path))
    async with calling(replace(house.services, access=Access(engine)), owls) as client:
        answering = ("/v1/chat/completions", "/v1/search", "/v1/summarize")
        await asked(client, [("POST", path, {}) for path in answering], 503, "ledger_unavailable")
        await asked(client, [("GET", "/v1/key", None)], 503, "ledger_unavailable")
    await reads.close()
    await engine.dispose()
    assert "Connect call failed" in caplog.text


async def test_without_the_store(house: House, owls: Tenant, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    store = MilvusStore(f"http://127.0.0.1:{port}", timeout=2)
    services = await without(house, store=store)
    services = replace(services, health=lambda: {"store": store.ping})
    calls = [
        ("POST", "/v1/search", {"query": "owls"}),
        ("POST", "/v1/chat/completions", QUESTION),
        ("POST", "/v1/chat/completions", {**QUESTION, "stream": True}),
        ("POST", "/v1/summarize", {"document_ids": ["owls"], "cache": False}),
    ]
    async with calling(services, owls) as client:
        await asked(client, calls, 503, "store_unavailable")
        message, headers = tool_call("2025-06-18", "search", query="owls")
        reply = await client.post("/mcp", json=message, headers=headers)
        assert "store_unavailable" in reply.text
        told(reply)
        told(await client.get("/health/ready"))
    await store.close()
    assert "Milvus" in caplog.text


async def test_without_the_embedder(house: House, owls: Tenant, caplog: pytest.LogCaptureFixture) -> None:
    url, folder = f"http://127.0.0.1:{free_port()}/v1", find_model("all-MiniLM-L6-v2", None)
    tokens = Tokens(open_tokenizer(folder / "tokenizer.json"), read_window(folder))
    vectors = await house.services.embedder.embed(["one", "two"], None)
    async with httpx.AsyncClient() as pool:
        server = EmbeddingServer(url, "remote", pool, seconds=3.0)
        embedder = Prefixed(
            HttpEmbedder(server, tokens, Known(name="remote", tokenizer="t", vectors=vectors))
        )
        services = await without(house, embedder=embedder)
        calls = [
            ("POST", "/v1/embeddings", {"input": "owls"}),
            ("POST", "/v1/rerank", {"query": "a", "documents": ["b"]}),
        ]
        async with calling(services, owls) as client:
            await asked(client, calls, 503, "embedder_unavailable")
            for path, body in (("/v1/search", {"query": "owls"}), ("/v1/chat/completions", QUESTION)):
                told(await client.post(path, json=body))
    assert "cannot be reached" in caplog.text


SAID = "upstream http://10.9.8.7:8000/v1 said: model not found in /srv/models"


@pytest.mark.parametrize("stream", [False, True])
async def test_with_a_model_server_that_names_what_is_behind_it(
    house: House, owls: Tenant, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    refusing = Replying(lambda path, body: (404, {"error": {"message": SAID}}))
    async with aiohttp.ClientSession() as pool:
        with replying(refusing) as url:
            services = await without(house, model=Vllm(f"{url}/v1", "m", client=pool))
            async with calling(services, owls) as client:
                call = ("POST", "/v1/chat/completions", {**QUESTION, "stream": stream})
                await asked(client, [call], 400, "model_rejected")
    assert SAID in caplog.text


async def test_with_a_model_that_breaks_off(house: House, owls: Tenant) -> None:
    async def broken(reader: Any, writer: Any) -> None:
        await reader.read(65536)
        piece = b'data: {"choices": [{"index": 0, "delta": {"content": "Owls hunt. "}}]}\n\n'
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head + b"%x\r\n%s\r\n" % (len(piece), piece))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(broken, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, aiohttp.ClientSession() as pool:
        services = await without(house, model=Vllm(f"http://127.0.0.1:{port}/v1", "m", client=pool))
        async with calling(services, owls) as client:
            await asked(client, [("POST", "/v1/chat/completions", QUESTION)], 502, "stream_broken")
            reply = await client.post("/v1/chat/completions", json={**QUESTION, "stream": True})
            assert "stream_broken" in reply.text
            told(reply)


async def test_without_a_model(house: House, owls: Tenant) -> None:
    async with aiohttp.ClientSession() as pool:
        model = Vllm(f"http://127.0.0.1:{free_port()}/v1", "m", client=pool)
        services = replace(await without(house, model=model), health=lambda: {"model:m": model.ping})
        async with calling(services, owls) as client:
            for body in (QUESTION, {**QUESTION, "stream": True}):
                told(await client.post("/v1/chat/completions", json=body))
            told(await client.post("/v1/summarize", json={"document_ids": ["owls"], "cache": False}))
            ready = await client.get("/health/ready")
            assert ready.json()["parts"] == {"model:m": "down: model_unavailable"}
            told(ready)


async def test_without_the_files(
    house: House, owls: Tenant, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = house.services.settings.data / "blobs"
    place = tmp_path / "blobs"
    place.write_text("a file where the folder was")
    intake = house.services.intake
    blobs = Blobs(str(place))
    services = replace(
        house.services,
        intake=Intake(intake._ledger, blobs, upload_limit=2**20),
        health=lambda: {"files": blobs.ping},
    )
    async with calling(services, owls) as client:
        calls = [("POST", "/v1/documents", TEXTS), ("GET", "/v1/documents/owls/content", None)]
        await asked(client, calls, 503, "storage_unavailable")
        told(await client.get("/health/ready"))
    assert kept.is_dir()
    assert str(place) in caplog.text


async def test_without_kept_outputs(house: House, owls: Tenant) -> None:
    outputs = RedisOutputs(f"redis://127.0.0.1:{free_port()}/0")
    services = await without(house)
    current = services.current
    chat = Chat(current, services.visibility, Answers(outputs, product=PRODUCT), product=PRODUCT)
    services = replace(services, chat=chat, outputs=outputs, health=lambda: {"outputs": outputs.ping})
    async with calling(services, owls) as client:
        reply = await client.post("/v1/chat/completions", json={"messages": QUESTION["messages"]})
        assert reply.json()["plumbline"]["degraded"] == ["cache"]
        told(reply)
        told(await client.get("/health/ready"))
    await outputs.aclose()
