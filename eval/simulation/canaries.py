"""Canaries whose harm is known, watched by the tests of the rules.

Conversations come from tenants of unequal size, at hours of unequal trouble, with a few of them very long;
trouble befalls whole conversations; a part of the questions is in the champion's cache and not yet in the
candidate's; readers complain late. A unit counts only if it could be in neither cache, whichever release it
went to: a rule that does not look at the label, as none may.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from eval.rules import CanaryRules, Step, Watched
from eval.sequential import LabelTest, Values
from eval.simulation.rows import Progress, Row, percentile, share

REQUESTS = 100_000
FALSE = 0.01
DAYS = 2.0
SECONDS = 86_400.0
TENANTS = 8
HOT = 0.3
"""The share of conversations whose question is in the champion's cache."""
LONGEST = 200
LONG = 130_000
"""Conversations that are enough for 1 400 of the candidate's at the shares of the rules."""
LEAST_ICC, MOST_ICC = 0.01, 0.3
SLOWER = 0.7
"""What taking three times as long adds to the rate of slow answers: of a lognormal with a deviation of 0.5,
8 % lie above twice the median, and 79 % of three times as much."""
LATE = 6 * 3_600.0
"""Seconds until a reader complains, on average."""

RATES: Mapping[str, float] = {
    "faults": 1e-3,
    "flawed": 5e-3,
    "declined": 0.05,
    "degraded": 0.02,
    "slow": 0.08,
    "unsupported": 0.08,
    "disliked": 0.01,
}
"""The champion's rate of each harm in a request."""
CACHED = 0.1
"""The rate of harm of an answer from a cache, as a part of one that is worked out."""

FAST = (
    Step(share=0.05, units=500),
    Step(share=0.2, units=2_000),
    Step(share=0.5, units=10_000),
)

Flags = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """`extra` is what the candidate adds to a conversation's chance of harm. With `single` each conversation
    has one request, so that rates are of conversations. `count_cached` breaks the rule of the caches."""

    conversations: int
    icc: float = 0.0
    rates: Mapping[str, float] = field(default_factory=lambda: RATES)
    extra: Mapping[str, float] = field(default_factory=dict)
    single: bool = False
    count_cached: bool = False


@dataclass(frozen=True, slots=True)
class Alarm:
    """The metric that showed harm first, and how many units the candidate had had by then."""

    metric: str
    units: int


@dataclass(frozen=True, slots=True)
class _Units:
    """Conversations in the order in which they began. `cached`: answered from the cache of the release that
    it went to."""

    at: Values
    size: Values
    trouble: Values
    candidate: Flags
    propensity: Values
    counted: Flags
    cached: Flags


