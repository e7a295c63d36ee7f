"""The service in front of a paced model: many streams at once, and ten times more load than it can carry.

    python -m tests.load.paced streams                 (200 streams, a token every 50 ms)
    python -m tests.load.paced overload                (arrivals at 1, 2 and 10 times the sustainable rate)

The model is `paced_server` in a process of its own; the service runs as in production but for its store and
embedder, which answer at once. Arrivals wait for nobody (an open loop); each is timed from when it was due.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
import uvloop

from app.embedded import free_port
from eval.bench import bed
from llm.vllm import new_client
from tests.load.throughput import Target, asked

RELEASE = """
name = "paced"
[[models]]
name = "{model}"
[search]
limit = 2
[ladder]
no_rerank = 1.0
smaller = 1.0
extractive = 1.0
search_only = 1.0
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """Seconds from the moment at which it was due. `tokens` is 0 for one that was not answered."""

    status: int
    first: float
    last: float
    tokens: int


async def ask(client: aiohttp.ClientSession, target: Target, body: dict[str, Any], due: float) -> Answer:
    first, tokens = 0.0, 0
    async with client.post(target.url, data=orjson.dumps(body), headers=target.headers) as reply:
        async for piece in reply.content.iter_any():
            if reply.status == 200 and (made := piece.count(b"word")):
                first = first or time.perf_counter() - due
                tokens += made
    return Answer(reply.status, first, time.perf_counter() - due, tokens)


@contextmanager
def model_server(slots: int) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "tests.load.paced_server", "--port", str(port), "--slots", str(slots)]
    process = subprocess.Popen(command)
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(10)


@asynccontextmanager
async def service(url: str, model: str, **environment: str) -> AsyncIterator[Target]:
    async with bed.made() as one:
        release = one.folder / "release.toml"
        release.write_text(RELEASE.format(model=model))
        running = await one.service(
            *("--passages", "200", "--store", "instant", "--embedder", "instant", "--model", "served"),
            PLUMBLINE_RELEASE=str(release),
            PLUMBLINE_MODEL_URL=url,
            **environment,
        )
        headers = {"content-type": "application/json", **running.headers}
        yield Target(f"{running.url}/v1/chat/completions", headers)


async def at_rate(target: Target, bodies: list[dict[str, Any]], rate: float, seconds: float) -> list[Answer]:
    """Arrivals at this rate for so long, exponentially spaced, the same on every run."""
    chance, due, tasks = random.Random(5), time.perf_counter(), list[asyncio.Task[Answer]]()
    end = due + seconds
    async with new_client() as client:
        while (due := due + chance.expovariate(rate)) < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(ask(client, target, bodies[len(tasks) % len(bodies)], due)))
        return list(await asyncio.gather(*tasks))


async def together(target: Target, bodies: list[dict[str, Any]], spread: float) -> tuple[list[Answer], float]:
    """All of them, beginning within `spread` seconds; also how long it took."""
    begin = time.perf_counter()
    async with new_client() as client:

        async def one(n: int, body: dict[str, Any]) -> Answer:
            due = begin + n * spread / len(bodies)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            return await ask(client, target, body, due)

        answers = await asyncio.gather(*(one(n, body) for n, body in enumerate(bodies)))
        return list(answers), time.perf_counter() - begin


async def streams(options: argparse.Namespace) -> dict[str, Any]:
    """Tokens and times to the first token of many streams, straight and through the service."""
    model = f"paced?first=0.2&rate=20&length={options.tokens}"
    rounds = []
    with model_server(1 << 30) as url:
        async with service(url, model, PLUMBLINE_MAX_RUNNING="1024") as target:
            straight = Target(f"{url}/chat/completions", {"content-type": "application/json"})
            for n in range(options.rounds):
                numbers = range(n * 1_000, n * 1_000 + options.streams)
                bare = [{**body, "model": model, "max_tokens": options.tokens} for body in asked(numbers)]
                for body in bare:
                    del body["plumbline"]
                sides = [await together(straight, bare, options.spread)]
                sides.append(await together(target, asked(numbers), options.spread))
                rounds.append(_compared(*sides))
                print(json.dumps(rounds[-1]), flush=True)
    return {"streams": options.streams, "rounds": rounds}


def _compared(bare: tuple[list[Answer], float], served: tuple[list[Answer], float]) -> dict[str, float]:
    rates = [sum(one.tokens for one in answers) / seconds for answers, seconds in (bare, served)]
    firsts = [statistics.median(one.first for one in answers) * 1e3 for answers, _ in (bare, served)]
    return {
        "lost_tokens": sum(one.tokens for one in bare[0]) - sum(one.tokens for one in served[0]),
        "token_rate_ratio": round(rates[1] / rates[0], 4),
        "straight_first_ms": round(firsts[0], 2),
        "service_first_ms": round(firsts[1], 2),
        "added_first_ms": round(firsts[1] - firsts[0], 2),
    }


async def overload(options: argparse.Namespace) -> dict[str, Any]:
    """Goodput, and how fast what is too much is refused, at several times what the model can carry."""
    length = 20
    model = f"paced?first=0.1&rate=20&length={length}"
    sustainable = options.slots / (0.1 + (length - 1) / 20)
    rows = []
    with model_server(options.slots) as url:
        async with service(
            url, model, PLUMBLINE_MAX_RUNNING=str(options.slots * 2), PLUMBLINE_MAX_WAITING=str(options.slots)
        ) as target:
            bodies = asked(range(2_000))
            await at_rate(target, bodies, sustainable / 2, 3)
            for times in (1.0, 2.0, options.times):
                answers = await at_rate(target, bodies, sustainable * times, options.seconds)
                rows.append({"times": times, **_summed(answers, options.seconds, length)})
                print(json.dumps(rows[-1]), flush=True)
    best = max(row["goodput"] for row in rows)
    ratio = round(rows[-1]["goodput"] / best, 4)
    return {"slots": options.slots, "sustainable": round(sustainable, 2), "rows": rows, "of_peak": ratio}


def _summed(answers: list[Answer], seconds: float, length: int) -> dict[str, float]:
    good = [one for one in answers if one.status == 200 and one.tokens == length]
    shed = sorted(one.last for one in answers if one.status in (429, 503))
    took = max(seconds, max((one.last for one in good), default=0.0))
    return {
        "sent": len(answers),
        "good": len(good),
        "shed": len(shed),
        "other": len(answers) - len(good) - len(shed),
        "goodput": round(len(good) / took, 2),
        "good_p50_ms": round(statistics.median(one.last for one in good) * 1e3, 1) if good else 0.0,
        "shed_p50_ms": round(shed[len(shed) // 2] * 1e3, 1) if shed else 0.0,
        "shed_p95_ms": round(shed[int(len(shed) * 0.95)] * 1e3, 1) if shed else 0.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The service in front of a paced model.")
    parser.add_argument("what", choices=("streams", "overload"))
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--spread", type=float, default=10.0, help="Seconds in which the streams begin.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--times", type=float, default=10.0)
    options = parser.parse_args()
    print(json.dumps(uvloop.run((streams if options.what == "streams" else overload)(options)), indent=1))


if __name__ == "__main__":
    main()
