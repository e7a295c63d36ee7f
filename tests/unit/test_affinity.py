"""Smoothing: passages about the same thing lend each other score, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.affinity import smooth
from retrieval.types import Hit, Vector
from tests.passages import passage


def hit(number: int, score: float, vector: Vector | None, document: str | None = None) -> Hit:
    chunk = passage(document_id=document or f"d{number}", revision=number)
    return Hit(chunk, score, vector)


def toward(*parts: float) -> Vector:
    vector = np.array(parts, dtype=np.float32)
    return vector / np.linalg.norm(vector)


def order(hits: list[Hit]) -> list[int]:
    return [found.chunk.revision for found in hits]


@st.composite
def rankings(draw: st.DrawFn) -> list[Hit]:
    scores = draw(st.lists(st.floats(0, 1), max_size=30))
    dice = np.random.default_rng(draw(st.integers(0, 1000)))
    bare = draw(st.sets(st.integers(0, 29)))
    hits = [
        hit(n, score, None if n in bare else toward(*dice.normal(size=4))) for n, score in enumerate(scores)
    ]
    return sorted(hits, key=lambda found: -found.score)


@settings(deadline=None)
@given(rankings(), st.floats(0, 1), st.integers(1, 40))
def test_smoothing_changes_the_order_and_never_which_hits_there_are(
    hits: list[Hit], weight: float, depth: int
) -> None:
    smoothed = smooth(hits, weight, depth)
    assert sorted(order(smoothed)) == sorted(order(hits))
    assert all(0 <= found.score <= 1 for found in smoothed)
    scores = [found.score for found in smoothed]
    assert scores == sorted(scores, reverse=True)
    before = {found.chunk.id: found.score for found in hits}
    assert all(found.score >= before[found.chunk.id] for found in smoothed)


@settings(deadline=None)
@given(rankings(), st.floats(0, 1))
def test_the_same_hits_give_the_same_order(hits: list[Hit], weight: float) -> None:
    assert order(smooth(hits, weight, 50)) == order(smooth(hits, weight, 50))


def test_a_hit_among_good_ones_passes_a_slightly_better_one_that_stands_alone() -> None:
    about = [toward(1, 0.1 * n, 0) for n in range(3)]
    hits = [
        hit(1, 0.9, about[0]),
        hit(2, 0.8, about[1]),
        hit(3, 0.5, toward(0, 0, 1)),
        hit(4, 0.48, about[2]),
    ]
    assert order(smooth(hits, 0.8, 50)) == [1, 2, 4, 3]


def test_a_sure_hit_stays_first_whatever_stands_around_it() -> None:
    crowd = [hit(n, 0.9, toward(1, 0)) for n in range(2, 30)]
    assert order(smooth([hit(1, 1.0, toward(0, 1)), *crowd], 1.0, 50))[0] == 1


def test_a_long_document_vouches_for_others_only_once() -> None:
    def lent(*repeated: Hit) -> float:
        strong, weak = hit(1, 0.9, toward(1, 0), "long"), hit(9, 0.2, toward(1, 1))
        other = hit(8, 0.3, toward(0, 1))
        return {h.chunk.revision: h.score for h in smooth([strong, *repeated, other, weak], 0.8, 50)}[9]

    assert lent(*(hit(n, 0.8, toward(1, 0), "long") for n in range(2, 7))) == pytest.approx(lent())


def test_only_the_best_are_smoothed() -> None:
    hits = [hit(n, 1 - n / 10, toward(1, 0)) for n in range(6)]
    after = smooth(hits, 0.8, 3)
    assert [found.score for found in after[3:]] == [found.score for found in hits[3:]]


@pytest.mark.parametrize("weight", [0.0, 0.8])
def test_hits_without_vectors_are_left_as_they_are(weight: float) -> None:
    hits = [hit(1, 0.9, None), hit(2, 0.5, None), hit(3, 0.1, toward(1, 0))]
    assert smooth(hits, weight, 50) == hits


def test_of_few_documents_the_best_passages_lend_less() -> None:
    def raised(documents: int) -> float:
        about = toward(1, 0.2, 0)
        lenders = [hit(n, 0.9, about, f"d{n % documents}") for n in range(30)]
        return next(h.score for h in smooth([*lenders, hit(99, 0.2, about)], 0.8, 50) if h.chunk.id == "99-0")

    assert raised(1) < raised(4) < raised(10) == pytest.approx(raised(20))
