"""How sure a difference is: paired bootstrap intervals, the same every time for the same input.

Cases are resampled with both releases' values together, so that what makes a case hard cancels out. With
clusters (cases about one document) whole clusters are resampled, which is wider and more honest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eval.types import Interval

Values = npt.NDArray[np.float64]

RESAMPLES = 9_999
_BATCH_CELLS = 4_000_000


def mean_interval(
    values: Sequence[float],
    *,
    clusters: Sequence[str] | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The mean and its bias-corrected and accelerated (BCa) bootstrap interval (Efron 1987).

    Where all clusters (or values) are equal, there is nothing to resample: the interval is the mean.
    """
    if not values:
        raise ValueError("an interval needs at least one value")
    sums, counts = _by_cluster(values, clusters)
    mean = float(sums.sum() / counts.sum())
    if np.ptp(sums / counts) <= 1e-12:
        return Interval(mean, mean, mean)
    from scipy.stats import bootstrap  # slow to import, and only needed here

    result = bootstrap(
        (sums, counts),
        _ratio,
        paired=True,
        vectorized=True,
        confidence_level=confidence,
        n_resamples=resamples,
        batch=max(1, _BATCH_CELLS // len(sums)),
        method="BCa" if len(sums) > 2 else "percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return Interval(mean, float(low), float(high))


def mean_difference(
    baseline: Sequence[float],
    candidate: Sequence[float],
    *,
    clusters: Sequence[str] | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Candidate minus baseline on the same cases in the same order: mean and interval."""
    if len(baseline) != len(candidate):
        raise ValueError("paired values must be of the same cases")
    differences = [after - before for before, after in zip(baseline, candidate, strict=True)]
    return mean_interval(
        differences, clusters=clusters, confidence=confidence, resamples=resamples, seed=seed
    )


def _by_cluster(values: Sequence[float], clusters: Sequence[str] | None) -> tuple[Values, Values]:
    """Sum and number of the values of each cluster; without clusters each value is its own."""
    array = np.asarray(values, dtype=np.float64)
    if clusters is None:
        return array, np.ones_like(array)
    _, where = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(where, weights=array).astype(np.float64)
    return sums, np.bincount(where).astype(np.float64)


def _ratio(sums: Values, counts: Values, axis: int = -1) -> Any:
    return sums.sum(axis=axis) / counts.sum(axis=axis)
