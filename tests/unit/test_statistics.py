"""The intervals hold what they promise, checked by simulation with a fixed seed."""

from __future__ import annotations

import numpy as np
import pytest

from eval.statistics import mean_difference, mean_interval


def test_the_same_input_gives_the_same_interval() -> None:
    generator = np.random.default_rng(1)
    before, after = list(generator.random(40)), list(generator.random(40))
    assert mean_difference(before, after, seed=3) == mean_difference(before, after, seed=3)
    assert mean_difference(before, after, seed=3) != mean_difference(before, after, seed=4)


def test_no_difference_is_exactly_zero() -> None:
    values = [0.0, 0.5, 1.0, 0.25]
    found = mean_difference(values, values)
    assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)


def test_a_constant_difference_has_no_width() -> None:
    found = mean_difference([0.5, 0.7, 0.1], [0.25, 0.45, -0.15])
    assert found.low == found.high == found.mean == pytest.approx(-0.25)


def test_the_difference_is_candidate_minus_baseline() -> None:
    worse = mean_difference([1.0] * 30, [1.0] * 15 + [0.0] * 15)
    assert worse.mean == pytest.approx(-0.5)
    assert worse.low < -0.5 < worse.high < 0


@pytest.mark.parametrize("shape", ["normal", "skewed", "binary"])
def test_a_95_percent_interval_covers_the_truth_about_95_times_in_100(shape: str) -> None:
    """400 experiments of 40 paired cases; the binomial error of the rate is 1.1 points."""
    generator, covered = np.random.default_rng(11), 0
    for _ in range(400):
        differences, truth = _draw(shape, generator)
        found = mean_interval(differences, resamples=999, seed=5)
        covered += found.low <= truth <= found.high
    assert 0.91 <= covered / 400 <= 0.98


def test_clustered_intervals_cover_where_plain_ones_do_not() -> None:
    """Ten clusters of eight cases that share most of their noise."""
    generator = np.random.default_rng(7)
    clusters = [f"doc-{i // 8}" for i in range(80)]
    plain = clustered = 0
    for _ in range(200):
        shared = np.repeat(generator.normal(0, 1, 10), 8)
        values = list(shared + generator.normal(0, 0.3, 80))
        one = mean_interval(values, resamples=999)
        other = mean_interval(values, clusters=clusters, resamples=999)
        plain += one.low <= 0 <= one.high
        clustered += other.low <= 0 <= other.high
    assert plain / 200 < 0.7
    assert clustered / 200 > 0.85


def test_equal_clusters_give_a_point_even_when_cases_differ() -> None:
    found = mean_interval([0.0, 1.0, 0.0, 1.0], clusters=["a", "a", "b", "b"])
    assert found.low == found.high == 0.5


def test_unpaired_values_are_refused() -> None:
    with pytest.raises(ValueError, match="same cases"):
        mean_difference([1.0], [1.0, 2.0])


def _draw(shape: str, generator: np.random.Generator) -> tuple[list[float], float]:
    """Forty paired differences and their true mean."""
    match shape:
        case "normal":
            return list(generator.normal(0.05, 0.2, 40)), 0.05
        case "skewed":
            return list(generator.exponential(0.2, 40)), 0.2
        case _:  # One release right and the other wrong: -1, 0 or 1.
            return list(generator.choice([-1.0, 0.0, 1.0], 40, p=[0.2, 0.65, 0.15])), -0.05
