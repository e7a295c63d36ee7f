"""How soon vLLM is rid of a request whose caller hung up on the service.

    python -m tests.load.disconnect --url http://127.0.0.1:8000/v1 --model tiny
    python -m tests.load.disconnect --vllm .venv-vllm/bin/python        (starts a tiny model on the CPU)

Four answers are being written; one caller hangs up; then vLLM's own gauge of running requests is looked at
until it is one less. A look takes some milliseconds, which are in the figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from typing import Any

import aiohttp
import orjson
import uvloop

from eval.bench import bed, chat
from eval.bench.streams import Side
from llm.vllm import Vllm, new_client
from tests.load.vllm import server, source_options

FLYING = 4
TOKENS = 3_000
PATIENCE = 30.0


async def run(url: str, options: argparse.Namespace) -> dict[str, Any]:
    async with bed.made() as one:
        service, _ = await chat.service(one, url, options.model, TOKENS)
        watched = Vllm(url, options.model)
        try:
            took = [await _trial(service, watched, n) * 1e3 for n in range(options.trials)]
        finally:
            await watched.aclose()
    return {
        "flying": FLYING,
        "gone_after_ms": [round(one, 1) for one in took],
        "p50_ms": round(statistics.median(took), 1),
        "worst_ms": round(max(took), 1),
    }


async def _trial(service: Side, watched: Vllm, number: int) -> float:
    """Seconds from hanging up until vLLM runs one request less."""
    async with new_client() as client:
        numbers = range(number * FLYING, (number + 1) * FLYING)
        replies = [await _begun(client, service, n) for n in numbers]
        try:
            await _running(watched, FLYING)
            begin = time.perf_counter()
            replies[0].close()
            await _running(watched, FLYING - 1)
            return time.perf_counter() - begin
        finally:
            for reply in replies:
                reply.close()
            await _running(watched, 0)


async def _begun(client: aiohttp.ClientSession, service: Side, n: int) -> aiohttp.ClientResponse:
    """A stream whose first words have come."""
    body = orjson.dumps({**service.body(n), "stream": True})
    headers = {"content-type": "application/json", **service.headers}
    reply = await client.post(f"{service.url}/chat/completions", data=body, headers=headers)
    reply.raise_for_status()
    await reply.content.readany()
    return reply


async def _running(watched: Vllm, count: int) -> None:
    end = time.perf_counter() + PATIENCE
    while (load := await watched.load()) is None or load.running != count:
        if time.perf_counter() > end:
            raise RuntimeError(f"vLLM runs {load} after {PATIENCE} s, not {count}")
        await asyncio.sleep(0.002)


def main() -> None:
    parser = argparse.ArgumentParser(description="How soon a caller who hung up is forgotten.")
    source_options(parser)
    parser.add_argument("--trials", type=int, default=10)
    options = parser.parse_args()
    with server(options) as url:
        print(json.dumps(uvloop.run(run(url, options)), indent=1))


if __name__ == "__main__":
    main()
