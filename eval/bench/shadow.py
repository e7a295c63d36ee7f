"""What a shadow costs those who ask: the champion's time to the end of an answer, with a shadow and without,
in rounds that take turns, under arrivals that wait for nobody.

Both releases answer by paced models, which only keep time, on two servers; the service is the one that ships,
but for a store in memory. Clients, service and models share the machine. A controller is played by the lease
that is renewed here.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.release import load_release, with_model
from app.settings import load_settings
from app.trials import Trial
from app.wiring import Control, open_control
from eval.bench import bed
from eval.bench.chat import SEARCHING, Say, service
from eval.bench.paced import UNBOUNDED
from eval.bench.streams import Side, Told, at_rate
from eval.bench.wire import Connection
from eval.types import InstanceFailed

TOKENS = 20
PACE = f"first=0.2&rate=24&length={TOKENS}"
"""About a second for an answer."""
USUAL, NEW = f"paced?{PACE}&is=usual", f"paced?{PACE}&is=new"
SETTLED = 1.5
"""Seconds after which every process goes by a new share, and what was mirrored is done."""
LEASE, RENEW = 5.0, 1.0
RESULTS = ("mirrored", "dropped", "stopped", "failed")
_COUNTED = re.compile(rb'^plumbline_shadow_total\{result="(\w+)"\} ([0-9.e+]+)', re.MULTILINE)


@dataclass(slots=True)
class _Switch:
    """The share that the shadow has, kept up by its lease."""

    control: Control
    trial: Trial
    share: float = 0.0

    async def turn(self, share: float) -> None:
        self.share = share
        await self._renew()
        await asyncio.sleep(SETTLED)

    async def keep(self) -> None:
        while True:
            await self._renew()
            await asyncio.sleep(RENEW)

    async def _renew(self) -> None:
        await self.control.trials.renew(self.trial, step=0, share=self.share, evidence={}, seconds=LEASE)


async def shadow(rate: float, seconds: float, rounds: int, say: Say) -> dict[str, Any]:
    """`rounds` of each kind, each with `seconds` of arrivals at `rate` a second."""
    load = os.getloadavg()[0]
    say("starting PostgreSQL, Redis, two models and the service")
    async with bed.made() as one:
        usual, new = await one.paced(UNBOUNDED), await one.paced(UNBOUNDED)
        servers = f"{USUAL}={usual.url}/v1,{NEW}={new.url}/v1"
        asked, running = await service(one, servers, USUAL, TOKENS, *SEARCHING)
        async with _mirroring(one) as switch:
            await at_rate(asked, rate, 3.0)
            told = await _rounds(asked, running, switch, (rate, seconds, rounds), say)
    return {"bench": "shadow", "load_before": round(load, 2), "rate": rate, "seconds": seconds, **told}


async def _rounds(
    asked: Side, running: bed.Running, switch: _Switch, size: tuple[float, float, int], say: Say
) -> dict[str, Any]:
    rate, seconds, rounds = size
    answers: dict[bool, list[Told]] = {False: [], True: []}
    cpu = {False: 0.0, True: 0.0}
    before = await _counts(running)
    told = []
    for turn, mirrored in enumerate(_order(rounds)):
        say(f"shadow: round {turn + 1} of {2 * rounds}, {'on' if mirrored else 'off'}")
        await switch.turn(1.0 if mirrored else 0.0)
        used = running.cpu()
        flow = await at_rate(_numbered(asked, (turn + 1) * 100_000), rate, seconds)
        cpu[mirrored] += running.cpu() - used
        _require_whole(flow.answers)
        answers[mirrored] += flow.answers
        told.append({"shadow": mirrored, **_figures(flow.answers)})
    await switch.turn(0.0)
    after = await _counts(running)
    sides = {name: _figures(answers[on]) for name, on in (("off", False), ("on", True))}
    for name, on in (("off", False), ("on", True)):
        sides[name]["service_cpu_ms"] = round(cpu[on] / len(answers[on]) * 1e3, 2)
    return {
        "rounds": told,
        **sides,
        "ratio_p95": round(sides["on"]["p95_ms"] / sides["off"]["p95_ms"], 4),
        "ratio_first_p95": round(sides["on"]["first_p95_ms"] / sides["off"]["first_p95_ms"], 4),
        "shadow": {name: after[name] - before[name] for name in RESULTS},
    }


def _order(rounds: int) -> Sequence[bool]:
    """Off and on, then on and off, so that neither has the better time of the machine."""
    return [bool((turn + 1) // 2 % 2) for turn in range(2 * rounds)]


def _numbered(asked: Side, first: int) -> Side:
    """Questions that were not asked before."""
    body: Callable[[int], dict[str, Any]] = lambda n: asked.body(first + n)  # noqa: E731
    return Side(asked.url, asked.headers, body)


@asynccontextmanager
async def _mirroring(one: bed.Bed) -> AsyncIterator[_Switch]:
    """A shadow of a release that is the champion but for its model; with no share yet."""
    url = one.environment["DATABASE_URL"]
    settings = load_settings(database_url=url, data=one.folder, release=one.folder / "release.toml")
    async with open_control(settings) as control:
        added = with_model(load_release(one.folder / "release.toml"), NEW)
        await control.registry.add(added)
        trial = await control.trials.start("shadow", added.id, {}, force=True, reason="It is measured.")
        switch = _Switch(control, trial)
        keeping = asyncio.create_task(switch.keep())
        try:
            yield switch
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)


async def _counts(running: bed.Running) -> dict[str, int]:
    """What became of answers that were offered to the shadow, by the service's own count."""
    async with Connection(running.url, running.headers) as connection:
        page = (await connection.get("/metrics")).body
    found = {name.decode(): int(float(value)) for name, value in _COUNTED.findall(page)}
    return {name: found.get(name, 0) for name in RESULTS}


def _require_whole(answers: Sequence[Told]) -> None:
    for one in answers:
        if not one.whole or one.tokens != TOKENS:
            raise InstanceFailed(f"An answer broke off, or something was left out of it: {one.problem}")


def _figures(answers: Sequence[Told]) -> dict[str, float]:
    """Milliseconds from when a question was due."""
    lasts, firsts = [one.last for one in answers], [one.first for one in answers]
    (p50, p95), first = np.percentile(lasts, (50, 95)), np.percentile(firsts, 95)
    return {
        "answers": len(answers),
        "p50_ms": round(float(p50) * 1e3, 2),
        "p95_ms": round(float(p95) * 1e3, 2),
        "first_p95_ms": round(float(first) * 1e3, 2),
    }
