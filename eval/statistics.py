"""How sure a mean difference is, when cases come in pairs and in clusters.

Differences are taken case by case, so that what makes a case hard cancels out, and summed by cluster (cases
about one document), since these succeed and fail together. Three kinds of data, three intervals, each chosen
by its measured coverage at 60, 500 and 1 000 cases (`plumbline eval simulate`):

- all differences alike: a point. It says nothing of a loss too rare to have been drawn; `visible` does.
- right or wrong (differences of -1, 0 and 1): Tango's score interval for paired proportions (Statistics in
  Medicine 17, 1998), on the sample size that clusters leave (Rao and Scott, Biometrics 48, 1992). Student's
  interval missed a loss of 3 points up to 1.7 times as often as it said.
- all else: Student's t over clusters with the cluster-robust variance (Liang and Zeger, Biometrika 73,
  1986; degrees of freedom: clusters less one). Where a share Z of the cases does not differ, the variance
  seen is too small just when the losses were not drawn: then Z (2 + 20/K) more clusters as far out as the
  farthest, K being those that differ (pseudo-observations as Bonett and Price, J. Educ. Behav. Stat. 37,
  2012, have them for proportions; their number is by measurement). At 60 cases of which one in 16 loses
  something, Student's lower bound was above the truth 8 times in 100 instead of once, this one 0.8 times.
  Where every case loses a little, and a few much, it is too high 2.8 times in 100 at 60 cases, 1.4 at 1 000.

The studentized bootstrap over clusters, also measured, missed up to 5 times in 100 at 60 cases that are right
or wrong, and its p-values are no finer than its resamples, which many guards need. Nothing here is random but
`ratio_interval`, which is seeded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from eval.types import Interval

Values = npt.NDArray[np.float64]
Statistic = Literal["mean", "p50", "p95"]

POWER = 0.8
FEW = 12
"""Clusters, below which the design effect is hardly known."""

RESAMPLES = 2_000
_ALIKE = 1e-12
_HALVINGS = 40


class Estimate(Protocol):
    """What the data says about a mean."""

    @property
    def mean(self) -> float: ...

    def interval(self, alpha: float) -> Interval:
        """The mean lies below `low` with probability alpha, and above `high` with the same."""

    def p_below(self, bound: float) -> float:
        """The probability of data that speaks as much for a mean below `bound`, if it is not below."""

    def visible(self, alpha: float) -> float:
        """The smallest loss that such data would have shown (interval below 0) with 80 % probability."""


@dataclass(frozen=True, slots=True)
class Constant:
    """All clusters have the same mean."""

    mean: float
    clusters: int

    def interval(self, alpha: float) -> Interval:
        return Interval(self.mean, self.mean, self.mean)

    def p_below(self, bound: float) -> float:
        """By the sign test: every cluster lies on the same side."""
        return 1.0 if self.mean >= bound else math.pow(0.5, self.clusters)

    def visible(self, alpha: float) -> float:
        """A cluster in this many lost altogether would have been drawn, but for a chance of alpha."""
        return 1 - math.pow(alpha, 1 / self.clusters)


@dataclass(frozen=True, slots=True)
class Student:
    mean: float
    error: float
    clusters: int

    def interval(self, alpha: float) -> Interval:
        reach = -_quantile(self.clusters, alpha) * self.error
        return Interval(self.mean, self.mean - reach, self.mean + reach)

    def p_below(self, bound: float) -> float:
        return _below(self.clusters, (self.mean - bound) / self.error)

    def visible(self, alpha: float) -> float:
        return -(_quantile(self.clusters, alpha) + _quantile(self.clusters, 1 - POWER)) * self.error


@dataclass(frozen=True, slots=True)
class Discordant:
    """`lost` and `won` of `size` pairs, each divided by the design effect of the clusters. Its reference is
    the normal distribution, or Student's where the clusters are too few to know their effect."""

    lost: float
    won: float
    size: float
    clusters: int

    @property
    def mean(self) -> float:
        return (self.won - self.lost) / self.size

    @property
    def _known(self) -> float:
        return self.clusters if self.clusters < FEW else math.inf

    def interval(self, alpha: float) -> Interval:
        reach = -_quantile(self._known, alpha)
        low = _root(lambda bound: self._score(bound) - reach, -1.0, self.mean)
        high = _root(lambda bound: self._score(bound) + reach, self.mean, 1.0)
        return Interval(self.mean, low, high)

    def p_below(self, bound: float) -> float:
        return _below(self._known, self._score(bound))

    def visible(self, alpha: float) -> float:
        """As many pairs differ as did here, or more where the loss alone takes more."""
        reach, power = -_quantile(self._known, alpha), -_quantile(self._known, 1 - POWER)
        seen, loss = (self.lost + self.won) / self.size, 0.0
        for _ in range(_HALVINGS):
            differ = max(seen, loss)
            error = reach * math.sqrt(differ) + power * math.sqrt(max(differ - loss**2, 0.0))
            loss = min(1.0, error / math.sqrt(self.size))
        return loss

    def _score(self, bound: float) -> float:
        """How many standard errors above `bound` the mean is, the error being what it would be there."""
        linear = (2 * self.size - self.won + self.lost) * bound - self.won - self.lost
        product = -self.lost * bound * (1 - bound)
        rate = (math.sqrt(max(linear**2 - 8 * self.size * product, 0.0)) - linear) / (4 * self.size)
        variance = self.size * (2 * rate + bound * (1 - bound))
        distance = self.won - self.lost - self.size * bound
        return distance / math.sqrt(variance) if variance > _ALIKE else math.copysign(math.inf, distance)


