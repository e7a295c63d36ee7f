"""What the service adds to a question: every step of the path, on a store and a model that take no time.

`hop` asks something new every time, so that both caches are looked at and missed; `cache` asks the same thing
again. The floor is the bare web server that sends as many bytes. Both take turns, in rounds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import orjson

from eval.bench import bed
from eval.bench.corpus import COLLECTION, Corpus
from eval.bench.load import Ask, latencies, one_by_one
from eval.bench.wire import Connection, Reply
from eval.types import InstanceFailed

CHAT = "/v1/chat/completions"
PASSAGES = 500
WARM = 200


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that take turns."""

    name: str
    running: bed.Running
    connection: Connection
    ask: Ask


async def hop(requests: int, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """New questions, one client."""
    corpus = Corpus(10)
    return await _compare("hop", requests, rounds, say, corpus.question)


async def cache(requests: int, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """One question that was answered before, one client."""
    return await _compare("cache", requests, rounds, say, lambda n: "What is in the first document?")


async def _compare(
    name: str, requests: int, rounds: int, say: Callable[[str], None], question: Callable[[int], str]
) -> dict[str, Any]:
    say("starting PostgreSQL, Redis and the service")
    async with bed.made() as made:
        floor = await made.floor()
        service = await made.service("--passages", str(PASSAGES), OTEL_EXPORTER_OTLP_ENDPOINT=floor.url)
        async with Connection(service.url, service.headers) as asked:
            ask = _asker(question)
            warm = await one_by_one(asked, ask, range(WARM))
            _check(warm[-1], cached=name == "cache")
            send = _sender(len(warm[-1].body), question)
            async with Connection(floor.url) as bare:
                await one_by_one(bare, send, range(WARM))
                sides = (Side("floor", floor, bare, send), Side("service", service, asked, ask))
                return await _rounds(name, sides, requests, rounds, say)


async def _rounds(
    name: str, sides: Sequence[Side], requests: int, rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    told: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
    stages: dict[str, list[float]] = defaultdict(list)
    service = sides[-1]
    await service.connection.get("/bench/own")
    for turn in range(rounds):
        say(f"{name}: round {turn + 1} of {rounds}")
        for side in sides:
            first = WARM + turn * requests
            before = side.running.cpu()
            replies = await one_by_one(side.connection, side.ask, range(first, first + requests))
            used = (side.running.cpu() - before) / requests * 1e3
            told[side.name].append({**_figures(replies), "cpu_ms": round(used, 3)})
            if side is service:
                _add_stages(stages, replies)
    own = orjson.loads((await service.connection.get("/bench/own")).body)
    return {
        "bench": name,
        "requests_a_round": requests,
        "rounds": told,
        **{side.name: _middle(told[side.name]) for side in sides},
        "times_the_floor": _times(told[service.name], told[sides[0].name]),
        "inside_ms": _inside(own),
        "stages_ms": {stage: _ms(seconds) for stage, seconds in stages.items()},
    }


def _sender(size: int, question: Callable[[int], str]) -> Ask:
    """What costs the floor as many bytes, in and out, as the question costs the service."""

    async def send(connection: Connection, n: int) -> Reply:
        return await connection.post(f"/{size}", orjson.dumps(_body(question(n))))

    return send


def _asker(question: Callable[[int], str]) -> Ask:
    async def ask(connection: Connection, n: int) -> Reply:
        return await connection.post(CHAT, orjson.dumps(_body(question(n))))

    return ask


def _body(question: str) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": question}],
        "plumbline": {"collection": COLLECTION},
    }


def _check(reply: Reply, *, cached: bool) -> None:
    """The path that is measured must be the whole one: an answer with a source, nothing left out."""
    if reply.status != 200:
        raise InstanceFailed(f"The service answered {reply.status}: {reply.body[:500].decode()}")
    told = orjson.loads(reply.body)["plumbline"]
    if told["degraded"] or not told["citations"] or (told["cached"] == "answer") is not cached:
        raise InstanceFailed(f"The service did not go the whole path: {told}"[:500])


def _add_stages(stages: dict[str, list[float]], replies: Sequence[Reply]) -> None:
    for reply in replies:
        for stage, seconds in orjson.loads(reply.body)["plumbline"]["stages"].items():
            stages[stage].append(seconds)


def _figures(replies: Sequence[Reply]) -> dict[str, Any]:
    good = [reply for reply in replies if reply.status == 200]
    elapsed = replies[-1].last - replies[0].sent
    return asdict(latencies([reply.seconds for reply in good], len(replies) - len(good), elapsed))


def _middle(rounds: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The median round, figure by figure."""
    return {key: round(float(median(each[key] for each in rounds)), 3) for key in rounds[0]}


def _times(rounds: Sequence[dict[str, Any]], floor: Sequence[dict[str, Any]]) -> float:
    """How many times as long as the floor in the same round the service takes: on a machine whose speed
    changes this changes least."""
    times = median(float(one["p50"] / bare["p50"]) for one, bare in zip(rounds, floor, strict=True))
    return round(times, 1)


def _inside(own: Sequence[dict[str, float]]) -> dict[str, float]:
    """Medians of what the process itself saw, with the requests for these figures left out."""
    return {key: _ms([one[key] for one in own]) for key in (own[0] if own else ())}


def _ms(seconds: Sequence[float]) -> float:
    return round(median(seconds) * 1e3, 3)
