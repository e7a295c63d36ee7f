"""The intervals hold what they promise, checked by simulation with a fixed seed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eval.statistics import (
    Constant,
    Discordant,
    Student,
    Values,
    estimate,
    holm,
    mean_difference,
    mean_interval,
    measure,
    ratio_interval,
    within,
)
from eval.types import Interval

ALPHA = 0.01


def test_the_same_cases_in_any_order_give_the_same_interval() -> None:
    generator = np.random.default_rng(1)
    before, after = list(generator.random(40)), list(generator.random(40))
    names = [f"doc-{place % 7}" for place in range(40)]
    found = mean_difference(before, after, clusters=names)
    assert found == mean_difference(before, after, clusters=names)
    turned = mean_difference(before[::-1], after[::-1], clusters=names[::-1])
    assert (turned.low, turned.high) == pytest.approx((found.low, found.high))


def test_no_difference_is_exactly_zero_and_says_what_it_could_have_seen() -> None:
    found = estimate([0.0] * 60)
    assert found.interval(ALPHA) == Interval(0.0, 0.0, 0.0)
    assert found.visible(ALPHA) == pytest.approx(1 - ALPHA ** (1 / 60))
    assert estimate([0.0] * 600).visible(ALPHA) < found.visible(ALPHA) / 5


def test_a_constant_difference_has_no_width() -> None:
    found = mean_difference([0.5, 0.7, 0.1], [0.25, 0.45, -0.15])
    assert found.low == found.high == found.mean == pytest.approx(-0.25)


def test_the_difference_is_candidate_minus_baseline() -> None:
    worse = mean_difference([1.0] * 30, [1.0] * 15 + [0.0] * 15)
    assert worse.mean == pytest.approx(-0.5)
    assert worse.low < -0.5 < worse.high < 0


@pytest.mark.parametrize("shape", ["normal", "skewed", "binary", "sparse"])
def test_a_95_percent_interval_covers_the_truth_about_95_times_in_100(shape: str) -> None:
    """1 000 experiments of 40 paired cases; the binomial error of the rate is 0.7 points."""
    generator, covered = np.random.default_rng(11), 0
    for _ in range(1_000):
        differences, truth = _draw(shape, generator)
        found = mean_interval(differences)
        covered += found.low <= truth <= found.high
    assert 0.91 <= covered / 1_000 <= 0.985


@pytest.mark.parametrize(("shape", "cases"), [("binary", 60), ("sparse", 60), ("normal", 60)])
def test_a_lower_bound_is_seldom_above_the_truth(shape: str, cases: int) -> None:
    """2 000 experiments at an error of 1 %: the standard error of the rate is 0.2 points."""
    generator, above = np.random.default_rng(12), 0
    for _ in range(2_000):
        differences, truth = _draw(shape, generator, cases)
        above += estimate(differences).interval(ALPHA).low > truth
    assert above / 2_000 <= 0.015


def test_clustered_intervals_cover_where_plain_ones_do_not() -> None:
    """Ten clusters of eight cases that share most of their noise."""
    generator = np.random.default_rng(7)
    clusters = [f"doc-{i // 8}" for i in range(80)]
    plain = clustered = 0
    for _ in range(200):
        shared = np.repeat(generator.normal(0, 1, 10), 8)
        values = list(shared + generator.normal(0, 0.3, 80))
        one = mean_interval(values)
        other = mean_interval(values, clusters=clusters)
        plain += one.low <= 0 <= one.high
        clustered += other.low <= 0 <= other.high
    assert plain / 200 < 0.7
    assert clustered / 200 > 0.94


def test_equal_clusters_give_a_point_even_when_cases_differ() -> None:
    found = mean_interval([0.0, 1.0, 0.0, 1.0], clusters=["a", "a", "b", "b"])
    assert found.low == found.high == 0.5


def test_cases_of_one_document_are_taken_each_for_itself() -> None:
    values = [0.1, -0.3, 0.4, 0.2]
    assert mean_interval(values, clusters=["a"] * 4) == mean_interval(values)


def test_the_kind_of_data_chooses_the_interval() -> None:
    assert isinstance(estimate([0.25] * 9), Constant)
    assert isinstance(estimate([0.0, 1.0, -1.0, 0.0]), Discordant)
    assert isinstance(estimate([0.0, 0.5, -1.0, 0.0]), Student)


@pytest.mark.parametrize("bound", [-0.3, -0.05, 0.0, 0.2])
def test_the_score_is_that_of_the_likeliest_rates_with_that_difference(bound: float) -> None:
    """Against a search over all rates: 7 pairs lost, 3 won, of 50 (Tango 1998, equations 3 and 4)."""
    lost, won, size = 7, 3, 50
    rates = np.linspace(max(0.0, -bound), min(1.0, (1 - bound) / 2), 400_001)[1:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        likelihood = (
            lost * np.log(rates)
            + won * np.log(rates + bound)
            + (size - lost - won) * np.log1p(-2 * rates - bound)
        )
    best = rates[np.nanargmax(likelihood)]
    expected = (won - lost - size * bound) / math.sqrt(size * (2 * best + bound - bound**2))
    found = Discordant(lost=lost, won=won, size=size, clusters=10**9).p_below(bound)
    assert found == pytest.approx(0.5 * math.erfc(-expected / math.sqrt(2)), abs=1e-4)


def test_an_interval_ends_where_its_test_rejects() -> None:
    generator = np.random.default_rng(4)
    for values in ([*([-1.0] * 9), *([1.0] * 3), *([0.0] * 48)], list(generator.normal(-0.1, 0.3, 60))):
        found = estimate(values)
        high = found.interval(ALPHA).high
        assert found.p_below(high) == pytest.approx(ALPHA, rel=1e-3)
        assert found.p_below(high - 0.02) > ALPHA > found.p_below(high + 0.02)


def test_clusters_that_agree_make_right_or_wrong_less_sure() -> None:
    values = [-1.0] * 4 + [1.0] * 4 + [0.0] * 72
    names = [f"doc-{place // 4}" for place in range(80)]
    alone, together = mean_interval(values), mean_interval(values, clusters=names)
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


@pytest.mark.parametrize("discordant", [None, 0.1])
def test_a_loss_as_large_as_visible_shows_4_times_in_5(discordant: float | None) -> None:
    generator = np.random.default_rng(5)
    visible = 0.07 if discordant is None else 0.066

    def draw() -> Values:
        if discordant is None:
            return generator.normal(-visible, 0.3, 200)
        lost, won = (discordant + visible) / 2, (discordant - visible) / 2
        return generator.choice([-1.0, 0.0, 1.0], 200, p=[lost, 1 - discordant, won])

    found = [estimate(list(draw())) for _ in range(500)]
    assert np.mean([one.visible(ALPHA) for one in found]) == pytest.approx(visible, rel=0.1)
    shown = np.mean([one.interval(ALPHA).high < 0 for one in found])
    assert 0.7 <= shown <= 0.88


def test_nothing_lost_is_within_a_margin_of_nothing() -> None:
    assert within(Interval(0, 0, 0), 0)
    assert not within(Interval(0, -0.01, 0.01), 0.01)
    assert within(Interval(0, -0.01, 0.01), 0.011)


def test_holm_adjusts_from_the_smallest_up() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_ratio_is_of_the_statistic_and_certain_where_it_is_constant() -> None:
    generator = np.random.default_rng(6)
    before = list(generator.lognormal(0, 1, 100))
    for statistic in ("mean", "p50", "p95"):
        found = ratio_interval(
            before, [2 * value for value in before], statistic=statistic, alpha=ALPHA, seed=1
        )
        assert (found.mean, found.low, found.high) == pytest.approx((2, 2, 2))


def test_the_interval_of_a_ratio_covers_the_truth() -> None:
    """300 experiments; the binomial error of the rate is 1.3 points."""
    generator, covered = np.random.default_rng(9), 0
    for _ in range(300):
        before = generator.lognormal(0, 0.5, 100)
        after = before * generator.lognormal(math.log(1.2), 0.3, 100)
        found = ratio_interval(
            list(before), list(after), statistic="p50", alpha=0.025, seed=2, resamples=1_000
        )
        covered += found.low <= 1.2 <= found.high
    assert 0.91 <= covered / 300 <= 0.99


def test_a_ratio_is_the_same_every_time_and_wider_in_clusters() -> None:
    generator = np.random.default_rng(10)
    shared = np.repeat(generator.lognormal(0, 1, 20), 5)
    before, after = list(np.ones(100)), list(shared)
    names = [f"doc-{place // 5}" for place in range(100)]
    one = ratio_interval(before, after, statistic="mean", alpha=ALPHA, seed=1)
    assert one == ratio_interval(before, after, statistic="mean", alpha=ALPHA, seed=1)
    other = ratio_interval(before, after, statistic="mean", alpha=ALPHA, seed=1, clusters=names)
    assert other.high - other.low > 1.5 * (one.high - one.low)


def test_a_quantile_is_the_smallest_value_that_enough_do_not_exceed() -> None:
    values = [float(value) for value in range(1, 101)]
    assert measure(values[::-1], "p95") == 95
    assert measure(values, "p50") == 50
    assert measure(values, "mean") == 50.5


def test_unpaired_values_are_refused() -> None:
    with pytest.raises(ValueError, match="same cases"):
        mean_difference([1.0], [1.0, 2.0])


def _draw(shape: str, generator: np.random.Generator, cases: int = 40) -> tuple[list[float], float]:
    """Paired differences and their true mean."""
    match shape:
        case "normal":
            return list(generator.normal(0.05, 0.2, cases)), 0.05
        case "skewed":
            return list(generator.exponential(0.2, cases)), 0.2
        case "sparse":  # Most cases alike, a few partly lost.
            lost = generator.uniform(0.1, 1, cases) * (generator.random(cases) < 0.15)
            return list(-lost), -0.15 * 0.55
        case _:  # One release right and the other wrong: -1, 0 or 1.
            return list(generator.choice([-1.0, 0.0, 1.0], cases, p=[0.2, 0.65, 0.15])), -0.05


def test_few_clusters_make_right_or_wrong_less_sure_than_many() -> None:
    few, many = (Discordant(lost=3.0, won=1.0, size=40.0, clusters=n) for n in (6, 60))
    assert (
        few.interval(0.01).low < many.interval(0.01).low < many.interval(0.01).high < few.interval(0.01).high
    )
    assert few.p_below(0.2) > many.p_below(0.2)


def test_values_that_all_differ_have_the_usual_standard_error() -> None:
    values = [0.1, 0.3, -0.2, 0.4, 0.25]
    found = estimate(values)
    assert isinstance(found, Student)
    assert found.error == pytest.approx(np.std(values, ddof=1) / math.sqrt(len(values)))


def test_a_loss_of_just_the_bound_speaks_for_no_larger_one() -> None:
    assert Constant(-0.03, 40).p_below(-0.03) == 1.0
    assert Constant(-0.03, 40).p_below(-0.02) < 1e-9
