"""How fast this machine embeds, searches and answers, on an instance of its own with the sample corpus.

    python -m tests.load.bench [--requests 200] [--json]

The embedding rate is of the model alone, on passages of the corpus, before the instance is up. Latencies are
of whole HTTP requests, one at a time and several at once, each question another one (nothing is cached).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from ingestion.parse import EXTENSIONS, parse
from retrieval.embedders.openvino import OpenVinoEmbedder, find_model
from tests import live

ROOT = Path(__file__).resolve().parents[2]
MODEL = "all-MiniLM-L6-v2"
PASSAGE_TOKENS = 112
BATCH = 32
AT_ONCE = 8


def embedding(cache: Path) -> dict[str, float]:
    """Passages and tokens embedded a second; all passages have the same length."""
    embedder = OpenVinoEmbedder.load(find_model(MODEL, None), cache)
    texts = passages(embedder)
    asyncio.run(embedder.embed(texts[:BATCH]))
    begin = time.perf_counter()
    asyncio.run(_embed_all(embedder, texts))
    seconds = time.perf_counter() - begin
    return {
        "passages_per_second": len(texts) / seconds,
        "tokens_per_second": len(texts) * PASSAGE_TOKENS / seconds,
    }


async def _embed_all(embedder: OpenVinoEmbedder, texts: list[str]) -> None:
    for start in range(0, len(texts), BATCH):
        await embedder.embed(texts[start : start + BATCH])


def passages(embedder: OpenVinoEmbedder, most: int = 512) -> list[str]:
    files = sorted(path for path in (ROOT / "app" / "sample").rglob("*") if path.suffix in EXTENSIONS)
    text = "\n".join(parse(path.read_bytes(), path.name, None).text for path in files)
    spans = embedder.token_spans(text)
    pieces = [
        text[spans[start][0] : spans[start + PASSAGE_TOKENS - 1][1]]
        for start in range(0, len(spans) - PASSAGE_TOKENS, PASSAGE_TOKENS)
    ]
    return (pieces * (most // len(pieces) + 1))[:most]


def search(client: httpx.Client, number: int) -> None:
    client.post("/v1/search", json={"query": f"paid leave in year {number}"}).raise_for_status()


def answer(client: httpx.Client, number: int) -> None:
    question = {"role": "user", "content": f"What does order number SKY-{number} cost?"}
    client.post("/v1/chat/completions", json={"messages": [question]}).raise_for_status()


def latency(ask: Callable[[int], None], requests: int, at_once: int) -> dict[str, float]:
    def timed(number: int) -> float:
        begin = time.perf_counter()
        ask(number)
        return (time.perf_counter() - begin) * 1_000

    begin = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        times = sorted(pool.map(timed, range(requests)))
    rate = requests / (time.perf_counter() - begin)
    return {
        "p50_ms": statistics.median(times),
        "p99_ms": times[min(len(times) - 1, int(len(times) * 0.99))],
        "per_second": rate,
    }


def measure(requests: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="plumbline-bench-") as name:
        folder = Path(name)
        found: dict[str, Any] = {"embedding": embedding(folder / "cache")}
        with live.instance(folder) as one, httpx.Client(base_url=one.url, timeout=60) as client:
            offset = 0
            for what, act in (("search", search), ("answer", answer)):
                for at_once in (1, AT_ONCE):
                    first = offset

                    def ask(n: int, act: Callable[..., None] = act, first: int = first) -> None:
                        act(client, first + n)

                    found[f"{what}, {at_once} at once"] = latency(ask, requests, at_once)
                    offset += requests
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.requests)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for what, values in found.items():
        print(f"{what:<22} " + "  ".join(f"{name} {value:.1f}" for name, value in values.items()))


if __name__ == "__main__":
    main()
