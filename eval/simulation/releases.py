"""Releases whose true loss is known, judged by the gate's own intervals, and by the gate itself where cases
are lost or a judge errs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from eval.gate import judge
from eval.rules import MetricRule, Rules
from eval.simulation.rows import Progress, Row, share
from eval.statistics import Estimate, Values, estimate_grouped, within
from eval.types import (
    Case,
    CaseResult,
    DatasetRef,
    Fault,
    Gold,
    Outcome,
    ReleaseRef,
    Report,
    Sample,
    Score,
)

MARGIN = 0.03
SIZES = (60, 500, 1_000)
COVERAGE = 0.95
MISSES, BLOCKS = 0.01, 0.02
MOST_INTERVALS, MOST_JUDGED = 5_000, 100
_AT_ONCE = 500
_METRIC = "quality"

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Differences between two releases. Shares differ by a normal deviate of standard deviation `sd`; with
    `discordant` set the metric is right or wrong instead, and differs in that share of the cases."""

    loss: float = 0.0
    cases: int = 1_000
    cluster: int = 4
    icc: float = 0.05
    sd: float = 0.2
    discordant: float | None = None

    @property
    def counts(self) -> Values:
        return np.full(self.cases // self.cluster, float(self.cluster))

    def draw(self, generator: np.random.Generator, runs: int) -> Iterator[Values]:
        """The differences of one release after the other."""
        for start in range(0, runs, _AT_ONCE):
            rows = min(_AT_ONCE, runs - start)
            own = generator.standard_normal((rows, self.cases))
            shared = generator.standard_normal((rows, self.cases // self.cluster))
            deviates = np.sqrt(1 - self.icc) * own + np.sqrt(self.icc) * shared.repeat(self.cluster, axis=1)
            yield from self._differences(deviates)

    def _differences(self, deviates: Values) -> Values:
        if self.discordant is None:
            return self.sd * deviates - self.loss
        from scipy.special import ndtri  # slow to import, and only needed here

        lost, won = (self.discordant + self.loss) / 2, (self.discordant - self.loss) / 2
        return np.where(deviates < ndtri(lost), -1.0, np.where(deviates > -ndtri(won), 1.0, 0.0))


def simulated(rules: Rules, runs: int, progress: Progress, seed: int = 1) -> list[Row]:
    """`runs` releases for each of the targets; fewer where the whole gate runs."""
    generator = np.random.default_rng(seed)
    judged = min(MOST_JUDGED, max(1, runs // 20))
    return [
        *targets(rules, runs, generator, progress),
        *intervals(rules, min(MOST_INTERVALS, max(1, runs // 5)), generator, progress),
        *troubles(rules, judged, generator, progress),
        whole(rules, max(1, judged // 4), generator, progress),
    ]


def targets(rules: Rules, runs: int, generator: np.random.Generator, progress: Progress) -> list[Row]:
    """At 1 000 cases in clusters of 4."""
    about, missed, blocked, covered = "1 000 cases", [], [], []
    equal, worse = World(), World(loss=MARGIN)
    for done, values in enumerate(equal.draw(generator, runs), 1):
        found = _estimate(equal, values)
        blocked.append(not within(found.interval(rules.alpha), MARGIN))
        two_sided = found.interval((1 - COVERAGE) / 2)
        covered.append(two_sided.low <= 0 <= two_sided.high)
        progress("releases", done, 2 * runs)
    for done, values in enumerate(worse.draw(generator, runs), 1):
        missed.append(within(_estimate(worse, values).interval(rules.alpha), MARGIN))
        progress("releases", runs + done, 2 * runs)
    return [
        share(about, "3-point loss in the gated metric: promoted", missed, high=MISSES),
        share(about, "equal releases: blocked", blocked, high=BLOCKS),
        share(about, "95 % intervals that hold the truth", covered, low=0.94, high=0.96),
    ]


def intervals(rules: Rules, runs: int, generator: np.random.Generator, progress: Progress) -> list[Row]:
    """Shares, and right or wrong in a tenth of the cases, at three sizes."""
    rows = []
    worlds = [
        (kind, World(cases=cases, discordant=discordant, loss=MARGIN))
        for cases in SIZES
        for kind, discordant in (("shares", None), ("right or wrong", 0.1))
    ]
    for place, (kind, world) in enumerate(worlds):
        about = f"{world.cases} cases, {kind}"
        covered, over, seen = [], [], []
        for done, values in enumerate(world.draw(generator, runs), 1):
            found = _estimate(world, values)
            two_sided = found.interval((1 - COVERAGE) / 2)
            covered.append(two_sided.low <= -MARGIN <= two_sided.high)
            over.append(found.interval(rules.alpha).low > -MARGIN)
            seen.append(found.visible(rules.alpha))
            progress("intervals", place * runs + done, len(worlds) * runs)
        rows += [
            share(about, "95 % intervals that hold the truth", covered),
            share(about, f"lower bounds above the truth (said: {rules.alpha:.2%})", over),
            _visible(about, seen),
        ]
        rows.append(_power(about, replace(world, loss=float(np.mean(seen))), rules, runs, generator))
    return rows


def _visible(about: str, seen: list[float]) -> Row:
    name = "smallest loss that shows 4 times in 5"
    error = 100 * float(np.std(seen)) / len(seen) ** 0.5
    return Row(
        about=about, name=name, value=100 * float(np.mean(seen)), unit="points", error=error, runs=len(seen)
    )


def _power(about: str, world: World, rules: Rules, runs: int, generator: np.random.Generator) -> Row:
    if world.discordant is not None:
        world = replace(world, discordant=max(world.discordant, world.loss))
    shown = [
        _estimate(world, values).interval(rules.alpha).high < 0 for values in world.draw(generator, runs)
    ]
    return share(about, "that loss: shown", shown)


def troubles(rules: Rules, runs: int, generator: np.random.Generator, progress: Progress) -> list[Row]:
    """The gate itself, on whole reports, at 1 000 cases."""
    alone = rules.model_copy(update={"metrics": {_METRIC: MetricRule(margin=MARGIN)}, "costs": {}})
    blind = alone.model_copy(update={"clustered": False})
    alike, noise, few, many = "judge 10 points too low for both", "noise of 0.2 in each score", 5, 30
    near = World(cluster=10, icc=0.3)
    plans: list[tuple[str, World, Rules, Trouble]] = [
        ("nothing lost", World(), alone, Trouble()),
        (alike, World(), alone, Trouble(both=-0.1)),
        ("judge 2 points too high for the candidate", World(), alone, Trouble(candidate=0.02)),
        (f"judge with {noise}", World(), alone, Trouble(noise=0.2)),
        ("its 5 worst cases lost by the release", World(), alone, Trouble(lost=few)),
        ("its 5 worst cases lost by the judge", World(), alone, Trouble(lost=few, fault="judge")),
        ("its 30 worst cases lost by the release", World(), alone, Trouble(lost=many)),
        ("its 30 worst cases lost by the judge", World(), alone, Trouble(lost=many, fault="judge")),
        ("clusters of 10, ICC 0.3", near, alone, Trouble()),
        ("clusters of 10, ICC 0.3, not told to the gate", near, blind, Trouble()),
    ]
    rows = []
    for place, (about, world, used, trouble) in enumerate(plans):
        bed = _Bed(world)
        for words, loss in (("equal", 0.0), ("3-point loss", MARGIN)):
            outcomes: list[Outcome] = []
            for values in replace(world, loss=loss).draw(generator, runs):
                outcomes.append(bed.outcome({_METRIC: values}, used, trouble, generator))
                progress("gate", (2 * place + bool(loss)) * runs + len(outcomes), 2 * len(plans) * runs)
            rows += [
                share(about, f"{words}: {said}", [found == outcome for found in outcomes])
                for outcome, said in _OUTCOMES.items()
                if outcome == "passed" or outcome in outcomes
            ]
    return rows


_OUTCOMES: Mapping[Outcome, str] = {"passed": "promoted", "failed": "blocked", "no_verdict": "no verdict"}


def whole(rules: Rules, runs: int, generator: np.random.Generator, progress: Progress) -> Row:
    """All metrics of the rules at once, none of which tells of another: the most false alarms possible."""
    world, blocked = World(), []
    bed, draws = _Bed(world), world.draw(generator, runs * len(rules.metrics))
    for _ in range(runs):
        columns = {
            name: values if rule.direction == "higher" else -values
            for (name, rule), values in zip(rules.metrics.items(), draws, strict=False)
        }
        blocked.append(bed.outcome(columns, rules, Trouble(), generator) != "passed")
        progress("all rules", len(blocked), runs)
    gated = sum(rule.role == "gated" for rule in rules.metrics.values())
    about = f"all {len(rules.metrics)} metrics, {gated} gated, each with a spread of 0.2"
    return share(about, "equal releases: blocked", blocked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What goes wrong with scores: a bias of both releases' or of the candidate's, noise in each, and the
    candidate's `lost` worst cases lost by whose `fault`."""

    both: float = 0.0
    candidate: float = 0.0
    noise: float = 0.0
    lost: int = 0
    fault: Fault = "release"


class _Bed:
    """Reports of made-up releases on one data set, in which every score was 0.75 before."""

    def __init__(self, world: World) -> None:
        self._cases = [
            Case(id=f"{place:05}", question="", gold=(Gold(f"{place // world.cluster:05}"),))
            for place in range(world.cases)
        ]

    def outcome(
        self, columns: Mapping[str, Values], rules: Rules, trouble: Trouble, generator: np.random.Generator
    ) -> Outcome:
        before: dict[str, list[Score]] = {}
        after: dict[str, list[Score]] = {}
        for name, values in columns.items():
            noise = trouble.noise * generator.standard_normal((2, len(values)))
            old = 0.75 + trouble.both + noise[0]
            new = 0.75 + trouble.both + trouble.candidate + values + noise[1]
            gone = set(np.argsort(values, kind="stable")[: trouble.lost].tolist())
            lost = Score(None, "It was lost.", trouble.fault)
            before[name] = [Score(value) for value in old.tolist()]
            after[name] = [
                lost if place in gone else Score(value) for place, value in enumerate(new.tolist())
            ]
        return judge(self._report(before), self._report(after), rules).outcome

    def _report(self, scores: Mapping[str, list[Score]]) -> Report:
        return Report(
            dataset=DatasetRef(name="simulated", version="1", fingerprint="0" * 64),
            release=ReleaseRef(id="simulated", name="simulated", fingerprint="0" * 64, canonical="{}"),
            product="",
            started_at="",
            seconds=0.0,
            results=tuple(
                CaseResult(
                    case=case,
                    sample=Sample(case_id=case.id, errors={}),
                    scores={name: column[place] for name, column in scores.items()},
                )
                for place, case in enumerate(self._cases)
            ),
        )


def _estimate(world: World, values: Values) -> Estimate:
    return estimate_grouped(values, values.reshape(-1, world.cluster).sum(axis=1), world.counts)
