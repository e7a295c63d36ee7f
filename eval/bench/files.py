"""Files that break readers, handed to a whole service while it is searched; then read one by one.

The service tells how each file ends and how long that takes, and what searches notice of it. What a reader
makes of a file, and the memory that it takes, is seen in the same sandbox, with the same limits, afterwards:
the service keeps no text, and a parsing process is gone before anybody could look at it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from app.settings import load_settings
from eval.bench.labels import Labelled, Made, fault, labelled, share_of_words
from eval.bench.load import at_rate, latencies
from eval.bench.wire import Connection, Reply
from eval.cases import load_dataset
from eval.instance import Started, started
from eval.target import FINISHED
from eval.types import InstanceFailed
from ingestion.errors import IngestionError, Quarantined, Refused
from ingestion.sandbox import Reading, Sandbox

SAMPLE = "handbook"
TEXT_SHARE, P99_RATIO = 0.97, 3.0
"""What is wanted: of files with text, and of searches meanwhile against idle ones."""
POLL = 0.05
LONGEST = 600.0
BURST = 5.0
"""Seconds of arrivals that are planned at a time."""
CONNECTIONS = 16

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the service ended a file: `state` is its job's, or `refused` at once."""

    state: str
    reason: str | None
    part: str | None
    seconds: float


async def files(folder: Path, rate: float, seconds: float, say: Say) -> dict[str, Any]:
    """`rate` searches a second, idle for so many `seconds` and then for as long as the files take."""
    found = labelled(folder)
    async with started(None) as one:
        say("handing in the sample")
        await _fill(one)
        say(f"{rate:g} searches a second for {seconds:g} s, idle")
        async with _searching(one, rate) as idle:
            await asyncio.sleep(seconds)
        async with _searching(one, rate) as during:
            ends = await _hand_in(one, found, say)
    readings = await _read(found, say)
    return _told(folder, found, ends, readings, _figures(idle), _figures(during))


async def _fill(one: Started) -> None:
    await one.target.hand_in(load_dataset(SAMPLE).documents)
    async with asyncio.timeout(LONGEST):
        while await one.target.open_jobs():  # noqa: ASYNC110 - it is another process that ends them.
            await asyncio.sleep(POLL)


async def _hand_in(one: Started, found: Sequence[Labelled], say: Say) -> list[Ended]:
    """One after the other, so that what a file takes is its own."""
    ends = []
    async with httpx.AsyncClient(base_url=one.target.url, timeout=120, trust_env=False) as client:
        for number, file in enumerate(found, 1):
            ends.append(await _end(client, file.path))
            say(f"{number}/{len(found)} {file.path.name}: {ends[-1].state} {ends[-1].reason or ''}")
    return ends


async def _end(client: httpx.AsyncClient, path: Path) -> Ended:
    upload = {"files": (path.name, await asyncio.to_thread(path.read_bytes))}
    begun = time.monotonic()
    reply = await client.post("/v1/documents", files=upload)
    told = reply.json()
    if reply.is_client_error:
        return Ended(
            state="refused", reason=told["error"]["code"], part=None, seconds=time.monotonic() - begun
        )
    if reply.is_error:
        raise InstanceFailed(f"The service answered {reply.status_code} to {path.name}: {reply.text[:500]}")
    [job] = told["jobs"]
    while job["status"] not in FINISHED:
        so_far = time.monotonic() - begun
        if so_far > LONGEST:
            return Ended(state=job["status"], reason="unfinished", part=job["stage"], seconds=so_far)
        # As exact as it matters, and not one more load on what is measured.
        await asyncio.sleep(max(POLL, so_far / 50))
        job = (await client.get(f"/v1/jobs/{job['id']}")).raise_for_status().json()
    error = job["error"] if job["status"] != "succeeded" else None
    return Ended(
        state=job["status"],
        reason=error and error["code"],
        part=error and error["part"],
        seconds=time.monotonic() - begun,
    )


@asynccontextmanager
async def _searching(one: Started, rate: float) -> AsyncIterator[list[tuple[float, Reply]]]:
    """Searches arrive until the block ends, whatever becomes of those before; then they are in the list."""
    told: list[tuple[float, Reply]] = []
    bursts: list[asyncio.Task[None]] = []
    over = asyncio.Event()
    questions = [case.question for case in load_dataset(SAMPLE).cases if case.kind == "question"]

    async def ask(connection: Connection, n: int) -> Reply:
        return await connection.post("/v1/search", orjson.dumps({"query": questions[n % len(questions)]}))

    async def burst(number: int) -> None:
        requests = max(1, round(rate * BURST))
        connections = [Connection(one.target.url) for _ in range(CONNECTIONS)]
        try:
            for connection in connections:
                await connection.__aenter__()
            told.extend(
                await at_rate(connections, ask, rate=rate, requests=requests, first=number * requests)
            )
        finally:
            for connection in connections:
                await connection.__aexit__()

    async def arrivals() -> None:
        while not over.is_set():
            bursts.append(asyncio.create_task(burst(len(bursts))))
            try:
                await asyncio.wait_for(over.wait(), BURST)
            except TimeoutError:
                continue

    arriving = asyncio.create_task(arrivals())
    try:
        yield told
        over.set()
        await arriving
        await asyncio.gather(*bursts)
    finally:
        for task in (arriving, *bursts):
            task.cancel()
        await asyncio.gather(arriving, *bursts, return_exceptions=True)


