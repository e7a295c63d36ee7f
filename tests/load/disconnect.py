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

from eval.bench import bed
from llm.vllm import Vllm, new_client
from tests.load.throughput import RELEASE, Target, asked, server, service, service_target, source_options

FLYING = 4
TOKENS = 3_000
PATIENCE = 30.0


async def run(url: str, options: argparse.Namespace) -> dict[str, Any]:
    async with bed.made() as one:
        release = one.folder / "release.toml"
        release.write_text(RELEASE.format(model=options.model, tokens=TOKENS, passages=1))
        target = service_target(await service(one, release, url))
        watched = Vllm(url, options.model)
        try:
            took = [await _trial(target, watched, n) * 1e3 for n in range(options.trials)]
        finally:
            await watched.aclose()
    return {
        "flying": FLYING,
        "gone_after_ms": [round(one, 1) for one in took],
        "p50_ms": round(statistics.median(took), 1),
        "worst_ms": round(max(took), 1),
    }


async def _trial(target: Target, watched: Vllm, number: int) -> float:
    """Seconds from hanging up until vLLM runs one request less."""
    async with new_client() as client:
        bodies = asked(range(number * FLYING, (number + 1) * FLYING))
        replies = [await _begun(client, target, body) for body in bodies]
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


async def _begun(
    client: aiohttp.ClientSession, target: Target, body: dict[str, Any]
) -> aiohttp.ClientResponse:
    """A stream whose first words have come."""
    reply = await client.post(target.url, data=orjson.dumps(body), headers=target.headers)
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
