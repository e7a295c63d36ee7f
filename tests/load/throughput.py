"""Output tokens a second of vLLM, straight and through the service, in alternating rounds.

    python -m tests.load.throughput --url http://127.0.0.1:8000/v1 --model tiny
    python -m tests.load.throughput --vllm .venv-vllm/bin/python        (starts a tiny model on the CPU)

The service runs as it does in production, but for a memory store, in a process of its own. Both sides send
vLLM the same kind of prompt, made by the service from as many passages, and ask for exactly as many tokens
(`min_tokens`); no question is asked twice, so that neither side finds the other's prefixes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import uvloop

from eval.bench import bed
from eval.bench.bed import Running
from eval.bench.corpus import Corpus
from llm.vllm import new_client
from tests.load.paced_server import PacedServer
from tests.load.paced_server import serving as paced
from tests.vllm_server import make_model
from tests.vllm_server import serving as vllm

PASSAGES = 200
RELEASE = """
name = "throughput"
[[models]]
name = "{model}"
[sampling]
max_tokens = {tokens}
min_tokens = {tokens}
[search]
limit = {passages}
"""


@dataclass(frozen=True, slots=True)
class Target:
    url: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Round:
    """`tokens` a second over the whole round; seconds to the first token at the median."""

    tokens: float
    first: float


async def measure(target: Target, bodies: Sequence[dict[str, Any]], flying: int) -> Round:
    """All bodies, `flying` at a time."""
    waiting, firsts, tokens = list(bodies), list[float](), 0
    begin = time.perf_counter()
    async with new_client() as client:

        async def work() -> int:
            made = 0
            while waiting:
                body, sent, received = waiting.pop(), time.perf_counter(), bytearray()
                async with client.post(target.url, data=orjson.dumps(body), headers=target.headers) as reply:
                    reply.raise_for_status()
                    async for piece in reply.content.iter_any():
                        received += piece
                        if sent and b'"content":"' in piece and b'"content":""' not in piece:
                            firsts.append(time.perf_counter() - sent)
                            sent = 0.0
                made += _tokens(bytes(received))
            return made

        tokens = sum(await asyncio.gather(*(work() for _ in range(flying))))
    return Round(tokens / (time.perf_counter() - begin), statistics.median(firsts))


def _tokens(received: bytes) -> int:
    """What the usage of a finished stream says."""
    events = [event for event in received.split(b"\n\n") if b'"completion_tokens"' in event]
    if not events or b"data: [DONE]" not in received:
        raise RuntimeError(f"a stream broke off: {received[-500:]!r}")
    return int(orjson.loads(events[-1].removeprefix(b"data: "))["usage"]["completion_tokens"])


def asked(numbers: range) -> list[dict[str, Any]]:
    """Questions as a client of the service asks them."""
    corpus = Corpus(PASSAGES)
    return [
        {
            "model": "plumbline",
            "messages": [{"role": "user", "content": corpus.question(n)}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "plumbline": {"cache": False},
        }
        for n in numbers
    ]


async def prompts(one: bed.Bed, release: Path, numbers: range) -> list[dict[str, Any]]:
    """What the service sends a model for these questions."""
    server = PacedServer()
    with paced(server) as url:
        running = await service(one, release, url)
        await measure(service_target(running), asked(numbers), 8)
    return server.requests


async def service(one: bed.Bed, release: Path, url: str) -> Running:
    options = ("--passages", str(PASSAGES), "--store", "memory", "--embedder", "real", "--model", "served")
    return await one.service(
        *options, PLUMBLINE_RELEASE=str(release), PLUMBLINE_MODEL_URL=url, PLUMBLINE_MAX_RUNNING="64"
    )


def service_target(running: Running) -> Target:
    return Target(
        f"{running.url}/v1/chat/completions", {"content-type": "application/json", **running.headers}
    )


@asynccontextmanager
async def sides(
    url: str, model: str, options: argparse.Namespace
) -> AsyncIterator[tuple[Target, Running, list[dict[str, Any]]]]:
    """vLLM, the service in front of it, and prompts for vLLM."""
    async with bed.made() as one:
        release = one.folder / "release.toml"
        release.write_text(RELEASE.format(model=model, tokens=options.tokens, passages=options.passages))
        count = options.requests * options.rounds
        bodies = await prompts(one, release, range(10_000, 10_000 + count))
    async with bed.made() as one:
        release = one.folder / "release.toml"
        release.write_text(RELEASE.format(model=model, tokens=options.tokens, passages=options.passages))
        running = await service(one, release, url)
        straight = Target(f"{url}/chat/completions", {"content-type": "application/json"})
        yield straight, running, bodies


async def run(url: str, model: str, options: argparse.Namespace) -> dict[str, Any]:
    size, flying = options.requests, options.flying
    rounds: list[dict[str, float]] = []
    async with sides(url, model, options) as (straight, running, bodies):
        await measure(straight, bodies[: flying // 2], flying)
        await measure(service_target(running), asked(range(flying // 2)), flying)
        for n in range(options.rounds):
            before = running.cpu()
            served = await measure(
                service_target(running), asked(range(1_000 + n * size, 1_000 + (n + 1) * size)), flying
            )
            cpu = running.cpu() - before
            bare = await measure(straight, bodies[n * size : (n + 1) * size], flying)
            rounds.append(
                {
                    "vllm_tokens_per_second": round(bare.tokens, 1),
                    "service_tokens_per_second": round(served.tokens, 1),
                    "ratio": round(served.tokens / bare.tokens, 4),
                    "service_cpu_us_per_token": round(cpu / (size * options.tokens) * 1e6, 1),
                    "vllm_first_token_ms": round(bare.first * 1e3, 1),
                    "service_first_token_ms": round(served.first * 1e3, 1),
                }
            )
            print(json.dumps(rounds[-1]), flush=True)
    ratio = statistics.median(one["ratio"] for one in rounds)
    return {"rounds": rounds, "ratio": ratio, "flying": flying, "tokens": options.tokens}


@contextmanager
def server(options: argparse.Namespace) -> Iterator[str]:
    if options.url:
        yield options.url
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(options.vllm, folder / "model")
        with vllm(options.vllm, folder / "model", folder) as server:
            yield server.url


def source_options(parser: argparse.ArgumentParser) -> None:
    """Which vLLM."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help="A vLLM that runs; ends in /v1.")
    where.add_argument("--vllm", type=Path, help="Python of an environment with vLLM.")
    parser.add_argument("--model", default="tiny")


def main() -> None:
    parser = argparse.ArgumentParser(description="vLLM, straight and through the service.")
    source_options(parser)
    parser.add_argument("--flying", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--passages", type=int, default=2, help="In each prompt; few, so that tokens count.")
    parser.add_argument("--requests", type=int, default=96, help="In each round, on each side.")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with server(options) as url:
        print(json.dumps(uvloop.run(run(url, options.model, options)), indent=1))


if __name__ == "__main__":
    main()
