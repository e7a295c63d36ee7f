"""`plumbline eval simulate`: how often gate, canaries and shadows err, measured where the truth is known."""

from __future__ import annotations

from eval.rules import Rules
from eval.simulation import canaries, releases, shadows
from eval.simulation.rows import Progress, Row, Table
from eval.types import RulesInvalid


def simulate(
    rules: Rules, *, releases_count: int, canaries_count: int, shadows_count: int, progress: Progress
) -> Table:
    """Each with its own seed, so that a count of 0 leaves the others' figures as they are."""
    if rules.canary is None or rules.shadow is None:
        raise RulesInvalid("The rules have no [canary] or no [shadow]: there is nothing to simulate.")
    rows: list[Row] = []
    if releases_count:
        rows += releases.simulated(rules, releases_count, progress)
    if canaries_count:
        rows += canaries.simulated(rules.canary, canaries_count, progress)
    if shadows_count:
        rows += shadows.simulated(rules.shadow, shadows_count, progress)
    return Table(tuple(rows))
