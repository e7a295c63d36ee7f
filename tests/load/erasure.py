"""A whole instance erases documents while it works; afterwards every byte that it keeps is looked through.

    python -m tests.load.erasure [--documents 2000] [--json]

Documents with a word of their own (in text, title, metadata, file name and id) are handed in, updated, asked
about and summarized; half of them are erased by a filter on metadata while others go in. Says how long it
took until nobody was shown them, until every store was done, and where words and vectors are then: none of
the erased, all of those that stayed (or else the scan would see nothing).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import string
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from app.settings import load_settings
from app.wiring import open_services
from tests import canary, live
from tests.canary import Canary

PLANTED = 8
FINISHED = 600.0


def main() -> int:
    options = _options()
    with (
        folder() as place,
        live.instance(place, "--no-sample") as one,
        httpx.Client(base_url=one.url, timeout=60) as client,
    ):
        told = _run(client, one.data, options.documents)
    print(json.dumps(told, indent=None if options.json else 2))
    return 0 if told["erased_left"] == {} and told["kept_found"] == PLANTED else 1


def _run(client: httpx.Client, data: Path, documents: int) -> dict[str, Any]:
    chance = random.Random(5)
    words = ["".join(chance.choices(string.ascii_lowercase, k=24)) for _ in range(2 * PLANTED)]
    erased, kept = words[:PLANTED], words[PLANTED:]
    _fill(client, documents)
    for version in (1, 2):
        _put(client, [planted(word, version, "gone" if word in erased else "kept") for word in words])
    for word in words:
        _ask(client, word)
    canaries = {word: Canary(word, vector) for word, vector in vectors(client, data, words).items()}
    client.post("/v1/search", json={"query": words[0]}).raise_for_status()

    began = time.monotonic()
    erasure = asked(client.post("/v1/erase", json={"filter": {"fate": "gone"}}))
    answered = time.monotonic() - began
    shown = [word for word in erased if _finds(client, word)]
    _fill(client, 50, "later")
    while erasure["state"] != "finished":
        if time.monotonic() - began > FINISHED:
            raise SystemExit(f"not finished: {erasure}")
        time.sleep(0.5)
        erasure = asked(client.get(f"/v1/erasures/{erasure['id']}"))
    finished = time.monotonic() - began
    places = canary.found(data, canaries)
    return {
        "documents": documents + len(words),
        "erased": erasure["documents"],
        "seconds_until_answered": round(answered, 2),
        "shown_afterwards": shown,
        "seconds_until_finished": round(finished, 1),
        "stores": {name: f"{one['state']} ({one['removed']})" for name, one in erasure["stores"].items()},
        "erased_left": {word: sorted(places[word]) for word in erased if places[word]},
        "kept_found": sum(bool(places[word]) for word in kept),
        "kept_found_in": sorted(set().union(*(places[word] for word in kept))),
    }


def planted(word: str, version: int, fate: str) -> dict[str, Any]:
    return {
        "id": f"{word}.md",
        "title": f"All about {word}",
        "text": f"# What {word} is\n\nThe {word} was built in {1900 + version} by the people of {word}.\n",
        "metadata": {"fate": fate, "code": word},
    }


def _fill(client: httpx.Client, count: int, name: str = "filler") -> None:
    for start in range(0, count, 500):
        numbers = range(start, min(count, start + 500))
        _put(
            client,
            [{"id": f"{name}-{n}", "text": f"Filler number {n} says little of {n * n}."} for n in numbers],
        )


def _put(client: httpx.Client, documents: list[dict[str, Any]]) -> None:
    jobs = asked(client.post("/v1/documents", json={"documents": documents}))["jobs"]
    for job in jobs:
        while (now := asked(client.get(f"/v1/jobs/{job['id']}")))["status"] in ("queued", "running"):
            time.sleep(0.05)
        if now["status"] != "succeeded":
            raise SystemExit(f"{job['document_id']} ended as {now['status']}")


def _ask(client: httpx.Client, word: str) -> None:
    question = {"model": "plumbline", "messages": [{"role": "user", "content": f"When was {word} built?"}]}
    asked(client.post("/v1/chat/completions", json=question))
    asked(client.post("/v1/summarize", json={"document_ids": [f"{word}.md"]}))
    asked(client.get(f"/v1/documents/{word}.md"))  # Its id is in the log now.


def _finds(client: httpx.Client, word: str) -> bool:
    hits = asked(client.post("/v1/search", json={"query": word, "limit": 5}))["hits"]
    return any(word in hit["text"] for hit in hits)


def vectors(client: httpx.Client, data: Path, words: list[str]) -> dict[str, Any]:
    """The vectors of the planted documents as the store has them."""
    found = json.loads((data / "run.json").read_text())
    settings = load_settings(
        {},
        data=data,
        database_url=found["database_url"],
        redis_url=found["redis_url"],
        milvus_uri=found["milvus_uri"],
    )
    ids = {}
    for word in words:
        hits = asked(client.post("/v1/search", json={"query": f"What {word} is", "limit": 3}))["hits"]
        ids[word] = next(hit["chunk_id"] for hit in hits if hit["document_id"] == f"{word}.md")

    async def read() -> dict[str, Any]:
        async with open_services(settings) as services:
            generation = services.current().index.generation
            return {
                word: next(iter((await services.store.vectors(generation, "default", [chunk])).values()))
                for word, chunk in ids.items()
            }

    return asyncio.run(read())


def asked(reply: httpx.Response) -> Any:
    if reply.is_error:
        raise SystemExit(f"{reply.request.url} answered {reply.status_code}: {reply.text}")
    return reply.json()


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="plt-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load.erasure", description=__doc__)
    parser.add_argument("--documents", type=int, default=2_000, help="documents besides the planted ones")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
