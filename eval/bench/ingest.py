"""How fast documents go in: the whole path, against embedding the same chunks alone and against a peer.

The same run embeds half of the chunks (of very many, a sample) before the load and half after it, since the
processor's speed drifts.
Then the index is searched while nothing else happens, and while another load goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import psutil

from app.release import DEFAULT_RELEASE, load_release
from eval.bench.bulk import Chunked, Chunks, changed, documents, loading
from eval.bench.load import at_rate, latencies
from eval.bench.peer import Peer
from eval.bench.wire import Connection, Reply
from eval.encoders import encoder
from eval.instance import Started, started
from eval.target import HttpTarget
from eval.types import InstanceFailed, SourceDocument

EMBED_AT_ONCE = 2_048
ALONE = 12_000
"""Chunks that tell how fast the model is alone."""
HANDED_IN_AT_ONCE = 2_000
CONNECTIONS = 16
WARM = 20
ROUNDS = 1_000_000
"""More copies than any measurement takes in."""
MIB = 2**20

Say = Callable[[str], None]


async def ingest(
    folders: Sequence[Path],
    *,
    most: int | None,
    chunks: int | None,
    rate: float,
    seconds: float,
    peer: Peer | None,
    environment: Mapping[str, str],
    say: Say,
) -> dict[str, Any]:
    """`most` documents of each folder; enough changed copies of them for `chunks`. Searches arrive `rate`
    times a second for so many `seconds`."""
    told: dict[str, Any] = {"bench": "ingest"}
    with TemporaryDirectory(prefix="plumbline-bench-") as cache:
        async with encoder(load_release(DEFAULT_RELEASE).body.index.embedder, Path(cache)) as embedder:
            made = Chunks(embedder)
            for folder in folders:
                found = documents(folder)[:most]
                found = list(_enough(found, made, chunks)) if chunks else found
                told[folder.name] = await _one(found, made, rate, seconds, peer, environment, say)
    return told


def _enough(found: Sequence[SourceDocument], made: Chunks, chunks: int) -> list[SourceDocument]:
    """The documents, and as many changed copies as it takes."""
    here = len(made.of(found).texts)
    rounds = -(-chunks // here)
    copies = changed(found, rounds - 1)
    return [*found, *islice(copies, len(found) * chunks // here - len(found))]


async def _one(
    found: Sequence[SourceDocument],
    made: Chunks,
    rate: float,
    seconds: float,
    peer: Peer | None,
    environment: Mapping[str, str],
    say: Say,
) -> dict[str, Any]:
    say(f"chunking {len(found)} documents")
    chunked = await asyncio.to_thread(made.of, found)
    sample = _evenly(chunked.texts, ALONE)
    say(f"embedding {len(sample)} of {len(chunked.texts)} chunks alone, the first half of them")
    alone = await _embed(made, sample[::2])
    async with started(None, environment=environment) as one:
        say("handing the documents in")
        took = await load(one, found, say)
        told = await _figures(one, found, chunked, took)
        if seconds:
            told |= await _searched(one, found, rate, seconds, say)
    say("embedding the other half")
    alone += await _embed(made, sample[1::2])
    told["embedding_alone"] = _alone(made, sample, alone)
    told["ratio"] = round(
        told["whole_path"]["tokens_per_second"] / told["embedding_alone"]["tokens_per_second"], 3
    )
    if peer is not None:
        say("the peer embeds and writes the same chunks")
        told["peer"] = await peer.measure(chunked.texts, made)
        told["times_the_peer"] = round(
            told["whole_path"]["tokens_per_second"] / told["peer"]["tokens_per_second"], 2
        )
    return told


async def load(one: Started, found: Sequence[SourceDocument], say: Say) -> float:
    """Seconds from the first request until every job has ended. Raises `InstanceFailed` unless all
    succeeded."""
    begin = time.perf_counter()
    for start in range(0, len(found), HANDED_IN_AT_ONCE):
        await one.target.hand_in(found[start : start + HANDED_IN_AT_ONCE])
    await one.target.all_ended()
    took = time.perf_counter() - begin
    say(f"{len(found)} documents in {took:.1f} s")
    for status in ("failed", "quarantined", "cancelled"):
        for job in await one.target.ended(status):
            if job["document_id"] in {document.id for document in found}:
                raise InstanceFailed(f"Document {job['document_id']} ended {status}: {job['error']}")
    return took


async def _figures(
    one: Started, found: Sequence[SourceDocument], chunked: Chunked, took: float
) -> dict[str, Any]:
    written = await one.target.chunks()
    return {
        "documents": len(found),
        "chunks": len(chunked.texts),
        "tokens": chunked.tokens,
        "tokens_not_embedded": chunked.missed,
        "chunks_not_found": len(chunked.texts) - sum(written[document.id] for document in found),
        "whole_path": _rates(len(found), chunked, took),
        "peak_mib": {name: peak // MIB for name, peak in peaks(one).items()},
    }


def _evenly(texts: Sequence[str], most: int) -> Sequence[str]:
    """So many at most, from the first to the last of them."""
    return [texts[n * len(texts) // most] for n in range(most)] if len(texts) > most else texts


def _alone(made: Chunks, sample: Sequence[str], seconds: float) -> dict[str, float]:
    tokens = sum(len(made.embedder.token_spans(text)) for text in sample)
    return {
        "chunks": len(sample),
        "seconds": round(seconds, 2),
        "tokens_per_second": round(tokens / seconds),
    }


def _rates(count: int, chunked: Chunked, seconds: float) -> dict[str, float]:
    return {
        "seconds": round(seconds, 2),
        "documents_per_second": round(count / seconds, 1),
        "tokens_per_second": round(chunked.tokens / seconds),
    }


async def _embed(made: Chunks, texts: Sequence[str]) -> float:
    """Seconds that it takes to embed them, and nothing else."""
    await made.embedder.embed(texts[:64])
    begin = time.perf_counter()
    for start in range(0, len(texts), EMBED_AT_ONCE):
        await made.embedder.embed(texts[start : start + EMBED_AT_ONCE])
    return time.perf_counter() - begin


def peaks(one: Started) -> dict[str, int]:
    """The most memory that each of the instance's own processes ever had resident, in bytes."""
    found: dict[str, int] = {}
    for child in psutil.Process(one.pid).children(recursive=True):
        with suppress(psutil.Error, OSError):
            name = _role(child.cmdline())
            if name:
                found[name] = max(found.get(name, 0), _peak(child.pid))
    return found


