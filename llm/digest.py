"""Which pieces of the passages make a summary: the built-in model's judgement, without a model.

Pieces are ranked by their nearness to the centroid of all of them in tf-idf space (Radev et al. 2004), those
that open a passage a little higher, those that answer the focus much higher; then picked one by one by
maximal marginal relevance (Carbonell and Goldstein 1998), so that nothing is said twice, until the words
are used up.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from llm.boilerplate import told
from llm.quoting import Quote, cut_off
from llm.terms import terms

RELEVANCE = 0.7
"""Lambda of maximal marginal relevance: 1 looks at relevance only."""
MOST_PIECES = 2_000
"""Pieces that are looked at; of longer input an even sample."""
_OPENING, _FOCUS = 0.15, 0.75
_NEAR_FOCUS = 0.5
"""Share of the best focus score that a piece needs."""
_SAME = 0.6
"""Cosine from which two pieces say the same."""

Weights = Mapping[str, float]


def choose(found: Sequence[Quote], max_words: int, focus: Sequence[float] | None = None) -> list[int]:
    """The places of the quotes that make a summary of at most `max_words`, in passage order, at least one.

    `focus` is how far each quote covers the question to keep to, in [0, 1]."""
    places = _sampled(found, focus)
    vectors = _vectors([found[at] for at in places])
    relevance = _relevance(found, places, vectors, focus)
    nearest = [0.0] * len(places)
    left, chosen = max_words, list[int]()
    open_ = set(range(len(places)))
    while open_:
        best = max(open_, key=lambda i: RELEVANCE * relevance[i] - (1 - RELEVANCE) * nearest[i])
        open_.remove(best)
        length = _words(found[places[best]])
        if nearest[best] >= _SAME or (chosen and length > left):
            continue
        chosen.append(places[best])
        left -= length
        for i in open_:
            nearest[i] = max(nearest[i], _cosine(vectors[i], vectors[best]))
        if left < 5:
            break
    return sorted(chosen)


def _words(quote: Quote) -> int:
    intro = quote.piece.intro if quote.piece.item else ""
    return len(f"{intro} {quote.piece.text}".split())


def _sampled(found: Sequence[Quote], focus: Sequence[float] | None) -> list[int]:
    """Places of whole pieces that say something and keep to the focus. What opens a list says nothing by
    itself, nor does a question."""
    least = 0.0 if focus is None else max(focus) * _NEAR_FOCUS
    near = [at for at in range(len(found)) if focus is None or focus[at] >= least]
    whole = [at for at in near if not found[at].piece.opens and not cut_off(found, at)] or near
    said = [whole[at] for at in told([found[at].piece for at in whole])]
    return said[:: max(1, math.ceil(len(said) / MOST_PIECES))]


def _relevance(
    found: Sequence[Quote], places: Sequence[int], vectors: Sequence[Weights], focus: Sequence[float] | None
) -> list[float]:
    centre = Counter[str]()
    for vector in vectors:
        centre.update(vector)
    length = math.sqrt(sum(w * w for w in centre.values())) or 1.0
    near = [sum(w * centre[t] for t, w in vector.items()) / length for vector in vectors]
    highest = max(near, default=0.0) or 1.0
    first = {found[at].number: at for at in reversed(range(len(found)))}
    scores = [
        n / highest + (_OPENING if first[found[at].number] == at else 0.0)
        for at, n in zip(places, near, strict=True)
    ]
    if focus is None:
        return scores
    return [(1 - _FOCUS) * score + _FOCUS * focus[at] for at, score in zip(places, scores, strict=True)]


def _vectors(found: Sequence[Quote]) -> list[Weights]:
    """Each piece's tf-idf weights, at length 1."""
    counts = [Counter(terms(quote.piece.text)) for quote in found]
    seen = Counter(term for count in counts for term in count)
    return [_unit({t: n * math.log(1 + len(found) / seen[t]) for t, n in count.items()}) for count in counts]


def _unit(weights: Weights) -> Weights:
    length = math.sqrt(sum(w * w for w in weights.values())) or 1.0
    return {term: w / length for term, w in weights.items()}


def _cosine(one: Weights, other: Weights) -> float:
    if len(one) > len(other):
        one, other = other, one
    return sum(w * other.get(term, 0.0) for term, w in one.items())
