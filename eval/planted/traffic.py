"""Shadow and canary of a release that the gate let through, on synthetic traffic.

The tests are those of live trials, under the same rules; the answers are those of the two evaluations, drawn
at random, as if readers asked the data set's questions over and over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from app.outcomes import Facts
from app.quality import markers
from app.trials import Outcome, Pair, Trial, TrialKind
from eval.canary import CanaryWatch
from eval.metrics.flaws import quality_of
from eval.metrics.service import abstains
from eval.planted.faults import corrupt
from eval.planted.types import Stopped
from eval.rules import CanaryRules, Rules, ShadowRules
from eval.shadowing import ShadowWatch
from eval.types import Case, CaseResult, Reply, Report, Sample

SEED = 5
TENANTS = 20
PAUSE = timedelta(seconds=0.2)
"""Between two conversations."""
LOOK = 50
"""Conversations between two looks at what is shown."""
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the two releases make of a question; `damaged` is the candidate's answer at its worst."""

    champion: Facts
    candidate: Facts
    damaged: Facts


class Traffic:
    """Questions at random, the same in every run. `rate` is the share of the candidate's answers that is
    damaged."""

    def __init__(self, asked: Sequence[Asked], rate: float) -> None:
        self._asked = asked
        self._rate = rate
        self.random = np.random.default_rng(SEED)

    def draw(self) -> tuple[Facts, Facts]:
        """The champion's answer and the candidate's."""
        one = self._asked[int(self.random.integers(len(self._asked)))]
        return one.champion, one.damaged if self.random.random() < self._rate else one.candidate


def trials(baseline: Report, candidate: Report, rules: Rules, *, rate: float, timed: bool) -> Stopped:
    """What stops it: the shadow, the canary, or nothing. Two evaluations on a busy machine take different
    times: unless `timed`, the champion's count for both."""
    if rules.shadow is None or rules.canary is None:
        return Stopped(stage="nothing", why="The rules have neither shadow nor canary.")
    asked = list(_asked(baseline, candidate, rate, timed))
    return (
        _shadow(Traffic(asked, rate), rules.shadow)
        or _canary(Traffic(asked, rate), rules.canary)
        or Stopped(stage="nothing", why="No check failed, and neither shadow nor canary showed any harm.")
    )


def _shadow(traffic: Traffic, rules: ShadowRules) -> Stopped | None:
    watch = ShadowWatch(_trial("shadow"), rules)
    while watch.pairs < watch.wanted:
        champion, candidate = traffic.draw()
        watch.observe(
            Pair(
                id=watch.pairs,
                counted=True,
                kind="chat",
                tenant="t",
                champion=champion,
                candidate=candidate,
                at=BEGIN,
            )
        )
        if watch.shown:
            return Stopped(stage="shadow", by=watch.shown[0], why=f"Shown after {watch.pairs} pairs.")
    return None


def _canary(traffic: Traffic, rules: CanaryRules) -> Stopped | None:
    """Step after step as long as the rules want; time passes, so that conversations are done."""
    watch, number = CanaryWatch(_trial("canary"), rules), 0
    now = BEGIN + timedelta(seconds=rules.warm_up_seconds)
    for step in watch.steps:
        while watch.settled_at(step.share) < step.units and watch.reached < rules.exposure:
            number, now = number + 1, now + PAUSE
            watch.observe(_conversation(traffic, number, step.share, now))
            if number % LOOK:
                continue
            watch.settle(now)
            if watch.shown:
                return Stopped(
                    stage="canary",
                    by=watch.shown[0],
                    why=f"Rolled back at {step.share:.0%}, after {watch.reached} of its conversations.",
                )
    return None


def _conversation(traffic: Traffic, number: int, share: float, now: datetime) -> Outcome:
    champion, candidate = traffic.draw()
    chosen = bool(traffic.random.random() < share)
    return Outcome(
        id=number,
        candidate=chosen,
        counted=True,
        kind="chat",
        tenant=f"t{number % TENANTS}",
        unit=str(number),
        propensity=share,
        facts=candidate if chosen else champion,
        at=now,
    )


def _trial(kind: TrialKind) -> Trial:
    return Trial(
        id="planted",
        kind=kind,
        release="candidate",
        control="champion",
        state="running",
        plan={},
        step=0,
        share=0.0,
        live=True,
        evidence={},
        decision=None,
        who="planted",
        started_at=BEGIN,
        step_at=BEGIN,
        ended_at=None,
    )


def _asked(baseline: Report, candidate: Report, rate: float, timed: bool) -> Iterator[Asked]:
    """Of each question; what a rate of damage harms is the sound answer."""
    after = {result.case.id: result for result in candidate.results}
    for result in baseline.results:
        if result.case.kind != "question":
            continue
        champion = _facts(result)
        found = champion if rate else _facts(after[result.case.id])
        if not timed:
            found = {**found, "seconds": champion["seconds"]}
        reply = result.sample.reply
        damaged = _facts_of(result.case, _damaged(reply), champion["seconds"]) if reply else found
        yield Asked(champion, found, damaged)


def _damaged(reply: Reply) -> Reply:
    text = corrupt(reply.text)
    named = markers(text)
    return replace(reply, text=text, citations=tuple(one for one in reply.citations if one.number in named))


def _facts(result: CaseResult) -> Facts:
    sample: Sample = result.sample
    if sample.reply is None:
        return {"fault": 1.0, "seconds": 0.0}
    return _facts_of(result.case, sample.reply, sample.reply.seconds)


def _facts_of(case: Case, reply: Reply, seconds: float) -> Facts:
    """The measures that a live answer would leave."""
    flags = quality_of(case, reply).flags
    facts: dict[str, Any] = {
        "fault": flags["empty"],
        "seconds": seconds,
        "declined": float(abstains(reply)),
        **flags,
    }
    return facts if reply.supported is None else {**facts, "unsupported": 1 - reply.supported}
