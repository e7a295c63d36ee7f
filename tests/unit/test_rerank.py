"""Rerankers: against a small server that speaks `/v1/rerank` and misbehaves in every way, and the guard."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest

from retrieval.crossencoder import CrossEncoderReranker
from retrieval.errors import RerankerUnavailable
from retrieval.rerank import Guarded, HttpReranker
from retrieval.search import Index, search
from retrieval.types import Found, SearchParams
from tests.unit.ranked_corpus import ACME, corpus_of

TEXTS = ["the pump is blocked", "paid leave", "paid leave of 28 days"]


@dataclass
class Server:
    """Scores a document by the words it shares with the query. What a test sets happens instead."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    status: int = 200
    body: str | None = None
    delay: float = 0.0
    logits: bool = False
    plain: bool = False

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        self.asked.append(body)
        self.keys += [line.split(": ")[1] for line in head.split("\r\n") if line.startswith("authorization")]
        await asyncio.sleep(self.delay)
        reply = (self.body if self.body is not None else json.dumps(self.results(body))).encode()
        head = f"HTTP/1.1 {self.status} X\r\ncontent-length: {len(reply)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + reply)
        await writer.drain()
        writer.close()

    def results(self, body: dict[str, Any]) -> Any:
        words = set(body["query"].split())
        shared = [len(words.intersection(text.split())) / len(words) for text in body["documents"]]
        scores = [10 * score - 5 if self.logits else score for score in shared]
        ranked = sorted(enumerate(scores), key=lambda found: -found[1])
        if self.plain:
            return [{"index": index, "score": score} for index, score in ranked]
        return {"results": [{"index": index, "relevance_score": score} for index, score in ranked]}


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    yield server
    listening.close()
    await listening.wait_closed()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as client:
        yield client


async def test_scores_come_back_in_the_order_of_the_texts(server: Server, client: httpx.AsyncClient) -> None:
    reranker = HttpReranker(server.url, "judge", client, key="secret")
    assert await reranker.rerank("paid leave days", TEXTS, 5) == [0, 2 / 3, 1]
    assert server.asked[0]["model"] == "judge"
    assert server.keys == ["bearer secret"]


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/rerank", "/rerank"])
async def test_the_base_url_and_the_endpoint_both_work(
    path: str, server: Server, client: httpx.AsyncClient
) -> None:
    url = server.url.removesuffix("/v1") + path
    assert len(await HttpReranker(url, "judge", client).rerank("leave", TEXTS, 5)) == 3


async def test_logits_become_scores_between_0_and_1_in_the_same_order(
    server: Server, client: httpx.AsyncClient
) -> None:
    server.logits = True
    scores = await HttpReranker(server.url, "judge", client).rerank("paid leave days", TEXTS, 5)
    assert 0 <= scores[0] < scores[1] < scores[2] <= 1


async def test_the_shape_of_text_embeddings_inference_is_understood(
    server: Server, client: httpx.AsyncClient
) -> None:
    server.plain = True
    assert await HttpReranker(server.url, "judge", client).rerank("paid leave days", TEXTS, 5) == [
        0,
        2 / 3,
        1,
    ]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, "{}"),
        (200, "no JSON"),
        (200, "[]"),
        (200, '{"results": [{"index": 0, "relevance_score": 1}]}'),
        (200, '{"results": [{"index": 0}, {"index": 1}, {"index": 2}]}'),
        (200, '{"results": "all good"}'),
        (200, '[{"index":0,"score":NaN},{"index":1,"score":1},{"index":2,"score":1}]'),
    ],
)
async def test_a_reply_that_does_not_score_every_text_is_a_typed_error(
    status: int, body: str, server: Server, client: httpx.AsyncClient
) -> None:
    server.status, server.body = status, body
    with pytest.raises(RerankerUnavailable):
        await HttpReranker(server.url, "judge", client).rerank("leave", TEXTS, 5)


