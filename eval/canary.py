"""What a canary has shown so far, from the outcomes of its requests, one after the other.

The unit is the conversation: each counts once in each metric, however many requests it has. What is left out
is left out whichever release answered: conversations of the warm-up, those that changed sides, and those of
a tenant beyond its part.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from app.trials import Outcome, Trial
from eval.rules import CanaryRules, Step
from eval.sequential import CanaryTests, Evidence

ENOUGH = 20
"""Answers of the champion of a kind from which its usual time is known."""
REMEMBERED = 500
"""The latest of them, of which the median is taken."""
FLAWS = ("repetition", "wrong_language", "malformed", "unresolved", "truncated")

Facts = Mapping[str, Any]
Harm = Callable[[Facts], float]


def _flawed(facts: Facts) -> float:
    return max(float(facts.get(name, 0.0)) for name in FLAWS)


AT_ONCE: Mapping[str, Harm] = {
    "faults": lambda facts: float(facts.get("fault", 0.0)),
    "degraded": lambda facts: float(facts.get("degraded", 0.0)),
    "flawed": _flawed,
    "declined": lambda facts: float(facts.get("declined", 0.0)),
}
"""Harm that counts as soon as a conversation has it."""
SLOW, UNSUPPORTED, DISLIKED = "slow", "unsupported", "disliked"


@dataclass(slots=True)
class _Unit:
    candidate: bool
    propensity: float
    last: datetime
    counted: bool
    harmed: set[str] = field(default_factory=set)
    unsupported: list[float] = field(default_factory=list)
    settled: bool = False


@dataclass(slots=True)
class _Arm:
    units: int = 0
    settled: int = 0
    harmed: dict[str, float] = field(default_factory=lambda: defaultdict(float))


class CanaryWatch:
    """`plan` of the trial may have `steps` of its own. Times are those of the ledger's clock."""

    def __init__(self, trial: Trial, rules: CanaryRules) -> None:
        self._rules = rules
        self._steps = tuple(Step(**step) for step in trial.plan.get("steps", ())) or rules.steps
        self._tests = CanaryTests(rules)
        self._counts_from = trial.started_at + timedelta(seconds=rules.warm_up_seconds)
        self._settle = timedelta(seconds=rules.settle_seconds)
        self._units: dict[tuple[str, str], _Unit] = {}
        self._open: set[tuple[str, str]] = set()
        self._tenants: dict[str, float] = defaultdict(float)
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._arms = {True: _Arm(), False: _Arm()}
        self._at_share: dict[float, int] = defaultdict(int)
        self._disliked: set[int] = set()
        self._reached: set[tuple[str, str]] = set()

    @property
    def steps(self) -> Sequence[Step]:
        return self._steps

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        return self._tests.evidence

    @property
    def shown(self) -> tuple[str, ...]:
        """The metrics in which harm is shown."""
        return self._tests.shown

    @property
    def counts_from(self) -> datetime:
        """What comes before is warm-up, and no evidence."""
        return self._counts_from

    @property
    def reached(self) -> int:
        """Conversations that the candidate has had, those that do not count included."""
        return len(self._reached)

    def settled_at(self, share: float) -> int:
        """Conversations of the candidate that were drawn at this share and are done."""
        return self._at_share[share]

    def observe(self, outcome: Outcome) -> None:
        key = (outcome.tenant, outcome.unit)
        if outcome.candidate:
            self._reached.add(key)
        # Of the champion's requests only those that count are known: the others must not matter here either.
        if not outcome.counted:
            return
        unit = self._units.get(key)
        if unit is None:
            unit = self._units[key] = self._begun(outcome)
            self._open.add(key)
        elif unit.candidate != outcome.candidate:
            unit.counted = False
        unit.last = max(unit.last, outcome.at)
        if unit.counted and not unit.settled:
            self._judge(unit, outcome)

    def dislike(self, outcome: Outcome) -> None:
        """A reader said that an answer is bad; once for each outcome."""
        unit = self._units.get((outcome.tenant, outcome.unit))
        if outcome.id in self._disliked or unit is None:
            return
        self._disliked.add(outcome.id)
        if unit.counted:
            self._harm(unit, DISLIKED, 1.0)

    def settle(self, now: datetime) -> None:
        """Be done with conversations that have had their time."""
        for key in [key for key in self._open if self._units[key].last + self._settle <= now]:
            self._open.discard(key)
            unit = self._units[key]
            unit.settled = True
            if unit.counted:
                self._done(unit)

    def _begun(self, outcome: Outcome) -> _Unit:
        counted = outcome.at >= self._counts_from
        if counted:
            self._tenants[outcome.tenant] += outcome.propensity
            counted = self._tenants[outcome.tenant] <= self._rules.tenant_units
        if counted:
            self._arms[outcome.candidate].units += 1
        return _Unit(outcome.candidate, outcome.propensity, outcome.at, counted)

    def _judge(self, unit: _Unit, outcome: Outcome) -> None:
        for name, harm in AT_ONCE.items():
            self._harm(unit, name, harm(outcome.facts))
        self._harm(unit, SLOW, self._slow(outcome))
        if (unsupported := outcome.facts.get(UNSUPPORTED)) is not None:
            unit.unsupported.append(float(unsupported))

    def _slow(self, outcome: Outcome) -> float:
        """By what the champion took before: what this one took is no part of the measure it is held to."""
        took, known = float(outcome.facts["seconds"]), self._seconds[outcome.kind]
        slow = 0.0
        if len(known) >= ENOUGH:
            usual = statistics.median(known[-REMEMBERED:])
            limit = max(self._rules.slow_factor * usual, self._rules.slow_floor_seconds)
            slow = float(took > limit)
        if not outcome.candidate:
            known.append(took)
        return slow

    def _harm(self, unit: _Unit, metric: str, harm: float) -> None:
        """Harm of a conversation, the first time that it is seen."""
        if harm > 0 and metric in self._rules.metrics and metric not in unit.harmed:
            unit.harmed.add(metric)
            self._give(unit, metric, harm)

    def _done(self, unit: _Unit) -> None:
        arm = self._arms[unit.candidate]
        arm.settled += 1
        if unit.candidate:
            self._at_share[unit.propensity] += 1
        for metric in self._rules.metrics:
            if metric == UNSUPPORTED and unit.unsupported:
                self._give(unit, metric, statistics.fmean(unit.unsupported))
            elif metric not in unit.harmed and metric != UNSUPPORTED:
                self._give(unit, metric, 0.0)

    def _give(self, unit: _Unit, metric: str, harm: float) -> None:
        self._tests.observe(metric, candidate=unit.candidate, propensity=unit.propensity, harm=harm)
        self._arms[unit.candidate].harmed[metric] += harm

    def told(self) -> dict[str, Any]:
        """For people and programs to read."""
        arms = {"candidate": self._arms[True], "control": self._arms[False]}
        return {
            "units": {name: arm.units for name, arm in arms.items()},
            "settled": {name: arm.settled for name, arm in arms.items()},
            "reached": self.reached,
            "steps": [step.model_dump() for step in self._steps],
            "metrics": [
                {
                    "metric": one.metric,
                    "e_value": one.e_value,
                    "highest": one.highest,
                    "threshold": one.threshold,
                    "units": one.units,
                    "harmed": one.harmed,
                    **{
                        f"rate_{name}": round(arm.harmed[one.metric] / arm.units, 6) if arm.units else None
                        for name, arm in arms.items()
                    },
                }
                for one in self.evidence
            ],
        }
