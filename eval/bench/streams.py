"""Many streamed answers at once: asked together, in turn, or at a rate that waits for nobody.

Each is timed from the moment at which it was due: whatever keeps questions from being asked is in it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson

from eval.bench.wire import Connection, Reply

_TEXT = re.compile(rb'"content": ?"[^"]')
_DONE = b"data: [DONE]"


@dataclass(frozen=True, slots=True)
class Side:
    """Where questions go; `body(n)` is the n-th of them. `url` ends in `/v1`."""

    url: str
    headers: dict[str, str]
    body: Callable[[int], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One answer. `first` and `last` are seconds from when it was due; `tokens` by the model's own count.
    `whole` says that it came to its end, with nothing left out."""

    status: int
    first: float
    last: float
    text: str
    tokens: int
    whole: bool
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Round:
    """Answers, and the seconds from the first question until the last of them had ended."""

    answers: list[Told]
    seconds: float


async def together(side: Side, numbers: range, spread: float) -> Round:
    """All of them, beginning within `spread` seconds."""
    return await _at(side, numbers, [i * spread / len(numbers) for i in range(len(numbers))])


async def at_rate(side: Side, rate: float, seconds: float) -> Round:
    """Arrivals at this rate for so long, exponentially spaced, the same on every run."""
    at = np.cumsum(np.random.default_rng(5).exponential(1 / rate, 10 + int(2 * rate * seconds)))
    times = at[at < seconds].tolist()
    return await _at(side, range(len(times)), times)


async def in_turn(side: Side, numbers: range, flying: int) -> Round:
    """`flying` at a time, the next as soon as one has ended."""
    waiting, replies = [_dumped(side, n) for n in numbers], list[tuple[Reply, float]]()
    begin = time.perf_counter()

    async def work() -> None:
        while waiting:
            replies.append(await _ask(side, waiting.pop(), time.perf_counter()))

    await asyncio.gather(*(work() for _ in range(flying)))
    return _read(replies, begin)


async def _at(side: Side, numbers: range, times: Sequence[float]) -> Round:
    """Each at its time, in seconds from now."""
    bodies = [_dumped(side, n) for n in numbers]
    begin = time.perf_counter()
    asked = (_ask(side, body, begin + at) for body, at in zip(bodies, times, strict=True))
    return _read(await asyncio.gather(*asked), begin)


def _dumped(side: Side, n: int) -> bytes:
    """What is sent, made before it is due."""
    return orjson.dumps({**side.body(n), "stream": True, "stream_options": {"include_usage": True}})


async def _ask(side: Side, body: bytes, due: float) -> tuple[Reply, float]:
    await asyncio.sleep(max(0.0, due - time.perf_counter()))
    async with Connection(side.url, side.headers) as connection:
        return await connection.post(f"{urlsplit(side.url).path}/chat/completions", body), due


def _read(replies: Sequence[tuple[Reply, float]], begin: float) -> Round:
    """Replies are read when all of them are there: earlier it would cost what is measured."""
    return Round([told(*reply) for reply in replies], max(reply.last for reply, _ in replies) - begin)


def told(reply: Reply, due: float) -> Told:
    """What a reply says, whoever wrote it: the service, or the model itself."""
    body = reply.body
    events = [orjson.loads(line[6:]) for line in body.split(b"\n\n") if line.startswith(b"data: {")]
    texts = [choice["delta"].get("content") or "" for event in events for choice in event.get("choices", ())]
    usage: dict[str, int] = next((event["usage"] for event in reversed(events) if event.get("usage")), {})
    degraded = [what for event in events for what in event.get("plumbline", {}).get("degraded", ())]
    whole = reply.status == 200 and _DONE in body and not degraded
    return Told(
        status=reply.status,
        first=_first(reply) - due,
        last=reply.last - due,
        text="".join(texts),
        tokens=usage.get("completion_tokens", 0),
        whole=whole,
        problem="" if whole else f"{reply.status} {degraded or body[-300:].decode(errors='replace')}",
    )


def _first(reply: Reply) -> float:
    """When the first text came: what only opens the stream says nothing yet."""
    seen = b""
    for at, piece in reply.pieces:
        seen += piece
        if _TEXT.search(seen):
            return at
    return reply.last
