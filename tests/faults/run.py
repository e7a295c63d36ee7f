"""Kills processes of a whole instance at random moments while clients write and search, and judges what they
saw.

    python -m tests.faults.run --kills 100 [--seed N] [--minutes 20] [--out FOLDER] [--parts milvus,api]

The instance is `plumbline up` with PostgreSQL, Redis, Milvus Lite, the API and two workers; its supervisor
starts again what was killed. The history of every operation is kept as FOLDER/history.jsonl.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil

from app import instance as instances
from app.database import connect_args, dsn
from tests import live
from tests.faults import history
from tests.faults.history import Accepted, Event, Finished, Flaw, History, Look, Read, Shown, Write, judge
from tests.live import Instance

PARTS = ("worker-1", "worker-2", "api", "redis", "postgres", "milvus")
LEASE = "2"
DOCUMENTS = 24
CLIENTS = 4
WORD = "plumb"
PATIENCE = 240.0
LONGEST_PAUSE = 7.0
OPEN = ("queued", "running")
_MARK = re.compile(r"(d\d+v\d+)p(\d+)")
_FILLER = "The keeper wrote another line of the log and went to look at the lamps of the tower again. "


@dataclass(slots=True)
class Clients:
    """Several clients of one instance; what each did and saw is noted with the times of one clock."""

    url: str
    dice: random.Random
    events: list[Event] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    told: Counter[str] = field(default_factory=Counter)
    numbers: count[int] = field(default_factory=lambda: count(1))

    async def work(self, stop: asyncio.Event) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=15) as client:
            while not stop.is_set():
                document = f"d{self.dice.randrange(DOCUMENTS)}"
                drawn = self.dice.random()
                if drawn < 0.4:
                    await self._put(client, document)
                elif drawn < 0.5:
                    await self._delete(client, document)
                elif drawn < 0.9:
                    await self.look(client, self.dice.sample(range(DOCUMENTS), 3))
                else:
                    await self._read(client, document)
                await asyncio.sleep(self.dice.uniform(0.0, 0.4))

    async def _put(self, client: httpx.AsyncClient, document: str) -> None:
        content = f"{document}v{next(self.numbers)}"
        self.sizes[content] = self.dice.randint(1, 4)
        parts = (f"{WORD} {content}p{n}. {_FILLER * 9}" for n in range(self.sizes[content]))
        text = "\n\n".join(parts)
        self.hashes[hashlib.sha256(text.encode()).hexdigest()] = content
        key = f"key-{content}" if self.dice.random() < 0.6 else None
        body = {"documents": [{"id": document, "title": document, "text": text}]}
        headers = {"Idempotency-Key": key} if key else {}
        for _ in range(4):
            began = time.monotonic()
            reply = await self._ask(client, "POST", "/v1/documents", json=body, headers=headers)
            if reply is not None and 400 <= reply.status_code < 500:
                self.told[f"put refused: {reply.status_code}"] += 1
                return  # Nothing was accepted.
            job = reply.json()["jobs"][0] if reply is not None and reply.status_code == 202 else None
            self.events.append(
                Write(
                    document=document,
                    content=content,
                    began=began,
                    ended=time.monotonic() if job else None,
                    version=job["version"] if job else None,
                    key=key,
                )
            )
            self.told["put acknowledged" if job else "put of unknown outcome"] += 1
            if job and self.dice.random() < 0.5:
                await self._follow(client, job["id"])
            if key is None or (job and self.dice.random() < 0.8):
                return
            self.told["put again under its key"] += 1
            await asyncio.sleep(self.dice.uniform(0.0, 2.0))

    async def _follow(self, client: httpx.AsyncClient, job_id: str) -> None:
        for _ in range(20):
            await asyncio.sleep(0.5)
            reply = await self._ask(client, "GET", f"/v1/jobs/{job_id}")
            if reply is None or reply.status_code != 200:
                continue
            job = reply.json()
            if job["status"] == "succeeded":
                now = time.monotonic()
                self.events.append(Finished(document=job["document_id"], version=job["version"], seen=now))
                self.told["job seen to succeed"] += 1
                await self.look(client, [int(job["document_id"][1:])])
            if job["status"] not in OPEN:
                return

    async def _delete(self, client: httpx.AsyncClient, document: str) -> None:
        began = time.monotonic()
        reply = await self._ask(client, "DELETE", f"/v1/documents/{document}")
        if reply is not None and 400 <= reply.status_code < 500:
            return
        done = reply is not None and reply.status_code == 200
        ended = time.monotonic() if done else None
        self.events.append(Write(document=document, content=None, began=began, ended=ended))
        self.told["deletion acknowledged" if done else "deletion of unknown outcome"] += 1
        if done:
            await self.look(client, [int(document[1:])])

    async def look(self, client: httpx.AsyncClient, numbers: Sequence[int], settled: bool = False) -> bool:
        documents = [f"d{number}" for number in numbers]
        began = time.monotonic()
        body = {"query": WORD, "limit": 100, "document_ids": documents}
        reply = await self._ask(client, "POST", "/v1/search", json=body)
        if reply is None or reply.status_code != 200:
            self.told["search without an answer"] += 1
            return False
        found = reply.json()
        self.events.append(
            Look(
                documents=frozenset(documents),
                shown=_shown(found["hits"]),
                began=began,
                ended=time.monotonic(),
                whole=not found["degraded"],
                settled=settled,
            )
        )
        self.told["search degraded, and saying so" if found["degraded"] else "search"] += 1
        return not found["degraded"]

    async def _read(self, client: httpx.AsyncClient, document: str) -> None:
        began = time.monotonic()
        reply = await self._ask(client, "GET", f"/v1/documents/{document}")
        if reply is None or reply.status_code not in (200, 404):
            return
        version = reply.json()["version"] if reply.status_code == 200 else None
        ended = time.monotonic()
        self.events.append(Read(document=document, version=version, began=began, ended=ended))
        self.told["read"] += 1

    async def _ask(
        self, client: httpx.AsyncClient, method: str, path: str, **more: Any
    ) -> httpx.Response | None:
        """The answer, None where none came."""
        try:
            return await client.request(method, path, **more)
        except httpx.HTTPError:
            return None

    async def settle(self) -> None:
        """Wait until all work is over, then look at every document once more."""
        deadline = time.monotonic() + PATIENCE
        async with httpx.AsyncClient(base_url=self.url, timeout=30) as client:
            while await self._open(client):
                if time.monotonic() > deadline:
                    raise RuntimeError("jobs are still open after the last kill")
                await asyncio.sleep(0.5)
            for number in range(DOCUMENTS):
                while not await self.look(client, [number], settled=True):
                    if time.monotonic() > deadline:
                        raise RuntimeError("searches are still degraded after the last kill")
                    await asyncio.sleep(0.5)

    async def _open(self, client: httpx.AsyncClient) -> bool:
        for state in OPEN:
            reply = await self._ask(client, "GET", "/v1/jobs", params={"status": state, "limit": 1})
            if reply is None or reply.status_code != 200 or reply.json()["jobs"]:
                return True
        return False


def _shown(hits: Sequence[dict[str, Any]]) -> dict[str, Shown]:
    revisions: dict[str, set[int]] = {}
    parts: dict[str, dict[str, set[int]]] = {}
    for hit in hits:
        document = hit["document_id"]
        revisions.setdefault(document, set()).add(int(hit["chunk_id"].split("-")[0]))
        for content, part in _MARK.findall(hit["text"]):
            parts.setdefault(document, {}).setdefault(content, set()).add(int(part))
    return {
        document: Shown(
            revisions=frozenset(numbers),
            parts={content: frozenset(found) for content, found in parts.get(document, {}).items()},
        )
        for document, numbers in revisions.items()
    }


@dataclass(slots=True)
class Killer:
    """Ends processes of an instance without warning: a part's own or one of its children, every one to
    `pause` seconds."""

    one: Instance
    dice: random.Random
    parts: Sequence[str]
    pause: float
    killed: Counter[str] = field(default_factory=Counter)

    async def work(self, kills: int, until: float) -> None:
        while self.killed.total() < kills and time.monotonic() < until:
            await asyncio.sleep(self.dice.uniform(1.0, self.pause))
            name = self.dice.choice(self.parts)
            if self._kill(name):
                self.killed[name] += 1

    def _kill(self, name: str) -> bool:
        """Whether there was one to kill."""
        known = instances.running(self.one.data)
        if known is None or name not in known.processes:
            return False
        pid, started = known.processes[name]
        try:
            process = psutil.Process(pid)
            if abs(process.create_time() - started) > 1 or process.status() == psutil.STATUS_ZOMBIE:
                return False
            children = process.children(recursive=True)
            chosen = self.dice.choice(children) if children and self.dice.random() < 0.25 else process
            os.kill(chosen.pid, signal.SIGKILL)
        except (psutil.Error, ProcessLookupError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class _Ledger:
    """What the ledger holds in the end: every version, and how many jobs ended how."""

    accepted: list[Accepted]
    jobs: Counter[str]

    @classmethod
    async def of(cls, one: Instance, hashes: dict[str, str]) -> _Ledger:
        known = instances.running(one.data)
        assert known is not None
        connection = await asyncpg.connect(dsn(known.database_url), **connect_args())
        try:
            versions = await connection.fetch("SELECT * FROM versions ORDER BY version")
            jobs = await connection.fetch("SELECT state, error ->> 'code' AS code FROM jobs")
        finally:
            await connection.close()
        accepted = [
            Accepted(
                document=row["document_id"],
                version=row["version"],
                content=None if row["deleted"] else hashes.get(row["content_hash"], "unknown"),
            )
            for row in versions
        ]
        return cls(accepted, Counter(" ".join(filter(None, (row["state"], row["code"]))) for row in jobs))


@dataclass(frozen=True, slots=True)
class Result:
    killed: Counter[str]
    told: Counter[str]
    jobs: Counter[str]
    history: History
    flaws: list[Flaw]
    seconds: float


async def play(
    one: Instance,
    kills: int,
    seed: int,
    minutes: float,
    parts: Sequence[str] = PARTS,
    pause: float = LONGEST_PAUSE,
) -> Result:
    """Let clients work while processes of a running instance are killed, and judge what they saw."""
    begin = time.monotonic()
    dice = random.Random(seed)
    clients, killer, stop = Clients(one.url, dice), Killer(one, dice, parts, pause), asyncio.Event()
    working = [asyncio.create_task(clients.work(stop)) for _ in range(CLIENTS)]
    try:
        await killer.work(kills, begin + 60 * minutes)
    finally:
        stop.set()
        await asyncio.gather(*working)
    await asyncio.to_thread(live.wait_ready, one, PATIENCE)
    await clients.settle()
    ledger = await _Ledger.of(one, clients.hashes)
    found = History(events=[*clients.events, *ledger.accepted], sizes=clients.sizes, audited=True)
    seconds = time.monotonic() - begin
    return Result(killer.killed, clients.told, ledger.jobs, found, judge(found), seconds)


def environment() -> dict[str, str]:
    """Two workers, and a short lease, so that what a killed one held is soon taken up again."""
    return {"PLUMBLINE_LEASE": LEASE, "PLUMBLINE_WORKERS": "2"}


def report(result: Result, seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "seconds": round(result.seconds, 1),
        "kills": dict(sorted(result.killed.items())),
        "killed": result.killed.total(),
        "operations": dict(sorted(result.told.items())),
        "jobs": dict(sorted(result.jobs.items())),
        "versions": sum(isinstance(event, Accepted) for event in result.history.events),
        "flaws": [{"rule": flaw.rule, "document": flaw.document, "told": flaw.told} for flaw in result.flaws],
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--kills", type=int, default=100)
    arguments.add_argument("--seed", type=int, default=None)
    arguments.add_argument("--minutes", type=float, default=20.0, help="stop killing after so many")
    arguments.add_argument("--out", type=Path, default=None, help="keep the history and the logs here")
    arguments.add_argument("--parts", default=",".join(PARTS), help="which are killed")
    options = arguments.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="plumbline-faults-"))
    folder.chmod(0o711)
    out = options.out or Path(tempfile.mkdtemp(prefix="plumbline-history-"))
    out.mkdir(parents=True, exist_ok=True)
    try:
        with live.instance(folder, "--no-sample", environment=environment()) as one:
            result = asyncio.run(play(one, options.kills, seed, options.minutes, options.parts.split(",")))
        history.write(result.history, out / "history.jsonl")
    finally:
        with suppress(OSError):
            shutil.copy(folder / "up.log", out / "up.log")
            shutil.copytree(folder / "data" / "logs", out / "logs", dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({**report(result, seed), "history": str(out / "history.jsonl")}, indent=2))
    raise SystemExit(1 if result.flaws or result.killed.total() < options.kills else 0)


if __name__ == "__main__":
    main()
