"""How good a ranking is, over documents and over gold passages.

A passage is found when a hit of its document holds its quote, or at least half of it where a chunk
boundary cuts the quote. Only white space is normalised. Everything here is 0 when nothing was found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from eval.metrics.measure import Metric, answerable, hits_of, quoted
from eval.types import Case, Gold, Passage, Sample

DEPTH = 10
HALF = 0.5


def ndcg(ranked: Sequence[str], gains: Mapping[str, float], k: int) -> float:
    """nDCG@k with linear gains, as trec_eval computes `ndcg_cut`. An id counts at its first place only."""
    found = [gains.get(item, 0.0) for item in _first_places(ranked)][:k]
    ideal = sorted(gains.values(), reverse=True)[:k]
    return _dcg(found) / _dcg(ideal)


def recall(ranked: Sequence[str], relevant: frozenset[str], k: int) -> float:
    """The share of the relevant ids among the first k distinct ones."""
    return len(relevant.intersection(_first_places(ranked)[:k])) / len(relevant)


def reciprocal_rank(ranked: Sequence[str], relevant: frozenset[str]) -> float:
    """1 / the place of the first relevant id."""
    for place, item in enumerate(_first_places(ranked), 1):
        if item in relevant:
            return 1 / place
    return 0.0


def coverage(passages: Sequence[Passage], gold: Sequence[Gold]) -> list[frozenset[int]]:
    """For each passage the indexes of the gold passages that it holds."""
    return [
        frozenset(index for index, wanted in enumerate(gold) if holds(passage, wanted))
        for passage in passages
    ]


def holds(passage: Passage, gold: Gold) -> bool:
    if gold.quote is None or passage.document_id != gold.document_id:
        return False
    return overlap(passage.text, gold.quote) >= HALF


def overlap(text: str, quote: str) -> float:
    """The share of the quote that the text holds: all of it, its beginning at the text's end, or its end
    at the text's beginning."""
    text, quote = normalised(text), normalised(quote)
    if quote in text:
        return 1.0
    if text and text in quote:
        return len(text) / len(quote)
    for length in range(min(len(text), len(quote) - 1), 0, -1):
        if text.endswith(quote[:length]) or text.startswith(quote[-length:]):
            return length / len(quote)
    return 0.0


def normalised(text: str) -> str:
    return " ".join(text.split())


def passage_ndcg(covered: Sequence[frozenset[int]], total: int, k: int) -> float:
    """nDCG@k where a hit gains the number of gold passages that it is the first to hold.

    The ideal order puts the hits that gain most first, then one hit for each passage not found.
    """
    gains = _new(covered)
    ideal = sorted([g for g in gains if g] + [1] * (total - sum(gains)), reverse=True)
    return _dcg(gains[:k]) / _dcg(ideal[:k])


def passage_recall(covered: Sequence[frozenset[int]], total: int, k: int) -> float:
    return sum(_new(covered)[:k]) / total


def passage_reciprocal_rank(covered: Sequence[frozenset[int]]) -> float:
    return next((1 / place for place, held in enumerate(covered, 1) if held), 0.0)


async def _document_ndcg(case: Case, sample: Sample) -> float:
    gains = {gold.document_id: gold.gain for gold in case.gold}
    return ndcg(_documents(sample), gains, DEPTH)


async def _document_recall(case: Case, sample: Sample) -> float:
    return recall(_documents(sample), _relevant(case), DEPTH)


async def _document_mrr(case: Case, sample: Sample) -> float:
    return reciprocal_rank(_documents(sample), _relevant(case))


async def _passage_ndcg(case: Case, sample: Sample) -> float:
    return passage_ndcg(coverage(hits_of(sample), case.gold), len(case.gold), DEPTH)


async def _passage_recall(case: Case, sample: Sample) -> float:
    return passage_recall(coverage(hits_of(sample), case.gold), len(case.gold), DEPTH)


async def _passage_mrr(case: Case, sample: Sample) -> float:
    return passage_reciprocal_rank(coverage(hits_of(sample), case.gold))


def ranking_metrics() -> list[Metric]:
    return [
        Metric("document_ndcg_10", answerable, _document_ndcg),
        Metric("document_recall_10", answerable, _document_recall),
        Metric("document_mrr", answerable, _document_mrr),
        Metric("passage_ndcg_10", quoted, _passage_ndcg),
        Metric("passage_recall_10", quoted, _passage_recall),
        Metric("passage_mrr", quoted, _passage_mrr),
    ]


def _documents(sample: Sample) -> list[str]:
    return [hit.document_id for hit in hits_of(sample)]


def _relevant(case: Case) -> frozenset[str]:
    return frozenset(gold.document_id for gold in case.gold)


def _first_places(ranked: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(ranked))


def _new(covered: Sequence[frozenset[int]]) -> list[int]:
    """How many gold passages each hit is the first to hold."""
    seen: set[int] = set()
    counts = []
    for held in covered:
        counts.append(len(held - seen))
        seen |= held
    return counts


def _dcg(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, 1))
