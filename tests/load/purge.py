"""How long deleted text and vectors stay on the disk of a whole instance.

    python -m tests.load.purge [--documents 20000] [--share 0.01 --share 0.5] [--json]

Documents of one passage each are handed in; then a share of them is deleted by a filter on metadata, after it
another. Each share has a few planted documents, whose words and vectors are looked for in the store's and the
blobs' files until none is left. Those that stay must be found in the end, or else the search for bytes would
see nothing. Fails if a share takes more than a minute.
"""

from __future__ import annotations

import argparse
import json
import random
import string
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from tests import canary, live
from tests.canary import Canary
from tests.load import erasure

PLANTED = 4
WANTED = 60.0
PATIENCE = 300.0
AT_ONCE = 500
FOLDERS = ("milvus", "blobs")


def main() -> int:
    options = _options()
    shares = options.share or [0.01, 0.5]
    with (
        erasure.folder() as folder,
        live.instance(folder, "--no-sample") as one,
        httpx.Client(base_url=one.url, timeout=60) as client,
    ):
        told = _run(client, one.data, options.documents, shares)
    print(json.dumps(told, indent=None if options.json else 2))
    good = all(
        seconds <= WANTED for one in told["shares"] for seconds in one["seconds_until_purged"].values()
    )
    return 0 if good and told["kept_found"] == PLANTED else 1


def _run(client: httpx.Client, data: Path, documents: int, shares: list[float]) -> dict[str, Any]:
    chance = random.Random(7)
    fates = ["kept", *(f"deleted {share:g}" for share in shares)]
    words = {
        fate: ["".join(chance.choices(string.ascii_lowercase, k=24)) for _ in range(PLANTED)]
        for fate in fates
    }
    counts = [round(documents * share) for share in shares]
    filler = [fate for fate, count in zip(fates[1:], counts, strict=True) for _ in range(count)]
    filler += ["kept"] * (documents - len(filler))
    chance.shuffle(filler)
    _put(client, [_filler(number, fate, chance) for number, fate in enumerate(filler)])
    _put(client, [erasure.planted(word, 1, fate) for fate, some in words.items() for word in some])
    every = [word for some in words.values() for word in some]
    vectors = erasure.vectors(client, data, every)
    canaries = {word: Canary(word, vectors[word]) for word in every}

    told: list[dict[str, Any]] = []
    for fate in fates[1:]:
        began = time.monotonic()
        gone = erasure.asked(client.post("/v1/documents/delete", json={"filter": {"fate": fate}}))
        answered = time.monotonic() - began
        purged: dict[str, float] = {}
        while len(purged) < len(FOLDERS):
            left = _left(data, {word: canaries[word] for word in words[fate]})
            for name in FOLDERS:
                if name not in left:
                    purged.setdefault(name, round(time.monotonic() - began, 1))
            if time.monotonic() - began > PATIENCE:
                raise SystemExit(f"still there: {left}")
            time.sleep(1.0)
        told.append(
            {
                "deleted": gone["count"],
                "seconds_until_answered": round(answered, 2),
                "seconds_until_purged": purged,
            }
        )
    kept = {word: canaries[word] for word in words["kept"]}
    found = [canary.found(data / name, kept) for name in FOLDERS]
    return {
        "documents": documents + len(every),
        "shares": told,
        "kept_found": sum(all(places[word] for places in found) for word in kept),
    }


def _left(data: Path, canaries: dict[str, Canary]) -> set[str]:
    """The folders in which any of them is."""
    return {name for name in FOLDERS if any(canary.found(data / name, canaries).values())}


def _filler(number: int, fate: str, chance: random.Random) -> dict[str, Any]:
    said = " ".join("".join(chance.choices(string.ascii_lowercase, k=5)) for _ in range(12))
    return {
        "id": f"filler-{number}",
        "text": f"Filler number {number} says {said}.",
        "metadata": {"fate": fate},
    }


def _put(client: httpx.Client, documents: list[dict[str, Any]]) -> None:
    for start in range(0, len(documents), AT_ONCE):
        body = {"documents": documents[start : start + AT_ONCE]}
        erasure.asked(client.post("/v1/documents", json=body))
    while any(
        erasure.asked(client.get("/v1/jobs/summary", params={"status": state}))["jobs"]
        for state in ("queued", "running")
    ):
        time.sleep(0.5)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load.purge", description=__doc__)
    parser.add_argument("--documents", type=int, default=20_000, help="documents besides the planted ones")
    parser.add_argument("--share", type=float, action="append", help="of them that is deleted; several times")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
