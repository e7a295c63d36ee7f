"""What a search costs over many passages, and how much of that is the service's own doing.

One client measures the cost of one search; arrivals at a rate measure what callers see under load, counted
from when each was due. The store's and the embedder's times are told apart from the service's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

import orjson

from eval.bench import bed
from eval.bench.bulk import loading
from eval.bench.corpus import COLLECTION, Corpus
from eval.bench.load import at_rate, latencies, one_by_one
from eval.bench.wire import Connection, Reply
from eval.target import HttpTarget
from eval.types import InstanceFailed, SourceDocument

SEARCH = "/v1/search"
WARM = 50
CONNECTIONS = 16
MORE = 1_000_000


async def search(
    passages: int, store: str, requests: int, rate: float, say: Callable[[str], None], *, load: bool = False
) -> dict[str, Any]:
    """`store` is `served` (Milvus Lite, as `plumbline up` runs it) or `memory`. With `load`, searches arrive
    once more while a worker takes documents in."""
    say(f"starting the service and filling it with {passages} passages")
    async with bed.made(milvus=store == "served") as made:
        options = ("--passages", str(passages), "--store", store, "--embedder", "real")
        service = await made.service(*options)
        ask = _asker(Corpus(passages))
        async with Connection(service.url, service.headers) as connection:
            _check((await one_by_one(connection, ask, range(WARM)))[-1])
            await connection.get("/bench/own")
            say(f"{requests} searches, one at a time")
            before = service.cpu()
            replies = await one_by_one(connection, ask, range(WARM, WARM + requests))
            cpu = round((service.cpu() - before) / requests * 1e3, 3)
            own = orjson.loads((await connection.get("/bench/own")).body)
        say(f"{requests} searches arriving at {rate:g} a second")
        open_loop = {"rate_asked": rate, **await _open(service, ask, requests, rate)}
        during = await _during_load(made, service, store, ask, requests, rate, say) if load else {}
    if during:
        during["p99_ratio"] = round(during["p99"] / open_loop["p99"], 2)
    return {
        "bench": "search",
        "passages": passages,
        "store": store,
        "one_client": {**_figures(replies), "cpu_ms": cpu},
        "median_ms": {key: round(median(one[key] for one in own) * 1e3, 3) for key in own[0]},
        "open_loop": open_loop,
        **({"during_load": during} if during else {}),
    }


async def _during_load(
    made: bed.Bed,
    service: bed.Running,
    store: str,
    ask: Any,
    requests: int,
    rate: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    say("the same while documents go in")
    await made.worker(store)
    async with HttpTarget(service.url, service.admin) as target, loading(target, _more()):
        found = await _open(service, ask, requests, rate)
        if not await target.open_jobs():
            raise InstanceFailed("The load was over before the searches.")
    return found


def _more() -> Iterator[SourceDocument]:
    """Documents that nothing was embedded for so far."""
    for batch in Corpus(MORE).batches():
        for one in batch:
            text = one["text"].replace("## Part", "## Chapter")
            yield SourceDocument(
                id=f"more-{one['id']}", content=text.encode(), title=f"More of {one['title']}"
            )


async def _open(service: bed.Running, ask: Any, requests: int, rate: float) -> dict[str, Any]:
    connections = [Connection(service.url, service.headers) for _ in range(CONNECTIONS)]
    for connection in connections:
        await connection.__aenter__()
    try:
        told = await at_rate(connections, ask, rate=rate, requests=requests, first=1_000_000)
    finally:
        for connection in connections:
            await connection.__aexit__()
    good = [seconds for seconds, reply in told if reply.status == 200]
    elapsed = max(reply.last for _, reply in told) - min(reply.sent for _, reply in told)
    return asdict(latencies(good, len(told) - len(good), elapsed))


def _asker(corpus: Corpus) -> Any:
    async def ask(connection: Connection, n: int) -> Reply:
        return await connection.post(
            SEARCH, orjson.dumps({"query": corpus.question(n), "collection": COLLECTION})
        )

    return ask


def _check(reply: Reply) -> None:
    told = orjson.loads(reply.body)
    if reply.status != 200 or told["degraded"] or not told["hits"]:
        raise InstanceFailed(f"The service answered {reply.status}: {reply.body[:500].decode()}")


def _figures(replies: Sequence[Reply]) -> dict[str, Any]:
    good = [reply.seconds for reply in replies if reply.status == 200]
    elapsed = replies[-1].last - replies[0].sent
    return asdict(latencies(good, len(replies) - len(good), elapsed))