def simulated(rules: CanaryRules, runs: int, progress: Progress, seed: int = 2) -> list[Row]:
    """Of an equal release, all tests of the rules together; of a harmful one, the test of its harm."""
    generator, few = np.random.default_rng(seed), max(1, runs // 4)
    fast = rules.model_copy(update={"steps": FAST, "exposure": 50_000, "tenant_units": 50_000})
    equal = World(conversations=_conversations())
    faulty = World(conversations=LONG, single=True, rates={**RATES, "faults": 5e-5}, extra={"faults": 0.008})
    cached = replace(equal, count_cached=True)
    slower = replace(equal, extra={"slow": SLOWER})
    sick = {"faults": 1e-3}

    def alarms(about: str, world: World, used: CanaryRules, count: int) -> list[Alarm | None]:
        found = []
        for done in range(count):
            found.append(run(replace(world, icc=generator.uniform(0, MOST_ICC)), used, generator))
            progress(about, done + 1, count)
        return found

    def false(about: str, world: World, used: CanaryRules, count: int, high: float = math.inf) -> Row:
        found = [alarm is not None for alarm in alarms(about, world, used, count)]
        return share("equal canary", f"rolled back within {REQUESTS} requests, {about}", found, high=high)

    def found(about: str, metric: str, world: World, count: int, high: float = math.inf) -> Row:
        used = rules.model_copy(update={"metrics": {metric: rules.metrics[metric]}})
        units = [alarm.units if alarm else math.inf for alarm in alarms(about, world, used, count)]
        return percentile("harmful canary", f"{about}: found 95 times in 100", units, unit="units", high=high)

    return [
        false("steps of the rules", equal, rules, runs, FALSE),
        false("steps of 5, 20 and 50 %", equal, fast, few, FALSE),
        false("with cached answers, against the rule", cached, rules, few),
        found("fault in 0.8 %, champion 0.005 %", "faults", faulty, runs, 650),
        found("fault in 0.8 %, champion 0.1 %", "faults", replace(faulty, rates=sick), runs, 1_400),
        found("errors in 20 %", "faults", replace(faulty, rates=sick, extra={"faults": 0.2}), few),
        found("three times as slow", "slow", slower, few),
    ]


def run(world: World, rules: CanaryRules, generator: np.random.Generator) -> Alarm | None:
    """One canary to its end: the first alarm of any of the metrics, if there is one."""
    units = _drawn(world, rules, generator)
    reached = np.cumsum(units.candidate & units.counted)
    alarms = [
        (found[0], Alarm(name, int(reached[found[1]])))
        for name, rule in rules.metrics.items()
        if (found := _alarm(name, rule, units, world, rules, generator)) is not None
    ]
    return min(alarms, key=lambda each: each[0])[1] if alarms else None


def _alarm(
    name: str, rule: Watched, units: _Units, world: World, rules: CanaryRules, generator: np.random.Generator
) -> tuple[float, int] | None:
    """When the metric's test shows harm, and at which conversation."""
    harm = _harm(name, units, world, generator)
    late = generator.exponential(LATE, len(harm)) if name == "disliked" else rules.settle_seconds
    seen = units.at + late
    counts = np.flatnonzero(units.counted & (harm > 0) & (seen <= DAYS * SECONDS))
    order = counts[np.argsort(seen[counts], kind="stable")]
    test = LabelTest(rule.alternatives, ratio=rule.ratio)
    path = test.extend(units.candidate[order], units.propensity[order], harm[order])
    shown = np.flatnonzero(path >= 1 / rule.alpha)
    return (float(seen[order[shown[0]]]), int(order[shown[0]])) if len(shown) else None


def _harm(name: str, units: _Units, world: World, generator: np.random.Generator) -> Values:
    """Each conversation's harm in [0, 1]. Requests of a conversation share its chance of harm."""
    rate = np.minimum(world.rates[name] * units.trouble * np.where(units.cached, CACHED, 1.0), 0.5)
    added = world.extra.get(name, 0.0) * units.candidate
    if name == "unsupported":
        return np.minimum(1.0, _spread(rate, max(world.icc, LEAST_ICC), generator) + added)
    chance, several = rate.copy(), units.size > 1
    chance[several] = _spread(rate[several], world.icc, generator)
    ever = 1 - (1 - chance) ** units.size
    return (generator.random(len(rate)) < ever + added - ever * added).astype(np.float64)


def _spread(rate: Values, icc: float, generator: np.random.Generator) -> Values:
    """Chances with this mean, so unequal that requests of a conversation correlate by `icc`."""
    if icc == 0:
        return rate
    scale = 1 / icc - 1
    return generator.beta(np.maximum(rate * scale, 1e-12), (1 - rate) * scale)


def _drawn(world: World, rules: CanaryRules, generator: np.random.Generator) -> _Units:
    total = world.conversations
    gaps = generator.standard_exponential(total)
    at = DAYS * SECONDS * np.cumsum(gaps) / gaps.sum()
    hot = generator.random(total) < HOT
    warm = generator.random(total) < at / at[-1]
    tenant = generator.choice(TENANTS, total, p=_zipf(TENANTS))
    troubled = generator.lognormal(0, 0.5, TENANTS)
    hours = 1 + 0.8 * np.sin(2 * math.pi * at / SECONDS)
    counted = (at >= rules.warm_up_seconds) & (world.count_cached | ~hot)
    candidate, propensity = _assigned(rules, counted, generator)
    return _Units(
        at=at,
        size=np.ones(total) if world.single else _sizes(total, generator),
        trouble=hours * troubled[tenant] / (_zipf(TENANTS) @ troubled),
        candidate=candidate,
        propensity=propensity,
        counted=counted & _within_part(tenant, propensity * counted, rules.tenant_units),
        cached=hot & (warm | ~candidate),
    )


def _sizes(total: int, generator: np.random.Generator) -> Values:
    """Requests of conversations: mostly one or two, now and then a hundred."""
    return np.minimum(1 + generator.pareto(1.8, total) // 1, LONGEST)


def _conversations() -> int:
    """So many have `REQUESTS` requests, on average."""
    return int(REQUESTS / _sizes(200_000, np.random.default_rng(0)).mean())


def _assigned(rules: CanaryRules, counted: Flags, generator: np.random.Generator) -> tuple[Flags, Values]:
    """Which go to the candidate, at the share of the step: a step ends with its units, the last one when the
    candidate has had its exposure."""
    total, start, had = len(counted), 0, 0
    candidate, propensity = np.zeros(total, dtype=np.bool_), np.zeros(total)
    for place, step in enumerate(rules.steps):
        last = place == len(rules.steps) - 1
        drawn = generator.random(total - start) < step.share
        reached = np.cumsum(drawn) if last else np.cumsum(drawn & counted[start:])
        end = start + int(np.searchsorted(reached, rules.exposure - had if last else step.units)) + 1
        candidate[start:end], propensity[start:end] = drawn[: end - start], step.share
        had, start = had + int(drawn[: end - start].sum()), min(end, total)
    return candidate, propensity


def _within_part(tenant: Places, propensity: Values, most: int) -> Flags:
    """Whose tenant can be expected to have had no more than its part of the candidate's units."""
    had = np.cumsum(np.where(tenant == np.arange(TENANTS)[:, None], propensity, 0.0), axis=1)
    return had[tenant, np.arange(len(tenant))] <= most


def _zipf(count: int) -> Values:
    weights = 1 / np.arange(1, count + 1)
    return np.asarray(weights / weights.sum())
