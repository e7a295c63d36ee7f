"""Fusion of two ranked lists: what it promises for any two lists."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval import fusion
from retrieval.types import Hit
from tests.passages import passage


def hit(number: int, score: float) -> Hit:
    return Hit(passage(document_id=f"d{number}", revision=number), score)


def ranked(scores: dict[int, float]) -> list[Hit]:
    return sorted((hit(number, score) for number, score in scores.items()), key=lambda found: -found.score)


def shuffled(hits: list[Hit], random: Random) -> list[Hit]:
    return random.sample(hits, len(hits))


def fuse(dense: list[Hit], keyword: list[Hit], weight: float, most: int | None = None) -> list[Hit]:
    return fusion.fuse(fusion.scaled(dense), fusion.scaled(keyword), weight, most)


def order(hits: list[Hit]) -> list[int]:
    return [found.chunk.revision for found in hits]


NUMBERS = st.integers(min_value=1, max_value=30)
COSINES = st.dictionaries(NUMBERS, st.floats(min_value=-1, max_value=1)).map(ranked)
BM25 = st.dictionaries(NUMBERS, st.floats(min_value=0.01, max_value=80)).map(ranked)
WEIGHTS = st.floats(min_value=0, max_value=1)


def test_a_chunk_that_both_lists_like_beats_one_that_only_one_likes() -> None:
    dense = ranked({1: 0.9, 2: 0.85, 3: 0.1})
    keyword = ranked({4: 12.0, 2: 11.0, 5: 1.0})
    assert order(fuse(dense, keyword, 0.5))[0] == 2


def test_scores_are_the_weighted_sum_of_the_normalised_ones() -> None:
    fused = fuse(ranked({1: 0.8, 2: 0.6, 3: 0.4}), ranked({2: 9.0, 4: 3.0}), 0.75)
    assert [(found.chunk.revision, found.score) for found in fused] == [
        (1, pytest.approx(0.75)),
        (2, pytest.approx(0.75 * 0.5 + 0.25)),
        (3, 0.0),
        (4, 0.0),
    ]


def test_the_least_difference_that_there_is_orders_too() -> None:
    fused = fuse(ranked({1: 0.0, 2: 5e-324}), [], 0.5)
    assert [(found.chunk.revision, found.score) for found in fused] == [(2, 1.0), (1, 0.0)]


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_when_one_list_is_empty_the_other_keeps_its_order(weight: float) -> None:
    hits = ranked({3: 0.9, 1: 0.5, 2: 0.1})
    assert order(fuse(hits, [], weight)) == order(fuse([], hits, weight)) == [3, 1, 2]
    assert fuse([], [], weight) == []


@settings(deadline=None)
@given(COSINES, BM25, WEIGHTS)
def test_every_chunk_comes_once_best_first_with_a_score_from_0_to_1(
    dense: list[Hit], keyword: list[Hit], weight: float
) -> None:
    fused = fuse(dense, keyword, weight)
    scores = [found.score for found in fused]
    assert sorted(order(fused)) == sorted({*order(dense), *order(keyword)})
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 + 1e-9 for score in scores)


@settings(deadline=None)
@given(COSINES, BM25, WEIGHTS, st.randoms(use_true_random=False))
def test_the_same_hits_give_the_same_order_however_they_arrive(
    dense: list[Hit], keyword: list[Hit], weight: float, random: Random
) -> None:
    assert fuse(shuffled(dense, random), shuffled(keyword, random), weight) == fuse(dense, keyword, weight)


@settings(deadline=None)
@given(COSINES, BM25)
def test_all_the_weight_on_one_list_keeps_its_order(dense: list[Hit], keyword: list[Hit]) -> None:
    wanted = {found.chunk.id: found.score for found in dense}
    first = [wanted[found.chunk.id] for found in fuse(dense, keyword, 1.0) if found.chunk.id in wanted]
    assert first == pytest.approx(sorted(first, reverse=True), abs=1e-9)


@settings(deadline=None)
@given(st.dictionaries(NUMBERS, st.integers(min_value=-50, max_value=50)), BM25)
def test_only_differences_within_a_list_count_not_its_scale(
    scores: dict[int, int], keyword: list[Hit]
) -> None:
    plain = ranked({number: float(score) for number, score in scores.items()})
    scaled = ranked({number: 8.0 * score + 1024.0 for number, score in scores.items()})
    assert fuse(plain, keyword, 0.5) == fuse(scaled, keyword, 0.5)


@settings(deadline=None)
@given(
    st.dictionaries(NUMBERS, st.sampled_from([0.0, 0.5, 1.0])).map(ranked),
    st.dictionaries(NUMBERS, st.sampled_from([0.0, 4.0, 8.0])).map(ranked),
    st.integers(0, 40),
)
def test_the_best_few_are_the_first_of_all_also_where_many_are_as_good(
    dense: list[Hit], keyword: list[Hit], most: int
) -> None:
    assert fuse(dense, keyword, 0.5, most) == fuse(dense, keyword, 0.5)[:most]


def test_hits_that_are_all_as_good_have_the_best_score() -> None:
    for scores in ({1: 0.3}, {1: 0.3, 2: 0.3}, {1: 0.0}):
        assert set(fusion.scaled(ranked(scores)).scores) == {1.0}
