"""Shadows whose loss is known: pairs of answers to the same question, most of them equally good."""

from __future__ import annotations

import math

import numpy as np

from eval.rules import ShadowRules, Watched
from eval.sequential import PairTest, Values
from eval.simulation.rows import Progress, Row, percentile, share

LOSS = 0.05
TARGETS = ((0.1, 1_000), (0.2, 1_800))
"""Shares of pairs in which one answer is better, and by how many pairs the loss must be found."""


def simulated(rules: ShadowRules, runs: int, progress: Progress, seed: int = 3) -> list[Row]:
    """By the least sensitive of the rules' tests."""
    generator = np.random.default_rng(seed)
    rule = min(rules.metrics.values(), key=lambda metric: metric.alpha)
    rows = []
    for discordant, most in TARGETS:
        about = f"{discordant:.0%} of pairs differ"
        found = _alarms(about, rule, rules.pairs, discordant, LOSS, runs, generator, progress)
        name = f"5-point loss, {about}: found 95 times in 100"
        rows.append(percentile("shadow", name, found, unit="pairs", high=most))
    about = "equal releases"
    alarms = _alarms(about, rule, rules.pairs, TARGETS[1][0], 0.0, runs, generator, progress)
    false = [math.isfinite(pairs) for pairs in alarms]
    return [*rows, share("shadow", f"{about}: harm said within {rules.pairs} pairs", false, high=rule.alpha)]


def _alarms(
    about: str,
    rule: Watched,
    pairs: int,
    discordant: float,
    loss: float,
    runs: int,
    generator: np.random.Generator,
    progress: Progress,
) -> list[float]:
    """After how many pairs each run's test showed harm; infinite if never."""
    found = []
    for done in range(runs):
        path = PairTest(rule.alternatives).extend(_losses(pairs, discordant, loss, generator))
        shown = np.flatnonzero(path >= 1 / rule.alpha)
        found.append(float(shown[0] + 1) if len(shown) else math.inf)
        progress(about, done + 1, runs)
    return found


def _losses(pairs: int, discordant: float, loss: float, generator: np.random.Generator) -> Values:
    drawn = generator.random(pairs)
    return np.where(drawn < (discordant + loss) / 2, 1.0, np.where(drawn < discordant, -1.0, 0.0))
