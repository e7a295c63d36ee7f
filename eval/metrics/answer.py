"""Answer metrics of RAGAS that need no language model, made safe to gate on.

RAGAS is slow to import, warns while it does, and reports its use over the network unless told not to: so it
is imported when metrics are made, and told not to first. Its NaN for "could not compute" becomes an error
at the metric edge and is never averaged away.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from eval.metrics.measure import Measure, Metric, quoted, reply_of
from eval.metrics.ranking import coverage
from eval.types import Case, Sample

Vector = Sequence[float]
Embed = Callable[[Sequence[str]], Awaitable[Sequence[Vector]]]
"""Embeddings of texts, in order."""

PIECE = 400
"""Characters embedded at once: within every common embedder's window, so that no text is refused."""

_MARKERS = re.compile(r"\s*\[\d+\]")


def answer_metrics(embed: Embed) -> list[Metric]:
    """Raises ImportError when the `eval` extra is not installed."""
    similarity, rouge = _strings()
    precision, recall = _contexts()
    return [
        Metric("rouge_l", _referenced, rouge),
        Metric("string_similarity", _referenced, similarity),
        Metric("semantic_similarity", _referenced, _semantic(embed)),
        Metric("context_precision", quoted, precision),
        Metric("context_recall", quoted, recall),
    ]


def said(sample: Sample) -> str:
    """The answer without its citation markers, as references have none."""
    return _MARKERS.sub("", reply_of(sample).text).strip()


def source_ids(case: Case, sample: Sample) -> list[str]:
    """The passages given to the model: the gold ones by their gold ids, the others by their chunk ids."""
    sources = reply_of(sample).sources
    ids: list[str] = []
    for passage, held in zip(sources, coverage(sources, case.gold), strict=True):
        ids += [_gold_id(index) for index in sorted(held)] or [passage.chunk_id]
    return ids


def _referenced(case: Case) -> bool:
    return case.answerable and case.reference is not None


def _strings() -> tuple[Measure, Measure]:
    with _quiet():
        from ragas.metrics.collections import NonLLMStringSimilarity, RougeScore
    levenshtein, rouge = NonLLMStringSimilarity(), RougeScore(rouge_type="rougeL", mode="fmeasure")

    async def similarity(case: Case, sample: Sample) -> float:
        result = await levenshtein.ascore(reference=case.reference or "", response=said(sample))
        return float(result.value)

    async def rouge_l(case: Case, sample: Sample) -> float:
        result = await rouge.ascore(reference=case.reference or "", response=said(sample))
        return float(result.value)

    return similarity, rouge_l


def _semantic(embed: Embed) -> Measure:
    with _quiet():
        from ragas.embeddings.base import BaseRagasEmbedding
        from ragas.metrics.collections import SemanticSimilarity

    class Known(BaseRagasEmbedding):
        """RAGAS asks synchronously, one text at a time: the vectors are fetched before it asks."""

        def __init__(self, vectors: Mapping[str, Vector]) -> None:
            super().__init__()
            self._vectors = vectors

        def embed_text(self, text: str, **kwargs: Any) -> list[float]:
            return list(self._vectors[text])

        async def aembed_text(self, text: str, **kwargs: Any) -> list[float]:
            return self.embed_text(text)

    async def semantic(case: Case, sample: Sample) -> float:
        reference, response = case.reference or "", said(sample)
        if not response:
            return 0.0
        vectors = {text: await _vector(text, embed) for text in (reference, response)}
        metric = SemanticSimilarity(embeddings=Known(vectors))
        return float((await metric.ascore(reference=reference, response=response)).value)

    return semantic


def _contexts() -> tuple[Measure, Measure]:
    # The package's own export of these two warns on every use, their modules do not. `_single_turn_ascore`
    # is the metric itself; the public wrapper also queues a usage event under a user id that it writes
    # into the home folder.
    with _quiet():
        from ragas.dataset_schema import SingleTurnSample
        from ragas.metrics._context_precision import IDBasedContextPrecision
        from ragas.metrics._context_recall import IDBasedContextRecall

    def measure(metric: Any) -> Measure:
        async def context(case: Case, sample: Sample) -> float:
            retrieved = source_ids(case, sample)
            if not retrieved:
                return 0.0
            wanted = [_gold_id(index) for index in range(len(case.gold))]
            turn = SingleTurnSample(retrieved_context_ids=list(retrieved), reference_context_ids=list(wanted))
            return float(await metric._single_turn_ascore(turn, []))

        return context

    return measure(IDBasedContextPrecision()), measure(IDBasedContextRecall())


def _gold_id(index: int) -> str:
    return f"gold-{index}"


async def _vector(text: str, embed: Embed) -> list[float]:
    """The text's embedding; of a long text the mean of its pieces', weighted by length."""
    pieces = split(text)
    vectors = await embed(pieces)
    return [
        sum(len(piece) * vector[axis] for piece, vector in zip(pieces, vectors, strict=True))
        for axis in range(len(vectors[0]))
    ]


def split(text: str) -> list[str]:
    """Pieces of at most `PIECE` characters, cut at white space where there is any."""
    pieces: list[str] = []
    rest = text.strip()
    while len(rest) > PIECE:
        cut = rest.rfind(" ", 1, PIECE + 1)
        cut = PIECE if cut < 0 else cut
        pieces.append(rest[:cut].strip())
        rest = rest[cut:].strip()
    return [*pieces, rest] if rest else pieces


@contextmanager
def _quiet() -> Iterator[None]:
    """While RAGAS and what it pulls in are imported: no deprecation warnings, no reporting of use."""
    os.environ["RAGAS_DO_NOT_TRACK"] = "true"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
