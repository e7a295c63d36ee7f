"""A server of `POST /v1/embeddings` on a real socket, by any embedder, that misbehaves as a test wants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from retrieval.embedders.http import Known
from retrieval.types import Encoder


@dataclass
class EmbeddingServer:
    """`statuses` are answered first, one a request; `spoil` changes the list of embeddings; `asked` holds the
    texts of each request, `peers` the ports that they came from. More than `most_texts`, or one with more
    characters than `longest`, is refused as Text Embeddings Inference refuses it."""

    embedder: Encoder
    url: str = ""
    statuses: list[int] = field(default_factory=list)
    delay: float = 0.0
    most_texts: int = 1_000_000
    longest: int = 1_000_000
    spoil: Callable[[list[dict[str, Any]]], Any] = lambda data: data
    asked: list[list[str]] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    peers: list[int] = field(default_factory=list)
    running: int = 0
    most: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            status, answer = await self._answer(json.loads(body), scope)
        finally:
            self.running -= 1
        headers = [(b"content-type", b"application/json"), (b"retry-after", b"0")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _answer(self, body: dict[str, Any], scope: Any) -> tuple[int, bytes]:
        self.asked.append(body["input"])
        self.models.append(body["model"])
        self.keys.append(dict(scope["headers"]).get(b"authorization", b"").decode() or None)
        self.peers.append(scope["client"][1])
        await asyncio.sleep(self.delay)
        if len(body["input"]) > self.most_texts or max(map(len, body["input"])) > self.longest:
            return 413, b'{"message": "too much", "type": "Validation"}'
        if self.statuses:
            return self.statuses.pop(0), b"{}"
        vectors = (await self.embedder.embed(body["input"])).tolist()
        data = [{"object": "embedding", "index": i, "embedding": each} for i, each in enumerate(vectors)]
        # Last first: the order is in `index`, and nowhere else.
        answer = {"object": "list", "data": self.spoil(data[::-1]), "model": body["model"]}
        return 200, json.dumps(answer).encode()


@dataclass
class MemoryRecords:
    """What embedders were at first, for a test."""

    known: dict[str, Known] = field(default_factory=dict)

    async def get(self, name: str) -> Known | None:
        return self.known.get(name)

    async def keep(self, known: Known) -> Known:
        return self.known.setdefault(known.name, known)


@asynccontextmanager
async def embedding_server(embedder: Encoder) -> AsyncIterator[EmbeddingServer]:
    found = EmbeddingServer(embedder)
    config = uvicorn.Config(found, port=0, log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    # Signals stay the test runner's.
    task = asyncio.create_task(server._serve())
    while not server.started and not task.done():
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    found.url = f"http://127.0.0.1:{port}/v1"
    yield found
    server.should_exit = True
    await task