def _role(command: Sequence[str]) -> str | None:
    words = " ".join(command)
    for part, name in (
        ("app.cli worker", "worker"),
        ("app.cli serve", "api"),
        ("milvus_lite", "milvus"),
        ("sandbox", "parser"),
    ):
        if part in words:
            return name
    return None


def _peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


async def _searched(
    one: Started, found: Sequence[SourceDocument], rate: float, seconds: float, say: Say
) -> dict[str, Any]:
    """Searches while nothing else happens, and while documents like these go in."""
    say(f"{rate:g} searches a second for {seconds:g} s, idle")
    idle = await _search(one.target, found, rate, seconds)
    say(f"{rate:g} searches a second for {seconds:g} s, while documents go in")
    async with loading(one.target, changed(found, ROUNDS)):
        busy = await _search(one.target, found, rate, seconds)
        if not await one.target.open_jobs():
            raise InstanceFailed("The load was over before the searches: hand in more documents.")
    return {
        "search_idle": idle,
        "search_during_load": busy,
        "p99_ratio": round(busy["p99"] / idle["p99"], 2) if idle["p99"] else None,
    }


async def _search(
    target: HttpTarget, found: Sequence[SourceDocument], rate: float, seconds: float
) -> dict[str, Any]:
    """An open loop: a search that waits is counted from when it was due."""
    questions = [_question(document) for document in found]
    connections = [Connection(target.url) for _ in range(CONNECTIONS)]
    for connection in connections:
        await connection.__aenter__()

    async def ask(connection: Connection, n: int) -> Reply:
        body = {"query": f"{questions[n * 7919 % len(questions)]} {n}", "limit": 10}
        return await connection.post("/v1/search", orjson.dumps(body))

    try:
        for n in range(WARM):
            await ask(connections[0], 1_000_000 + n)
        replies = await at_rate(connections, ask, rate=rate, requests=max(20, round(rate * seconds)))
    finally:
        for connection in connections:
            await connection.__aexit__()
    good = [waited for waited, reply in replies if reply.status == 200]
    answers = [orjson.loads(reply.body) for _, reply in replies if reply.status == 200]
    degraded = sum(bool(answer.get("degraded")) for answer in answers)
    elapsed = max(reply.last for _, reply in replies) - min(reply.sent for _, reply in replies)
    return {**asdict(latencies(good, len(replies) - len(good), elapsed)), "degraded": degraded}


def _question(document: SourceDocument) -> str:
    """A title, or the first words."""
    return (document.title or document.content.decode(errors="replace"))[:120]
