"""How well the service says when documents will be done.

    python -m tests.load.eta [--documents 400] [--seed 1] [--paced] [--json]

Starts a private instance and hands in a mixed load for two tenants: notes, long texts, pages of HTML and PDF
files, of one tenant many more than of the other. With `--paced` the embedder and the reader take their time
asleep, in this process, so that other work on the machine hardly matters. Every second or two it asks for the
estimate of each job that waits or runs, and when all are done it prints what was told over what it took from
then on, by the moment at which it was told. An estimate is good within a factor of two; those told in the
first seconds after the first job was done, and those for less than two seconds, are not judged. Fails unless
nine tenths are good.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Protocol

import httpx
from fpdf import FPDF

from ingestion.types import JobQuery, NewDocument
from tests import live
from tests.load.paced_queue import PacedQueue, database, paced_queue

TENANTS = ("many", "few")

EVERY = 1.5
FIRST_SECONDS = 5.0
SHORTEST = 2.0
FACTOR = 2.0
WANTED = 0.9
MOMENTS = 6


@dataclass(frozen=True, slots=True)
class Told:
    """`eta` seconds were told for a job at `at`, in seconds since 1970."""

    job: str
    state: str
    at: float
    eta: float | None


@dataclass(frozen=True, slots=True)
class Seen:
    """A job as it is shown; `finished` in seconds since 1970."""

    id: str
    state: str
    eta: float | None
    finished: float | None


class Words:
    """Text that occurs nowhere twice, so that nothing of it is at hand."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        letters = "abcdefghijklmnopqrstuvwxyz"
        sizes = (self._dice.randint(3, 9) for _ in range(4_000))
        self._known = ["".join(self._dice.choices(letters, k=size)) for size in sizes]

    def text(self, words: int) -> str:
        sentences = [
            " ".join(self._dice.choices(self._known, k=12)).capitalize() for _ in range(words // 12 + 1)
        ]
        return ". ".join(sentences) + "."

    def between(self, low: int, high: int) -> int:
        return self._dice.randint(low, high)


def _pdf(words: Words, pages: int) -> bytes:
    made = FPDF()
    made.set_font("helvetica", size=11)
    for _ in range(pages):
        made.add_page()
        made.multi_cell(0, 6, words.text(350))
    return bytes(made.output())


def _document(words: Words, n: int) -> tuple[str, bytes]:
    """Of ten, six notes, two long texts, a page of HTML and a PDF."""
    kind = n % 10
    if kind < 6:
        return f"note-{n}.txt", words.text(words.between(40, 250)).encode()
    if kind < 8:
        return f"text-{n}.md", words.text(words.between(300, 3_000)).encode()
    if kind == 8:
        menu = "<nav>" + "<a href='/x'>x</a>" * 200 + "</nav>"
        return f"page-{n}.html", f"<html>{menu}<p>{words.text(400)}</p></html>".encode()
    return f"book-{n}.pdf", _pdf(words, words.between(1, 6))


class Bed(Protocol):
    """Where documents go."""

    async def hand_in(self, tenant: str, documents: Sequence[tuple[str, bytes]]) -> list[str]: ...

    async def look(self, tenant: str, ids: Sequence[str]) -> list[Seen]: ...


class LiveBed:
    """A whole instance, over HTTP, with a key for each tenant."""

    def __init__(self, one: live.Instance, tenants: Sequence[str]) -> None:
        self._clients = {tenant: _client(one, tenant) for tenant in tenants}

    async def hand_in(self, tenant: str, documents: Sequence[tuple[str, bytes]]) -> list[str]:
        jobs: list[str] = []
        for start in range(0, len(documents), 20):
            files = [("files", document) for document in documents[start : start + 20]]
            reply = await self._clients[tenant].post("/v1/documents", files=files)
            jobs += [job["id"] for job in reply.raise_for_status().json()["jobs"]]
        return jobs

    async def look(self, tenant: str, ids: Sequence[str]) -> list[Seen]:
        reply = await self._clients[tenant].post("/v1/jobs/lookup", json={"ids": list(ids)})
        return [
            Seen(job["id"], job["status"], job["eta_seconds"], _time(job["finished_at"]))
            for job in reply.raise_for_status().json()["jobs"]
        ]


class PacedBed:
    def __init__(self, queue: PacedQueue) -> None:
        self._queue = queue

    async def hand_in(self, tenant: str, documents: Sequence[tuple[str, bytes]]) -> list[str]:
        made = [NewDocument(id=name, content=content, filename=name) for name, content in documents]
        return [job.id for job in await self._queue.intake.put(tenant, made)]

    async def look(self, tenant: str, ids: Sequence[str]) -> list[Seen]:
        jobs = await self._queue.intake.jobs(tenant, JobQuery(ids=tuple(ids)), limit=len(ids))
        return [
            Seen(job.id, job.state, job.eta_seconds, job.finished_at.timestamp() if job.finished_at else None)
            for job in jobs
        ]


def _client(one: live.Instance, tenant: str) -> httpx.AsyncClient:
    command = [sys.executable, "-m", "app.cli", "keys", "create", tenant, "--tenant", tenant, "--json"]
    options = ["--scope", "write", "--scope", "admin", "--data", str(one.data)]
    made = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    headers = {"Authorization": f"Bearer {json.loads(made.stdout)['key']}"}
    return httpx.AsyncClient(base_url=one.url, headers=headers, timeout=120)


def _time(given: str | None) -> float | None:
    return None if given is None else datetime.fromisoformat(given).timestamp()


async def measure(bed: Bed, documents: int, seed: int) -> tuple[list[Told], dict[str, float], float]:
    """What was told, when each job was done, and when the load began."""
    words = Words(seed)
    made = [_document(words, n) for n in range(documents)]
    shares = (made[documents // 5 :], made[: documents // 5])
    begun = shown = time.time()
    waiting = {
        tenant: await bed.hand_in(tenant, share) for tenant, share in zip(TENANTS, shares, strict=True)
    }
    told, finish = list[Told](), dict[str, float]()
    while any(waiting.values()):
        for tenant, ids in waiting.items():
            for part in (ids[start : start + 500] for start in range(0, len(ids), 500)):
                at = time.time()
                for job in await bed.look(tenant, part):
                    if job.finished is None:
                        told.append(Told(job.id, job.state, at, job.eta))
                    else:
                        finish[job.id] = job.finished
            waiting[tenant] = [one for one in ids if one not in finish]
        if time.time() - shown > 20:
            shown = time.time()
            print(f"  {shown - begun:.0f} s: {len(finish)} of {documents} done", file=sys.stderr, flush=True)
        await asyncio.sleep(EVERY)
    return told, finish, begun


def judged(told: Sequence[Told], finish: Mapping[str, float]) -> list[tuple[Told, float]]:
    """What was told long enough after the first job was done, with told over took."""
    first = min(finish.values())
    found: list[tuple[Told, float]] = []
    for one in told:
        took = finish[one.job] - one.at
        if one.eta is not None and one.at > first + FIRST_SECONDS and took >= SHORTEST:
            found.append((one, one.eta / took))
    return found


def report(pairs: Sequence[tuple[Told, float]], begun: float) -> list[dict[str, Any]]:
    """The ratios by the moment at which they were told, of jobs that waited and of those that ran."""
    last = max(one.at for one, _ in pairs)
    rows: list[dict[str, Any]] = []
    for state in ("queued", "running"):
        for n in range(MOMENTS):
            low, high = (begun + (last - begun) * edge / MOMENTS for edge in (n, n + 1))
            ratios = [ratio for one, ratio in pairs if one.state == state and low < one.at <= high]
            if len(ratios) >= 2:
                tenths = quantiles(ratios, n=10)
                rows.append(
                    {
                        "told": state,
                        "from": round(low - begun),
                        "to": round(high - begun),
                        "estimates": len(ratios),
                        "p10": round(tenths[0], 2),
                        "p50": round(median(ratios), 2),
                        "p90": round(tenths[-1], 2),
                        "good": round(sum(_good(ratio) for ratio in ratios) / len(ratios), 3),
                    }
                )
    return rows


def _good(ratio: float) -> bool:
    return 1 / FACTOR <= ratio <= FACTOR


def _measured(paced: bool, documents: int, seed: int) -> tuple[list[Told], dict[str, float], float]:
    with tempfile.TemporaryDirectory(prefix="eta-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        if not paced:
            with live.instance(folder, "--no-sample") as one:
                return asyncio.run(measure(LiveBed(one, TENANTS), documents, seed))
        with database(folder) as url:
            return asyncio.run(_paced(url, folder, documents, seed))


async def _paced(
    url: str, folder: Path, documents: int, seed: int
) -> tuple[list[Told], dict[str, float], float]:
    async with paced_queue(url, folder) as queue:
        return await measure(PacedBed(queue), documents, seed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--paced", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    told, finish, begun = _measured(options.paced, options.documents, options.seed)
    pairs = judged(told, finish)
    good = sum(_good(ratio) for _, ratio in pairs) / max(1, len(pairs))
    unknown = sum(one.eta is None for one in told)
    rows = report(pairs, begun) if pairs else []
    if options.json:
        print(json.dumps({"good": good, "judged": len(pairs), "unknown": unknown, "moments": rows}))
    else:
        print("told of    from  to s  estimates   p10   p50   p90  within a factor of two")
        for row in rows:
            print(
                f"{row['told']:<8} {row['from']:>6} {row['to']:>5} {row['estimates']:>10} {row['p10']:>5} "
                f"{row['p50']:>5} {row['p90']:>5} {row['good']:>8.1%}"
            )
        print(
            f"{good:.1%} of {len(pairs)} estimates are within a factor of two; {unknown} times none was given"
        )
    sys.exit(0 if good >= WANTED else 1)


if __name__ == "__main__":
    main()
