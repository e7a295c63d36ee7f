"""The process under measurement: the service as it is, on parts whose time can be told apart from its own.

    python -m eval.bench.stand --port 9000 --passages 200 --store instant --embedder instant --model instant

Fills itself through its own intake and worker, prints one line of JSON (`{"key": ...`) when it is ready, and
serves until it is told to stop. `GET /bench/own` gives the times of the requests since it was asked last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson

from app.main import create_app, listen, run_process
from app.release import DEFAULT_RELEASE, load_release
from app.settings import Settings, load_settings
from app.stores import open_store
from app.wiring import Replacements, Services, open_services, open_worker
from eval.bench import standins
from eval.bench.corpus import COLLECTION, Corpus
from eval.encoders import encoder
from ingestion.types import NewDocument
from llm.types import ChatModel
from retrieval.stores.memory import MemoryStore
from retrieval.types import ServedStore

TENANT = "bench"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Own:
    """ASGI: keeps, for each request, its time and the times of the parts within it."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._seen: list[tuple[standins.Intervals, float]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == "/bench/own":
            told = [_told(intervals, wall) for intervals, wall in self._seen]
            body, self._seen = orjson.dumps(told), []
            await send({"type": "http.response.start", "status": 200, "headers": [_length(body)]})
            await send({"type": "http.response.body", "body": body})
        else:
            intervals = standins.Intervals()
            token = standins.CURRENT.set(intervals)
            begin = time.perf_counter()
            try:
                await self._app(scope, receive, send)
            finally:
                standins.CURRENT.reset(token)
                # Told apart when they are asked for: it would count as the service's processor time.
                self._seen.append((intervals, time.perf_counter() - begin))


def _length(body: bytes) -> tuple[bytes, bytes]:
    return b"content-length", str(len(body)).encode()


def _told(intervals: standins.Intervals, wall: float) -> dict[str, float]:
    kinds = {kind: intervals.of(kind) for kind in ("embedding", "store", "model")}
    return {"wall": wall, "own": wall - intervals.of(*kinds), **kinds}


@asynccontextmanager
async def _standing(
    settings: Settings, options: argparse.Namespace
) -> AsyncIterator[tuple[Services, dict[str, str]]]:
    """The service, filled, and keys for it: for those who ask, and for one who hands more documents in."""
    store: ServedStore = open_store(settings) if options.store == "served" else MemoryStore()
    name = load_release(settings.release or DEFAULT_RELEASE).body.index.embedder
    model: Callable[[str], ChatModel] | None = None
    if options.model == "instant":
        model = _instant
    try:
        async with AsyncExitStack() as stack:
            loaded = await stack.enter_async_context(encoder(name, settings.data.resolve()))
            real = loaded if options.embedder == "real" else None
            embedder = standins.Random(loaded.spec, loaded, real=real)
            replacements = Replacements(
                store=standins.Recorded(store, instant=options.store == "instant"),
                embedder=embedder,
                model=model,
            )
            services = await stack.enter_async_context(open_services(settings, replacements))
            await _fill(services, settings, replacements, options.passages)
            embedder.feeding = False
            keys = services.access.create_key
            _, key = await keys(TENANT, "bench", groups=None, scopes=("read", "write"))
            _, admin = await keys(TENANT, "load", groups=None, scopes=("admin",))
            yield services, {"key": key, "admin": admin}
    finally:
        await store.close()


def _instant(name: str) -> ChatModel:
    return standins.RecordedModel(standins.Instant(name))


async def _fill(services: Services, settings: Settings, replacements: Replacements, passages: int) -> None:
    stop = asyncio.Event()
    async with open_worker(settings, replacements) as work:
        working = asyncio.ensure_future(work(stop))
        try:
            last: list[str] = []
            for batch in Corpus(passages).batches():
                jobs = await services.intake.put(TENANT, [_new(one) for one in batch])
                last += [job.id for job in jobs]
            while last:
                job = await services.intake.job(TENANT, last[-1])
                if job.state in ("queued", "running"):
                    await asyncio.sleep(0.1)
                else:
                    last.pop()
        finally:
            stop.set()
            await working


def _new(document: dict[str, Any]) -> NewDocument:
    return NewDocument(
        id=document["id"],
        title=document["title"],
        collection=COLLECTION,
        content=document["text"].encode(),
        filename=f"{document['id']}.md",
        media_type="text/markdown",
    )


async def main(options: argparse.Namespace) -> None:
    settings = load_settings(port=options.port)
    async with _standing(settings, options) as (services, keys):
        line = json.dumps(keys)
        app = Own(create_app(settings, services))
        await listen(settings, app, ready=lambda: print(line, flush=True))  # noqa: T201  (the parent waits)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The service under measurement.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--passages", type=int, default=200)
    parser.add_argument("--store", choices=("instant", "memory", "served"), default="instant")
    parser.add_argument("--embedder", choices=("instant", "real"), default="instant")
    parser.add_argument("--model", choices=("instant", "served"), default="instant")
    return parser.parse_args()


if __name__ == "__main__":
    run_process(main(_options()), "warning")
