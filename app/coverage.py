"""How much of a text its summary speaks of.

A passage is spoken of when a sentence of the summary is near it: by the cosine of their tf-idf weights,
rarity counted over the passages. It counts by its length. Unlike the share of sections that are cited, this
sees a passage whose content is in the summary though another one is cited for it, and does not let one
citation stand for a whole section.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from llm.terms import terms

NEAR = 0.15
"""Cosine from which a sentence speaks of a passage. Of sentences of other documents, 1 in 100 is as near."""

Weights = Mapping[str, float]


def coverage(passages: Sequence[str], sentences: Sequence[str]) -> float:
    """In [0, 1]; 0 without passages."""
    counts = [Counter(terms(passage)) for passage in passages]
    seen = Counter(term for count in counts for term in count)
    rarity = {term: math.log(1 + len(counts) / number) for term, number in seen.items()}
    said = [_weighed(Counter(terms(sentence)), rarity) for sentence in sentences]
    total = spoken = 0
    for passage, count in zip(passages, counts, strict=True):
        weights = _weighed(count, rarity)
        total += len(passage)
        spoken += len(passage) * any(_cosine(sentence, weights) >= NEAR for sentence in said)
    return round(spoken / total, 4) if total else 0.0


def _weighed(count: Mapping[str, int], rarity: Weights) -> Weights:
    """At length 1. A term that no passage has tells nothing about them."""
    weights = {term: (1 + math.log(n)) * rarity[term] for term, n in count.items() if term in rarity}
    length = math.sqrt(sum(weight * weight for weight in weights.values())) or 1.0
    return {term: weight / length for term, weight in weights.items()}


def _cosine(one: Weights, other: Weights) -> float:
    return sum(weight * other.get(term, 0.0) for term, weight in one.items())
