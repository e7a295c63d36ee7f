"""What the service costs an answer that is being written: tokens a second and the first token, through the
service and straight, in rounds that take turns; and what it still answers under far too much load.

The model is `paced`, which only keeps time, or one that runs somewhere, as vLLM. The service is the one that
ships, but for a store in memory; in front of the paced model its embedder and store take no time either.
Clients, service and model share the machine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import orjson

from eval.bench import bed
from eval.bench.corpus import Corpus
from eval.bench.paced import UNBOUNDED
from eval.bench.streams import Round, Side, Told, at_rate, in_turn, together
from eval.bench.wire import Connection
from eval.types import InstanceFailed

PASSAGES = 200
FIRST, RATE = 0.2, 20
"""The paced model: seconds to the first token, tokens a second afterwards."""
SLOTS, SHORT = 16, 20
"""Under overload: answers that the model writes at once, and their tokens."""
SUSTAINABLE = SLOTS / (FIRST + (SHORT - 1) / RATE)
"""Answers a second that it can carry then."""
TIMES = (1, 2, 10)
SEARCHING = ("--store", "memory", "--embedder", "real")
ROUND = 3
"""Answers in a round for each that is under way at a time."""
RELEASE = """
name = "chat"
[[models]]
name = {model}
[sampling]
max_tokens = {tokens}
min_tokens = {tokens}
[search]
limit = 2
[ladder]
no_rerank = 1.0
smaller = 1.0
extractive = 1.0
search_only = 1.0
"""
"""Few passages, so that tokens count; and no step is left out under load, so that all answers are alike."""

Say = Callable[[str], None]


async def paced(
    in_flight: int, tokens: int, rounds: int, spread: float, seconds: float, say: Say
) -> dict[str, Any]:
    """`in_flight` answers that begin within `spread` seconds; then, for `seconds` each, arrivals at 1, 2 and
    10 times what the model can carry."""
    load = os.getloadavg()[0]
    streams = await _streams(in_flight, tokens, rounds, spread, say)
    overload = await _overload(seconds, say)
    return {
        "bench": "chat",
        "model": "paced",
        "load_before": round(load, 2),
        "in_flight": in_flight,
        "tokens": tokens,
        "spread_seconds": spread,
        "rounds": {"streams": streams, "overload": overload},
        "streams": _middle(streams),
        "overload": {
            "sustainable": round(SUSTAINABLE, 2),
            "of_peak": round(overload[-1]["goodput"] / max(row["goodput"] for row in overload), 4),
            "shed_p95_ms": overload[-1]["shed_p95_ms"],
        },
    }


async def served(url: str, model: str, in_flight: int, tokens: int, rounds: int, say: Say) -> dict[str, Any]:
    """A model that runs at `url`, which ends in `/v1`; `in_flight` answers under way all the time."""
    load, size = os.getloadavg()[0], in_flight * ROUND
    async with Connection(url):  # One that is not there is told before a service is started for it.
        say("collecting prompts")
    prompts = await _prompts(model, tokens, in_flight + size * rounds)
    told = []
    async with bed.made() as one:
        room = {"PLUMBLINE_MAX_RUNNING": str(2 * in_flight)}
        asked, running = await service(one, url, model, tokens, *SEARCHING, **room)
        straight = Side(url, {}, lambda n: prompts[n])
        for side in (straight, asked):
            _require_whole((await in_turn(side, range(in_flight), in_flight)).answers)
        for turn in range(rounds):
            say(f"chat: round {turn + 1} of {rounds}")
            numbers = range(in_flight + turn * size, in_flight + (turn + 1) * size)
            bare = await in_turn(straight, numbers, in_flight)
            before = running.cpu()
            through = await in_turn(asked, numbers, in_flight)
            told.append(_compared(bare, through, running.cpu() - before))
    return {
        "bench": "chat",
        "model": model,
        "load_before": round(load, 2),
        "in_flight": in_flight,
        "tokens": tokens,
        "rounds": told,
        "streams": _middle(told),
    }


async def _streams(
    in_flight: int, tokens: int, rounds: int, spread: float, say: Say
) -> list[dict[str, float]]:
    model, told = f"paced?first={FIRST}&rate={RATE}&length={tokens}", []
    say("starting PostgreSQL, Redis, the model and the service")
    async with bed.made() as one:
        url = (await one.paced(UNBOUNDED)).url + "/v1"
        asked, running = await service(one, url, model, tokens, PLUMBLINE_MAX_RUNNING="1024")
        question = Corpus(PASSAGES).question
        straight = Side(url, {}, lambda n: {**_question(question(n)), "model": model, "max_tokens": tokens})
        for turn in range(rounds + 1):
            say(f"streams: round {turn} of {rounds}" if turn else "streams: warming up")
            numbers = range(turn * 10_000, turn * 10_000 + in_flight)
            bare = await together(straight, numbers, spread)
            before = running.cpu()
            through = await together(asked, numbers, spread)
            _require_words(through.answers, tokens)
            told.append(_compared(bare, through, running.cpu() - before))
    return told[1:]


async def _overload(seconds: float, say: Say) -> list[dict[str, float]]:
    model, rows = f"paced?first={FIRST}&rate={RATE}&length={SHORT}", []
    bounds = {"PLUMBLINE_MAX_RUNNING": str(2 * SLOTS), "PLUMBLINE_MAX_WAITING": str(SLOTS)}
    async with bed.made() as one:
        url = (await one.paced(SLOTS)).url + "/v1"
        asked, _ = await service(one, url, model, SHORT, **bounds)
        await at_rate(asked, SUSTAINABLE / 2, 3.0)
        for times in TIMES:
            say(f"overload: {times} times what the model can carry")
            rows.append({"times": times, **_summed(await at_rate(asked, SUSTAINABLE * times, seconds))})
    return rows


async def service(
    one: bed.Bed, url: str, model: str, tokens: int, *parts: str, **environment: str
) -> tuple[Side, bed.Running]:
    """The service in front of a model; `parts` are options of `stand` over those that take no time."""
    release = one.folder / "release.toml"
    release.write_text(RELEASE.format(model=json.dumps(model), tokens=tokens))
    running = await one.service(
        *("--passages", str(PASSAGES), "--model", "served", *parts),
        **{"PLUMBLINE_RELEASE": str(release), "PLUMBLINE_MODEL_URL": url, **environment},
    )
    question = Corpus(PASSAGES).question

    def body(n: int) -> dict[str, Any]:
        return {**_question(question(n)), "plumbline": {"cache": False}}

    return Side(f"{running.url}/v1", running.headers, body), running


async def _prompts(model: str, tokens: int, count: int) -> list[dict[str, Any]]:
    """What the service sends a model, from other questions than it will be asked itself: neither side finds
    the other's beginnings in the model's cache."""
    async with bed.made() as one:
        listener = await one.paced(UNBOUNDED)
        asked, _ = await service(one, f"{listener.url}/v1", model, tokens, *SEARCHING)
        await in_turn(asked, range(1_000_000, 1_000_000 + count), 8)
        async with Connection(listener.url) as connection:
            sent: list[dict[str, Any]] = orjson.loads((await connection.get("/requests")).body)
            return sent


def _question(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def _compared(bare: Round, through: Round, cpu: float) -> dict[str, float]:
    """Two rounds of as many answers, and the seconds of processor time of the service in the second."""
    _require_whole([*bare.answers, *through.answers])
    counts = [sum(one.tokens for one in side.answers) for side in (bare, through)]
    rates = [count / side.seconds for count, side in zip(counts, (bare, through), strict=True)]
    firsts = [median(one.first for one in side.answers) * 1e3 for side in (bare, through)]
    return {
        "straight_tokens_per_second": round(rates[0], 1),
        "service_tokens_per_second": round(rates[1], 1),
        "ratio": round(rates[1] / rates[0], 4),
        "straight_first_ms": round(firsts[0], 2),
        "service_first_ms": round(firsts[1], 2),
        "added_first_ms": round(firsts[1] - firsts[0], 2),
        "service_cpu_us_per_token": round(cpu / counts[1] * 1e6, 1),
    }


def _require_whole(answers: Sequence[Told]) -> None:
    for one in answers:
        if not one.whole:
            raise InstanceFailed(f"An answer broke off, or something was left out of it: {one.problem}")


def _require_words(answers: Sequence[Told], tokens: int) -> None:
    """The paced model says a word with each token."""
    for one in answers:
        if len(one.text.split()) != tokens:
            raise InstanceFailed(f"Of an answer of {tokens} words {len(one.text.split())} came.")


def _summed(flood: Round) -> dict[str, float]:
    """`goodput` is of answers that came whole, over all the time until the last of them."""
    answers = flood.answers
    good = [one for one in answers if one.whole and one.tokens == SHORT]
    shed = sorted(one.last for one in answers if one.status in (429, 503))
    return {
        "sent": len(answers),
        "good": len(good),
        "shed": len(shed),
        "other": len(answers) - len(good) - len(shed),
        "goodput": round(len(good) / flood.seconds, 2),
        "good_p50_ms": round(median(one.last for one in good) * 1e3, 1) if good else 0.0,
        "shed_p50_ms": round(median(shed) * 1e3, 1) if shed else 0.0,
        "shed_p95_ms": round(shed[int(len(shed) * 0.95)] * 1e3, 1) if shed else 0.0,
    }


def _middle(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median round, figure by figure."""
    return {key: round(float(median(each[key] for each in rounds)), 4) for key in rounds[0]}
