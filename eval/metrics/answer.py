"""Metrics of RAGAS that need no language model, made safe to gate on.

RAGAS is slow to import, warns while it does, and reports its use over the network unless told not to: so it
is imported when metrics are made, and told not to first. Its NaN for "could not compute" becomes an error
at the metric edge and is never averaged away.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from eval.metrics.embeddings import Embeddings
from eval.metrics.measure import (
    Measure,
    Metric,
    plain,
    quoted,
    referenced,
    referenced_summary,
    reply_of,
    response_of,
)
from eval.metrics.ranking import coverage
from eval.types import Case, Sample


def answer_metrics(embeddings: Embeddings) -> list[Metric]:
    """Raises ImportError when the `eval` extra is not installed."""
    similarity, rouge = _strings()
    precision, recall = _contexts()
    semantic = _semantic(embeddings)
    return [
        Metric("rouge_l", referenced, rouge),
        Metric("string_similarity", referenced, similarity),
        Metric("semantic_similarity", referenced, semantic),
        Metric("context_precision", quoted, precision),
        Metric("context_recall", quoted, recall),
        Metric("summary_rouge_l", referenced_summary, rouge),
        Metric("summary_semantic_similarity", referenced_summary, semantic),
    ]


def said(case: Case, sample: Sample) -> str:
    """The answer or summary without its citation markers."""
    return plain(response_of(case, sample).text)


def source_ids(case: Case, sample: Sample) -> list[str]:
    """The passages given to the model: the gold ones by their gold ids, the others by their chunk ids."""
    sources = reply_of(sample).sources
    ids: list[str] = []
    for passage, held in zip(sources, coverage(sources, case.gold), strict=True):
        ids += [_gold_id(index) for index in sorted(held)] or [passage.chunk_id]
    return ids


def _strings() -> tuple[Measure, Measure]:
    with quiet():
        from ragas.metrics.collections import NonLLMStringSimilarity, RougeScore
    levenshtein, rouge = NonLLMStringSimilarity(), RougeScore(rouge_type="rougeL", mode="fmeasure")

    async def similarity(case: Case, sample: Sample) -> float:
        result = await levenshtein.ascore(reference=case.reference or "", response=said(case, sample))
        return float(result.value)

    async def rouge_l(case: Case, sample: Sample) -> float:
        result = await rouge.ascore(reference=case.reference or "", response=said(case, sample))
        return float(result.value)

    return similarity, rouge_l


def _semantic(embeddings: Embeddings) -> Measure:
    with quiet():
        from ragas.embeddings.base import BaseRagasEmbedding
        from ragas.metrics.collections import SemanticSimilarity

    class Known(BaseRagasEmbedding):
        """RAGAS asks synchronously, one text at a time: the vectors are fetched before it asks."""

        def __init__(self) -> None:
            super().__init__()
            self.vectors: dict[str, list[float]] = {}

        def embed_text(self, text: str, **kwargs: Any) -> list[float]:
            return self.vectors[text]

        async def aembed_text(self, text: str, **kwargs: Any) -> list[float]:
            return self.embed_text(text)

    known = Known()
    metric = SemanticSimilarity(embeddings=known)

    async def semantic(case: Case, sample: Sample) -> float:
        reference, response = case.reference or "", said(case, sample)
        if not response:
            return 0.0
        for text in (reference, response):
            known.vectors[text] = await embeddings.of(text)
        return float((await metric.ascore(reference=reference, response=response)).value)

    return semantic


def _contexts() -> tuple[Measure, Measure]:
    # The package's own export of these two warns on every use, their modules do not. `_single_turn_ascore`
    # is the metric itself; the public wrapper also queues a usage event under a user id that it writes
    # into the home folder.
    with quiet():
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


@contextmanager
def quiet() -> Iterator[None]:
    """While RAGAS and what it pulls in are imported: no deprecation warnings, no reporting of use."""
    os.environ["RAGAS_DO_NOT_TRACK"] = "true"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