def _figures(told: Sequence[tuple[float, Reply]]) -> dict[str, Any]:
    """With what the first search said that failed, if any did."""
    good = [seconds for seconds, reply in told if reply.status == httpx.codes.OK]
    elapsed = max(reply.last for _, reply in told) - min(reply.sent for _, reply in told)
    figures = asdict(latencies(good, len(told) - len(good), elapsed))
    failed = next((reply for _, reply in told if reply.status != httpx.codes.OK), None)
    said = failed and f"{failed.status}: {failed.body[:300].decode(errors='replace')}"
    return {**figures, "first_failure": said}


async def _read(found: Sequence[Labelled], say: Say) -> list[Reading]:
    settings = load_settings()
    sandbox = Sandbox(timeout=settings.parse_timeout, memory=settings.parse_memory)
    readings = []
    try:
        for number, file in enumerate(found, 1):
            say(f"reading {number}/{len(found)} {file.path.name}")
            readings.append(await sandbox.read(file.path.read_bytes(), file.path.name, None))
    finally:
        await sandbox.close()
    return readings


def made(reading: Reading) -> Made:
    """A reading as a file's label is held against it."""
    outcome = reading.outcome
    if not isinstance(outcome, IngestionError):
        return Made(text=outcome.text, reason=None, seconds=reading.seconds, peak=reading.peak)
    reason = type(outcome).__name__
    if isinstance(outcome, Quarantined):
        reason = outcome.reason
    elif isinstance(outcome, Refused):
        reason = outcome.code
    return Made(text=None, reason=reason, seconds=reading.seconds, peak=reading.peak)


def _told(
    folder: Path,
    found: Sequence[Labelled],
    ends: Sequence[Ended],
    readings: Sequence[Reading],
    idle: Mapping[str, Any],
    during: Mapping[str, Any],
) -> dict[str, Any]:
    rows = [_row(*each) for each in zip(found, ends, readings, strict=True)]
    texts = [row for row in rows if row["expect"] == "text"]
    others = [row for row in rows if row["expect"] != "text"]
    told: dict[str, Any] = {
        "bench": "files",
        "folder": folder.name,
        "text": _share(texts, wanted=TEXT_SHARE),
        "others": _share(others, wanted=1.0),
        "searches": {
            "idle": idle,
            "during": during,
            "p99_ratio": round(during["p99"] / idle["p99"], 2) if idle["p99"] else None,
            "wanted": P99_RATIO,
        },
        "files": rows,
    }
    return {**told, "passed": passed(told)}


def _row(label: Labelled, ended: Ended, reading: Reading) -> dict[str, Any]:
    """The service's end decides; what text and memory that meant is the sandbox's to tell."""
    alone = made(reading)
    text = alone.text if ended.reason is None else None
    both = Made(text=text, reason=ended.reason, seconds=max(ended.seconds, alone.seconds), peak=alone.peak)
    return {
        "file": label.path.name,
        "expect": label.expect,
        "state": ended.state,
        "reason": ended.reason,
        "part": ended.part,
        "seconds": round(ended.seconds, 2),
        "read_seconds": round(alone.seconds, 2),
        "peak_mib": round(alone.peak / 2**20),
        "words": round(share_of_words(label.words, text), 3) if label.expect == "text" else None,
        "fault": fault(label, both),
    }


def _share(rows: Sequence[Mapping[str, Any]], wanted: float) -> dict[str, Any]:
    right = sum(row["fault"] is None for row in rows)
    share = round(right / len(rows), 4) if rows else None
    return {"files": len(rows), "right": right, "share": share, "wanted": wanted}


def passed(told: Mapping[str, Any]) -> bool:
    shares = (told["text"], told["others"])
    searches = told["searches"]
    failed = searches["during"]["failed"]
    unharmed = not failed and (searches["p99_ratio"] or 0.0) < searches["wanted"]
    return unharmed and all(one["share"] is None or one["share"] >= one["wanted"] for one in shares)