def estimate(values: Sequence[float], clusters: Sequence[str] | None = None) -> Estimate:
    """Of the mean of the values, in clusters of equal names; without names each value is its own."""
    if not values:
        raise ValueError("an estimate needs at least one value")
    array = np.asarray(values, dtype=np.float64)
    return estimate_grouped(array, *_by_cluster(array, clusters))


def estimate_grouped(values: Values, sums: Values, counts: Values) -> Estimate:
    """The same with the sum and the number of the values of each cluster."""
    mean, groups, size = float(values.mean()), len(sums), len(values)
    if groups < 2 or np.ptp(sums / counts) <= _ALIKE:
        return Constant(mean, groups)
    rest = sums - mean * counts
    squares = float(rest @ rest)
    if np.isin(values, (-1.0, 0.0, 1.0)).all():
        spread = float(values @ values) / size - mean**2
        effect = max(1.0, squares * groups / (groups - 1) / (spread * size))
        lost, won = float((values < 0).sum()), float((values > 0).sum())
        return Discordant(lost / effect, won / effect, size / effect, groups)
    alike = 1 - np.count_nonzero(values) / size
    squares += alike * (2 + 20 / np.count_nonzero(sums)) * float(np.abs(rest).max()) ** 2
    return Student(mean, math.sqrt(squares * groups / (groups - 1)) / size, groups)


def mean_interval(
    values: Sequence[float], *, clusters: Sequence[str] | None = None, confidence: float = 0.95
) -> Interval:
    """The mean and its two-sided interval."""
    return estimate(values, clusters).interval((1 - confidence) / 2)


def mean_difference(
    baseline: Sequence[float],
    candidate: Sequence[float],
    *,
    clusters: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Candidate minus baseline on the same cases in the same order: mean and two-sided interval."""
    return mean_interval(differences(baseline, candidate), clusters=clusters, confidence=confidence)


def differences(baseline: Sequence[float], candidate: Sequence[float]) -> list[float]:
    if len(baseline) != len(candidate):
        raise ValueError("paired values must be of the same cases")
    return [after - before for before, after in zip(baseline, candidate, strict=True)]


def within(interval: Interval, margin: float) -> bool:
    """Is it shown that no more than the margin was lost? Nothing lost at all is within any margin."""
    return interval.low > -margin or interval.low == 0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted so that rejecting those below alpha rejects any true hypothesis with probability alpha at
    most, however they depend on one another (Holm, Scand. J. Statist. 6, 1979)."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        least = max(least, min(1.0, p_values[index] * (len(p_values) - place)))
        adjusted[index] = least
    return adjusted


def ratio_interval(
    baseline: Sequence[float],
    candidate: Sequence[float],
    *,
    statistic: Statistic,
    alpha: float,
    clusters: Sequence[str] | None = None,
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval:
    """Candidate over baseline of a mean or a quantile, and its percentile bootstrap interval (Efron and
    Tibshirani, 1993), pairs resampled together and by cluster. The baseline's must be above 0."""
    pairs = np.asarray([baseline, candidate], dtype=np.float64)
    _, where = np.unique(np.asarray(clusters or range(pairs.shape[1])), return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(
        where.max() + 1, np.full(where.max() + 1, 1 / (where.max() + 1)), size=resamples
    )
    weights = drawn[:, where].astype(np.float64)
    before, after = (_weighted(row, weights, statistic) for row in pairs)
    ratios = after / np.maximum(before, _ALIKE)
    one = np.ones((1, pairs.shape[1]))
    mean = float(_weighted(pairs[1], one, statistic)[0] / _weighted(pairs[0], one, statistic)[0])
    low, high = np.quantile(ratios, (alpha, 1 - alpha))
    return Interval(mean, float(low), float(high))


def measure(values: Sequence[float], statistic: Statistic) -> float:
    """The mean, or the smallest value that a share of the values does not exceed."""
    array = np.asarray(values, dtype=np.float64)
    return float(_weighted(array, np.ones((1, len(array))), statistic)[0])


def _weighted(values: Values, weights: Values, statistic: Statistic) -> Values:
    """Of each row of weights."""
    total = np.maximum(weights.sum(axis=1), _ALIKE)
    if statistic == "mean":
        return np.asarray(weights @ values / total)
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[:, order], axis=1)
    share = {"p50": 0.5, "p95": 0.95}[statistic]
    return np.asarray(values[order][(reached >= share * total[:, None] - _ALIKE).argmax(axis=1)])


def _by_cluster(values: Values, clusters: Sequence[str] | None) -> tuple[Values, Values]:
    """Sum and number of the values of each cluster. One cluster alone tells nothing of clusters: then each
    value is its own."""
    if clusters is None or len(set(clusters)) < 2:
        return values, np.ones_like(values)
    _, where = np.unique(np.asarray(clusters), return_inverse=True)
    return np.bincount(where, weights=values).astype(np.float64), np.bincount(where).astype(np.float64)


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function is 0, by halving."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def _quantile(clusters: float, share: float) -> float:
    """Of Student's distribution, or the normal one for infinitely many clusters."""
    from scipy.special import ndtri, stdtrit  # slow to import, and only needed here

    return float(ndtri(share) if math.isinf(clusters) else stdtrit(clusters - 1, share))


def _below(clusters: float, value: float) -> float:
    from scipy.special import ndtr, stdtr

    if math.isinf(value):
        return float(value > 0)
    return float(ndtr(value) if math.isinf(clusters) else stdtr(clusters - 1, value))
