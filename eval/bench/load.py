"""Load, and what it measured: one client after the other, or arrivals at a rate that waits for nobody.

An open loop counts a request from the moment at which it should have been sent, so that a service that
stalls cannot hide the requests that it kept from being sent (coordinated omission).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from eval.bench.wire import Connection, Reply

Ask = Callable[[Connection, int], Awaitable[Reply]]
"""Sends request number n over a connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Milliseconds, of requests that were answered with 200; `failed` counts the others."""

    requests: int
    failed: int
    p50: float
    p95: float
    p99: float
    rate: float
    """Answered requests a second."""


def latencies(seconds: Sequence[float], failed: int, elapsed: float) -> Latencies:
    if not seconds:
        return Latencies(requests=0, failed=failed, p50=0.0, p95=0.0, p99=0.0, rate=0.0)
    p50, p95, p99 = (round(float(q) * 1e3, 3) for q in np.percentile(seconds, (50, 95, 99)))
    rate = round(len(seconds) / elapsed, 2)
    return Latencies(requests=len(seconds), failed=failed, p50=p50, p95=p95, p99=p99, rate=rate)


async def one_by_one(connection: Connection, ask: Ask, numbers: range) -> list[Reply]:
    """A closed loop of one client: the next request leaves when the last was answered."""
    return [await ask(connection, n) for n in numbers]


async def at_rate(
    connections: Sequence[Connection], ask: Ask, *, rate: float, requests: int, first: int = 0
) -> list[tuple[float, Reply]]:
    """An open loop: `requests` arrivals, exponentially spaced (a fixed seed), over free connections; each
    with the seconds since it was due."""
    gaps = np.random.default_rng(7).exponential(1 / rate, requests)
    due = time.perf_counter() + 0.05 + np.cumsum(gaps)
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for connection in connections:
        free.put_nowait(connection)

    async def send(n: int) -> tuple[float, Reply]:
        await asyncio.sleep(max(0.0, due[n] - time.perf_counter()))
        connection = await free.get()
        try:
            reply = await ask(connection, first + n)
        finally:
            free.put_nowait(connection)
        return reply.last - float(due[n]), reply

    return list(await asyncio.gather(*(send(n) for n in range(requests))))
