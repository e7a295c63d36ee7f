"""A vector store that lost its data answers as if nothing had been in it: who is answered from it is told so,
until the index was built anew. With the real Milvus Lite, PostgreSQL, Redis, embedder, server and worker."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app import lost
from app.settings import Settings
from app.stores import open_store
from app.wiring import Replacements
from ingestion.parse import PARSER_VERSION
from llm.language import LANGUAGES
from tests.service.http.test_http_generations import NOTES, Running, _running, settings, until

__all__ = ["settings"]
UNSEARCHED = LANGUAGES["en"].unsearched


async def _said(running: Running, question: str) -> dict[str, Any]:
    body = {"model": "plumbline", "messages": [{"role": "user", "content": question}]}
    reply = await running.http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    told: dict[str, Any] = reply.json()
    return {**told["plumbline"], "text": told["choices"][0]["message"]["content"]}


def _declared(told: dict[str, Any]) -> bool:
    """Busy parts may have been too slow besides, which is declared under other names."""
    return "index" in told["degraded"]


async def _summary(running: Running, document: str) -> httpx.Response:
    return await running.http.post("/v1/summarize", json={"document_ids": [document]})


async def _emptied(running: Running) -> None:
    """The store loses the index that serves, and whoever starts next makes it anew."""
    store, serving = open_store(running.settings), running.services.current()
    await store.drop(serving.index.generation)
    spec = serving.release.index_spec(serving.index.embedder.spec, PARSER_VERSION)
    await store.prepare(serving.index.generation, spec)
    await store.close()


async def test_what_is_answered_from_an_index_that_lost_its_rows_says_so_until_it_is_built_anew(
    settings: Settings, milvus_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost, "PERIOD", 0.5)
    settings = settings.model_copy(update={"milvus_uri": milvus_uri})
    async with _running(settings, Replacements()) as running, running.writing():
        await running.load(NOTES)
        before = await _said(running, "All about warranty?")
        assert (_declared(before), before["answered"]) == (False, True)
        await _emptied(running)

        async def known() -> dict[str, Any]:
            found = await running.search("All about warranty")
            return found if _declared(found) else {}

        found = await until(known)
        assert found["hits"] == []
        health = await running.http.get("/health/ready")
        assert (health.status_code, health.json()["parts"]["index"]) == (200, "down: index_incomplete")
        for _ in range(2):  # It is not kept either.
            said = await _said(running, "All about outage?")
            assert (said["text"], _declared(said), said["answered"]) == (UNSEARCHED, True, False)
        reply = await _summary(running, "warranty.md")
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "store_unavailable")

        # What comes in now is found, and does not hide that the rest is not.
        await running.load({"new.md": b"# New\n\nThe kettle is descaled every month."})
        found = await running.search("kettle descaled")
        assert (found["hits"][0]["document_id"], _declared(found)) == ("new.md", True)
        for _ in range(2):
            said = await _said(running, "How often is the kettle descaled?")
            assert "every month" in said["text"]
            assert (_declared(said), said["cached"]) == (True, None)
        assert (await _said(running, "Who painted the roof in Lisbon?"))["text"] == UNSEARCHED
        assert _declared((await _summary(running, "new.md")).json())

        rebuilt = await running.candidate("rebuilt", long_overlap=26)
        await running.built(rebuilt, left=0)
        reply = await running.promoted(rebuilt, force=True, reason="the index was lost")
        assert reply.status_code == 200, reply.text
        found = await running.search("All about warranty")
        assert (found["hits"][0]["document_id"], _declared(found)) == ("warranty.md", False)
        said = await _said(running, "All about outage?")
        assert ("All about outage" in said["text"], _declared(said)) == (True, False)

        async def kept() -> Any:
            return (await _said(running, "All about outage?"))["cached"]

        assert await until(kept)