async def test_a_server_that_is_slow_or_gone_is_a_typed_error(
    server: Server, client: httpx.AsyncClient
) -> None:
    server.delay = 5
    with pytest.raises(RerankerUnavailable):
        await HttpReranker(server.url, "judge", client).rerank("leave", TEXTS, 0.1)
    with pytest.raises(RerankerUnavailable):
        await HttpReranker("http://127.0.0.1:9/v1", "judge", client).rerank("leave", TEXTS, 1)


class Dead:
    """Never answers in time; counts how often it was asked."""

    name = "dead"

    def __init__(self) -> None:
        self.asked = 0

    async def rerank(self, query: str, texts: Sequence[str], seconds: float) -> Sequence[float]:
        self.asked += 1
        await asyncio.sleep(60)
        return []


async def test_a_dead_reranker_costs_one_timeout_and_is_tried_again_later() -> None:
    now = [0.0]
    dead = Dead()
    guarded = Guarded(dead, pause=10, patience=0, clock=lambda: now[0])
    for _ in range(5):
        with pytest.raises(RerankerUnavailable):
            await guarded.rerank("leave", TEXTS, 0.05)
    assert dead.asked == 1
    now[0] = 11
    with pytest.raises(RerankerUnavailable):
        await guarded.rerank("leave", TEXTS, 0.05)
    assert dead.asked == 2


async def test_a_caller_with_little_time_takes_it_away_from_nobody() -> None:
    dead = Dead()
    guarded = Guarded(dead, patience=0.5)
    for _ in range(3):
        with pytest.raises(RerankerUnavailable):
            await guarded.rerank("leave", TEXTS, 0.01)
    assert dead.asked == 3


async def test_a_caller_who_goes_away_takes_it_away_from_nobody() -> None:
    dead = Dead()
    guarded = Guarded(dead, patience=0)
    for _ in range(2):
        task = asyncio.create_task(_ask(guarded))
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert dead.asked == 2


async def _ask(guarded: Guarded) -> None:
    await guarded.rerank("leave", TEXTS, 30)


class Backwards:
    """Likes best what comes last."""

    name = "backwards"

    async def rerank(self, query: str, texts: Sequence[str], seconds: float) -> Sequence[float]:
        return [(number + 1) / len(texts) for number in range(len(texts))]


async def found(index: Index, *, depth: int = 3, seconds: float | None = None) -> Found:
    params = SearchParams(limit=10, candidates=50, dense_weight=0.5, rerank=depth)
    return await search(index, "pump", ACME, params, rerank_seconds=seconds)


async def test_the_best_hits_come_in_the_rerankers_order_and_the_rest_behind_them() -> None:
    index = await corpus_of("pump pump", "pump", "a pump and other things", "other things and a big pump")
    before = [hit.chunk.id for hit in (await found(index)).hits]
    after = await found(replace(index, reranker=Backwards()))
    assert [hit.chunk.id for hit in after.hits] == [*reversed(before[:3]), before[3]]
    scores = [hit.score for hit in after.hits]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert after.degraded == ()


@pytest.mark.parametrize("seconds", [0.0, 0.05])
async def test_without_time_or_a_reply_hits_stay_in_fused_order_and_it_is_said(seconds: float) -> None:
    index = await corpus_of("pump pump", "pump", "a pump and other things")
    dead = Dead()
    after = await found(replace(index, reranker=Guarded(dead)), seconds=seconds)
    assert after.hits == (await found(index)).hits
    assert after.degraded == ("rerank",)
    assert dead.asked == (1 if seconds else 0)


def test_a_cross_encoder_without_its_package_says_what_to_install() -> None:
    try:
        import sentence_transformers  # noqa: F401
    except ImportError:
        with pytest.raises(RerankerUnavailable, match=r"plumbline\[torch\]"):
            CrossEncoderReranker.load("cross-encoder/some")
    else:
        with pytest.raises(RerankerUnavailable):
            CrossEncoderReranker.load("/nowhere/no-such-model")
