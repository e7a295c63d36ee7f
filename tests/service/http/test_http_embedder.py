"""An index by an embedder behind a URL, which is another Plumbline: built, switched to, searched, and
switched back; refused when another model answers there."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app import telemetry
from app.embedders import Embedders
from app.probes import Probes
from app.settings import Settings, load_settings
from app.wiring import Replacements
from retrieval.embedders.openvino import OpenVinoEmbedder, find_model
from retrieval.errors import EmbedderUnavailable
from retrieval.stores.memory import MemoryStore
from tests.embedding_server import EmbeddingServer, embedding_server
from tests.service.http.house import House
from tests.service.http.test_http_generations import NOTES, Running, _running
from tests.unit.test_openvino_embedder import small_model

REMOTE = "plumbline"


def tokenizer_in(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "config.json", "sentence_bert_config.json"):
        shutil.copy(find_model("all-MiniLM-L6-v2", None) / name, folder)
    return folder


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path, house: House) -> Settings:
    tokenizer_in(tmp_path / "models" / REMOTE)
    return load_settings(
        {},
        data=tmp_path,
        database_url=database_url,
        redis_url=redis_url,
        embedder_path=tmp_path / "models",
        embedder_url=f"{house.open_url}/v1",
        open_access=True,
    )


@pytest.fixture
async def running(settings: Settings) -> AsyncIterator[Running]:
    async with _running(settings, Replacements(store=MemoryStore())) as running:
        yield running


async def test_an_index_by_an_embedder_behind_a_url_is_built_switched_to_and_back(running: Running) -> None:
    first = (await running.search("leave"))["release"]
    candidate = await running.candidate(embedder=REMOTE)
    async with running.writing():
        await running.load(NOTES)
        await running.built(candidate, left=0)
        reply = await running.promoted(candidate)
        assert reply.status_code == 200, reply.text
        found = await running.search("All about warranty")
        assert (found["release"], found["degraded"]) == (candidate.id, [])
        assert found["hits"][0]["document_id"] == "warranty.md"
        await running.load({"new.md": b"# New\n\nThe kettle is descaled monthly."})
        assert (await running.search("kettle descaled"))["hits"][0]["document_id"] == "new.md"

        reply = await running.http.post("/v1/releases/rollback", json={"reason": "try"})
        assert reply.status_code == 200, reply.text
        found = await running.search("kettle descaled")
        assert (found["release"], found["degraded"]) == (first, [])
        assert found["hits"][0]["document_id"] == "new.md"


async def test_what_a_model_was_outlives_the_process_and_another_is_refused(
    engine: AsyncEngine, embedder: OpenVinoEmbedder, tmp_path: Path
) -> None:
    small_model(tmp_path / "small", find_model("all-MiniLM-L6-v2", None))
    folder = tokenizer_in(tmp_path / "tokenizer")

    async def spec_by(server: EmbeddingServer) -> object:
        settings = load_settings({}, data=tmp_path, embedder_url=server.url, embedder_path=folder)
        embedders = Embedders(settings, telemetry.tracer(), Probes(engine))
        try:
            return (await embedders.get("remote")).spec
        finally:
            await embedders.aclose()

    async with embedding_server(embedder) as server:
        assert await spec_by(server) == await spec_by(server)
    other = OpenVinoEmbedder.load(tmp_path / "small", tmp_path / "cache")
    async with embedding_server(other) as server:
        with pytest.raises(EmbedderUnavailable, match="remote@2"):
            await spec_by(server)
