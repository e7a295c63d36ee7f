"""What a shadow has shown so far, from pairs of answers to the same question."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from app.trials import Pair, Trial
from eval.canary import AT_ONCE, SLOW, UNSUPPORTED, Facts
from eval.rules import ShadowRules
from eval.sequential import Evidence, ShadowTests

Harms = tuple[float, float]
"""Of the champion's answer and of the candidate's, in [0, 1], 1 is bad."""


class ShadowWatch:
    """A pair counts when both answers were worked out from the same state of the documents."""

    def __init__(self, trial: Trial, rules: ShadowRules) -> None:
        self._rules = rules
        self._wanted = int(trial.plan.get("pairs", rules.least_pairs))
        self._tests = ShadowTests(rules)
        self._pairs = 0
        self._passed_over = 0
        self._harmed: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        return self._tests.evidence

    @property
    def shown(self) -> tuple[str, ...]:
        """The metrics in which harm is shown."""
        return self._tests.shown

    @property
    def pairs(self) -> int:
        """Those that count."""
        return self._pairs

    @property
    def wanted(self) -> int:
        return self._wanted

    def observe(self, pair: Pair) -> None:
        if not pair.counted:
            self._passed_over += 1
            return
        self._pairs += 1
        for metric in self._rules.metrics:
            harms = self._harms(metric, pair)
            if harms is None:
                continue
            before, after = harms
            self._tests.observe(metric, after - before)
            self._harmed["control"][metric] += before
            self._harmed["candidate"][metric] += after

    def _harms(self, metric: str, pair: Pair) -> Harms | None:
        """None where there is nothing to measure."""
        champion, candidate = pair.champion, pair.candidate
        if metric == SLOW:
            return self._slower(champion, candidate), self._slower(candidate, champion)
        if metric == UNSUPPORTED:
            shares = champion.get(UNSUPPORTED), candidate.get(UNSUPPORTED)
            return None if None in shares else (float(shares[0] or 0.0), float(shares[1] or 0.0))
        return AT_ONCE[metric](champion), AT_ONCE[metric](candidate)

    def _slower(self, one: Facts, other: Facts) -> float:
        took, against = float(one["seconds"]), float(other["seconds"])
        longer = took - against > self._rules.slow_floor_seconds
        return float(longer and took > self._rules.slow_factor * against)

    def told(self) -> dict[str, Any]:
        """For people and programs to read."""
        return {
            "pairs": self._pairs,
            "wanted": self._wanted,
            "passed_over": self._passed_over,
            "metrics": [
                {
                    "metric": one.metric,
                    "e_value": one.e_value,
                    "highest": one.highest,
                    "threshold": one.threshold,
                    "units": one.units,
                    "harmed": one.harmed,
                    **{
                        f"rate_{arm}": round(self._harmed[arm][one.metric] / one.units, 6)
                        if one.units
                        else None
                        for arm in ("candidate", "control")
                    },
                }
                for one in self.evidence
            ],
        }
