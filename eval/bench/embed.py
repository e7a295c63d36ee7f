"""How fast text is embedded: passages in bulk, and one question; against the bare matrix product.

The floor is what the processor's matrix product alone would take for the model's multiplications: nothing
that embeds with this model in this precision can be faster.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from app.embedders import choose
from app.release import DEFAULT_RELEASE, load_release
from app.settings import load_settings
from eval.bench.corpus import Corpus
from eval.cases import load_dataset
from eval.encoders import encoder
from retrieval.embedders.checkpoint import read_checkpoint
from retrieval.types import Encoder

BATCH = 32
PASSAGE_TOKENS = 112
QUESTIONS = 200
SAMPLE = "handbook"


async def embed(model: str | None, passages: int, cache: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """`model` is by default the embedder of the release that a new instance would start with."""
    say("loading the model")
    model = model or load_release(load_settings().release or DEFAULT_RELEASE).body.index.embedder
    async with encoder(model, cache) as found:
        return await _measured(found, passages, await asyncio.to_thread(_multiplications, model), say)


async def _measured(
    embedder: Encoder, passages: int, multiplications: int | None, say: Callable[[str], None]
) -> dict[str, Any]:
    corpus = Corpus(passages)
    # Cut out of a text, a passage may have a few tokens more than in it.
    length = min(PASSAGE_TOKENS, embedder.spec.max_tokens * 3 // 4)
    texts = _passages(corpus, embedder, passages, length)
    await embedder.embed(texts[:BATCH])
    say(f"{len(texts)} passages of {length} tokens")
    floor_before = _matrix_product()
    begin, cpu = time.perf_counter(), time.process_time()
    for start in range(0, len(texts), BATCH):
        await embedder.embed(texts[start : start + BATCH])
    seconds, used = time.perf_counter() - begin, time.process_time() - cpu
    floor = max(floor_before, _matrix_product())
    say(f"{QUESTIONS} questions of each kind, one at a time")
    tokens = len(texts) * length
    of_the_floor = (
        {
            "floor_tokens_a_second": round(floor / (2 * multiplications)),
            "ratio_to_floor": round(tokens / seconds * 2 * multiplications / floor, 3),
        }
        if multiplications
        else {}
    )
    return {
        "bench": "embed",
        "model": embedder.spec.name,
        "passages_a_second": round(len(texts) / seconds, 1),
        "tokens_a_second": round(tokens / seconds),
        "tokens_a_cpu_second": round(tokens / used),
        **of_the_floor,
        "questions": {name: await _questions(embedder, texts) for name, texts in _asked(corpus).items()},
    }


def _multiplications(model: str) -> int | None:
    """For a token, of a BERT that is run here: in each layer 12 weights of width x width. None of another,
    which has no floor on this machine."""
    choice = choose(model, load_settings())
    if choice.by != "openvino" or choice.folder is None:
        return None
    checkpoint = read_checkpoint(choice.folder)
    return checkpoint.layers * 12 * checkpoint.dimension**2


def _asked(corpus: Corpus) -> dict[str, list[str]]:
    """What people ask of the sample, and what `bench search` asks."""
    sample = [case.question for case in load_dataset(SAMPLE).cases if case.kind == "question"]
    return {SAMPLE: sample, "bench search": [corpus.question(n) for n in range(QUESTIONS)]}


def _passages(corpus: Corpus, embedder: Encoder, count: int, length: int) -> list[str]:
    text = " ".join(one["text"] for batch in corpus.batches() for one in batch)[: count * 1_200]
    spans = embedder.token_spans(text)
    starts = range(0, len(spans) - length, length)
    return [text[spans[n][0] : spans[n + length - 1][1]] for n in starts][:count]


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
