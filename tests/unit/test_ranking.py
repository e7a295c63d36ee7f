"""Ranking metrics against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from eval.metrics import ranking
from eval.metrics.measure import score
from eval.types import Case, Gold, Passage, Sample

LOG3 = math.log2(3)


def test_ndcg_weighs_gains_by_place() -> None:
    # Places 1, 2, 3: gains 1, 0, 3. DCG = 1 + 3/2; ideal 3 + 1/log2(3).
    found = ranking.ndcg(["b", "x", "a"], {"a": 3.0, "b": 1.0}, 10)
    assert found == pytest.approx((1 + 3 / 2) / (3 + 1 / LOG3))


def test_ndcg_is_one_for_the_ideal_order_and_zero_for_nothing() -> None:
    assert ranking.ndcg(["a", "b", "x"], {"a": 2.0, "b": 1.0}, 10) == 1.0
    assert ranking.ndcg([], {"a": 1.0}, 10) == 0.0


def test_ndcg_ignores_what_lies_below_the_depth() -> None:
    assert ranking.ndcg(["x", "y", "a"], {"a": 1.0}, 2) == 0.0


def test_a_document_found_twice_counts_once() -> None:
    # Two chunks of "a" take one place: "b" is second.
    assert ranking.ndcg(["a", "a", "b"], {"a": 1.0, "b": 1.0}, 2) == 1.0
    assert ranking.recall(["a", "a", "b"], frozenset("ab"), 2) == 1.0


def test_recall_is_the_share_of_the_relevant() -> None:
    assert ranking.recall(["a", "x", "b"], frozenset("abcd"), 10) == 0.5
    assert ranking.recall(["x", "x2", "a"], frozenset("a"), 2) == 0.0


def test_reciprocal_rank_is_of_the_first_relevant() -> None:
    assert ranking.reciprocal_rank(["x", "y", "a", "b"], frozenset("ab")) == pytest.approx(1 / 3)
    assert ranking.reciprocal_rank(["x"], frozenset("a")) == 0.0


def test_a_passage_holds_a_quote_whatever_the_white_space() -> None:
    gold = Gold("doc", "28 days of paid\nleave")
    assert ranking.holds(_passage("doc", "… has 28  days of\npaid leave per year"), gold)
    assert not ranking.holds(_passage("other", "has 28 days of paid leave"), gold)
    assert not ranking.holds(_passage("doc", "has 26 days of paid leave"), gold)


def test_a_quote_cut_by_a_chunk_boundary_is_held_by_the_larger_part() -> None:
    quote = "abcdefghij"
    assert ranking.overlap("xx abcdef", quote) == 0.6
    assert ranking.overlap("ghij yy", quote) == 0.4
    assert ranking.overlap("cdef", quote) == 0.4
    assert ranking.holds(_passage("doc", "xx abcdef"), Gold("doc", quote))
    assert not ranking.holds(_passage("doc", "ghij yy"), Gold("doc", quote))


def test_passage_metrics_by_hand() -> None:
    # Three gold passages; place 1 none, place 2 one, place 3 the same again, place 4 another; one missing.
    covered = [frozenset[int](), frozenset({0}), frozenset({0}), frozenset({0, 1})]
    assert ranking.passage_recall(covered, 3, 10) == pytest.approx(2 / 3)
    assert ranking.passage_recall(covered, 3, 2) == pytest.approx(1 / 3)
    assert ranking.passage_reciprocal_rank(covered) == 0.5
    ideal = 1 + 1 / LOG3 + 1 / 2
    assert ranking.passage_ndcg(covered, 3, 10) == pytest.approx((1 / LOG3 + 1 / math.log2(5)) / ideal)


def test_one_passage_that_holds_all_gold_is_perfect_at_the_top() -> None:
    assert ranking.passage_ndcg([frozenset({0, 1})], 2, 10) == 1.0


async def test_a_query_that_found_nothing_scores_zero_and_one_that_failed_has_an_error() -> None:
    case = Case(id="q", question="?", gold=(Gold("doc", "a quote"),))
    empty = Sample(case_id="q", hits=(), errors={})
    lost = Sample(case_id="q", errors={"search": "the store is down"})
    for metric in ranking.ranking_metrics():
        assert metric.applies(case)
        assert (await score(metric, case, empty)).value == 0.0
        failed = await score(metric, case, lost)
        assert failed.value is None
        assert failed.error == "the store is down"


async def test_graded_judgments_count_by_their_gain() -> None:
    case = Case(id="q", question="?", gold=(Gold("a", gain=3.0), Gold("b")))
    sample = Sample(case_id="q", hits=(_passage("b", ""), _passage("x", ""), _passage("a", "")), errors={})
    metric = next(m for m in ranking.ranking_metrics() if m.name == "document_ndcg_10")
    assert (await score(metric, case, sample)).value == pytest.approx((1 + 3 / 2) / (3 + 1 / LOG3))


def _passage(document_id: str, text: str) -> Passage:
    return Passage(document_id=document_id, chunk_id=f"{document_id}-0", text=text)
