"""Whether the product loses or doubles a document when its worker is killed again and again.

    python -m tests.load.ingest ../shared/data/scifact --kills 10

Starts a private instance, hands the corpus in through `POST /v1/documents`, and kills the worker with SIGKILL
at random moments; afterwards every document must be found, in one revision. How fast documents go in is
measured by `plumbline bench ingest`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests import live

BATCH = 500


def _client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=120)


def read_corpus(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]


def ingest(
    client: httpx.Client, process: subprocess.Popen[bytes], corpus: list[dict[str, Any]], kills: int
) -> float:
    """Seconds from the first request until every job has ended."""
    begin = time.perf_counter()
    for start in range(0, len(corpus), BATCH):
        documents = [
            {"id": d["_id"], "title": d["title"], "text": d["text"]} for d in corpus[start : start + BATCH]
        ]
        client.post("/v1/documents", json={"documents": documents}).raise_for_status()
    dice, left = random.Random(7), kills
    next_kill = time.perf_counter() + dice.uniform(2, 6)
    shown = 0.0
    while _open_jobs(client):
        now = time.perf_counter()
        if left and now >= next_kill:
            left -= _kill_worker(process)
            next_kill = now + dice.uniform(2, 8)
        if now - shown > 10:
            shown = now
            print(f"  {now - begin:.0f} s, {_queued(client)} in the queue", file=sys.stderr, flush=True)
        time.sleep(0.25)
    if left:
        raise RuntimeError(f"the ingest ended with {left} kills left")
    return time.perf_counter() - begin


def _open_jobs(client: httpx.Client) -> bool:
    for state in ("queued", "running"):
        if client.get("/v1/jobs", params={"status": state, "limit": 1}).raise_for_status().json()["jobs"]:
            return True
    return False


def _queued(client: httpx.Client) -> int:
    found = re.search(r'plumbline_jobs\{state="queued"\} (\d+)', client.get("/metrics").text)
    return int(found[1]) if found else 0


def _kill_worker(process: subprocess.Popen[bytes]) -> int:
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "worker" in child.cmdline() and "sandbox" not in " ".join(child.cmdline()):
                os.kill(child.pid, signal.SIGKILL)
                return 1
        except psutil.Error:
            continue
    return 0


def each_found_once(client: httpx.Client, corpus: list[dict[str, Any]]) -> int:
    """Every document is searchable, with the chunks of one revision. Returns how many were checked."""
    for document in corpus:
        body = {
            "query": (document["title"] or document["text"])[:300],
            "limit": 50,
            "document_ids": [document["_id"]],
        }
        hits = client.post("/v1/search", json=body).raise_for_status().json()["hits"]
        revisions = {hit["chunk_id"].split("-")[0] for hit in hits}
        if len(revisions) != 1:
            raise RuntimeError(f"document {document['_id']} has {len(revisions)} visible revisions")
    return len(corpus)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--kills", type=int, default=10)
    arguments.add_argument("--most", type=int, default=None, help="only the first documents")
    options = arguments.parse_args()
    corpus = read_corpus(options.folder)[: options.most]
    temporary = Path(tempfile.mkdtemp(prefix="plumbline-load-"))
    result: dict[str, Any] = {"documents": len(corpus), "kills": options.kills}
    try:
        with (
            live.instance(temporary, "--no-sample") as one,
            httpx.Client(base_url=one.url, timeout=120) as client,
        ):
            process = one.process
            result["ingest_seconds"] = round(ingest(client, process, corpus, options.kills), 2)
            result["found_exactly_once"] = each_found_once(client, corpus)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
