"""How fast text is embedded: passages in bulk, and one question; against the bare matrix product.

The floor is what the processor's matrix product alone would take for the model's multiplications: nothing
that embeds with this model in this precision can be faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from eval.bench.corpus import Corpus
from eval.cases import load_dataset
from retrieval.embedders.openvino import OpenVinoEmbedder, find_model
from retrieval.types import Encoder

BATCH = 32
PASSAGE_TOKENS = 112
QUESTIONS = 200
SAMPLE = "handbook"
MULTIPLICATIONS_A_TOKEN = 10_600_000
"""Of all-MiniLM-L6-v2: 6 layers of 12 x 384 x 384 weights."""


async def embed(model: str, passages: int, cache: Path, say: Callable[[str], None]) -> dict[str, Any]:
    say("loading the model")
    embedder = OpenVinoEmbedder.load(find_model(model, None), cache, model)
    corpus = Corpus(passages)
    texts = _passages(corpus, embedder, passages)
    await embedder.embed(texts[:BATCH])
    say(f"{len(texts)} passages of {PASSAGE_TOKENS} tokens")
    floor_before = _matrix_product()
    begin, cpu = time.perf_counter(), time.process_time()
    for start in range(0, len(texts), BATCH):
        await embedder.embed(texts[start : start + BATCH])
    seconds, used = time.perf_counter() - begin, time.process_time() - cpu
    floor = max(floor_before, _matrix_product())
    say(f"{QUESTIONS} questions of each kind, one at a time")
    tokens = len(texts) * PASSAGE_TOKENS
    return {
        "bench": "embed",
        "model": model,
        "passages_a_second": round(len(texts) / seconds, 1),
        "tokens_a_second": round(tokens / seconds),
        "tokens_a_cpu_second": round(tokens / used),
        "floor_tokens_a_second": round(floor / (2 * MULTIPLICATIONS_A_TOKEN)),
        "ratio_to_floor": round(tokens / seconds * 2 * MULTIPLICATIONS_A_TOKEN / floor, 3),
        "questions": {name: await _questions(embedder, texts) for name, texts in _asked(corpus).items()},
    }


def _asked(corpus: Corpus) -> dict[str, list[str]]:
    """What people ask of the sample, and what `bench search` asks."""
    sample = [case.question for case in load_dataset(SAMPLE).cases if case.kind == "question"]
    return {SAMPLE: sample, "bench search": [corpus.question(n) for n in range(QUESTIONS)]}


def _passages(corpus: Corpus, embedder: Encoder, count: int) -> list[str]:
    text = " ".join(one["text"] for batch in corpus.batches() for one in batch)[: count * 1_200]
    spans = embedder.token_spans(text)
    starts = range(0, len(spans) - PASSAGE_TOKENS, PASSAGE_TOKENS)
    return [text[spans[n][0] : spans[n + PASSAGE_TOKENS - 1][1]] for n in starts][:count]


async def _questions(embedder: Encoder, texts: Sequence[str]) -> dict[str, float]:
    times: list[float] = []
    for text in islice(cycle(texts), QUESTIONS):
        begin = time.perf_counter()
        await embedder.embed([text])
        times.append(time.perf_counter() - begin)
    tokens = median(len(embedder.token_spans(text)) for text in texts)
    return {"tokens_p50": tokens, "ms_p50": round(median(times) * 1e3, 2)}


def _matrix_product() -> float:
    """Operations a second of numpy's float32 matrix product, on all cores; the best of five."""
    left = np.random.default_rng(1).standard_normal((2_048, 1_536)).astype(np.float32)
    right = np.random.default_rng(2).standard_normal((1_536, 1_536)).astype(np.float32)
    best = 0.0
    for _ in range(5):
        begin = time.perf_counter()
        np.matmul(left, right)
        best = max(best, 2 * 2_048 * 1_536 * 1_536 / (time.perf_counter() - begin))
    return best
