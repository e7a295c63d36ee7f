"""What counts in a canary, and what does not, whichever release answered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from app.trials import Outcome, Trial
from eval.canary import ENOUGH, REMEMBERED, CanaryWatch
from eval.rules import CanaryRules, Step, Watched

START = datetime(2026, 1, 1, tzinfo=UTC)
METRICS = ("faults", "degraded", "flawed", "slow", "unsupported", "disliked")
RULES = CanaryRules(
    steps=(Step(share=0.5, units=10),),
    exposure=1_000,
    tenant_units=100,
    warm_up_seconds=10.0,
    settle_seconds=30.0,
    slow_factor=2.0,
    slow_floor_seconds=0.1,
    metrics={name: Watched(alpha=0.001, alternatives=((4.0, 1.0),)) for name in METRICS},
)
TRIAL = Trial(
    id="t",
    kind="canary",
    release="new",
    control="old",
    state="running",
    plan={},
    step=0,
    share=0.5,
    live=True,
    evidence={},
    decision=None,
    who="ann",
    started_at=START,
    step_at=START,
    ended_at=None,
)


class Feed:
    """Outcomes in order, numbered."""

    def __init__(self, rules: CanaryRules = RULES) -> None:
        self.watch = CanaryWatch(TRIAL, rules)
        self.number = 0

    def add(
        self,
        unit: str,
        *,
        candidate: bool = True,
        counted: bool = True,
        at: float = 60.0,
        tenant: str = "acme",
        propensity: float = 0.5,
        **facts: Any,
    ) -> Outcome:
        self.number += 1
        outcome = Outcome(
            id=self.number,
            candidate=candidate,
            counted=counted,
            kind="chat",
            tenant=tenant,
            unit=unit,
            propensity=propensity,
            facts={"fault": 0.0, "degraded": 0.0, "seconds": 1.0, **facts},
            at=START + timedelta(seconds=at),
        )
        self.watch.observe(outcome)
        return outcome

    def settle(self, at: float = 1_000.0) -> None:
        self.watch.settle(START + timedelta(seconds=at))

    def row(self, metric: str) -> dict[str, Any]:
        [row] = [one for one in self.watch.told()["metrics"] if one["metric"] == metric]
        return dict(row)


def test_a_conversation_counts_once_however_often_it_fails() -> None:
    feed = Feed()
    for _ in range(20):
        feed.add("one", fault=1.0)
    feed.settle()
    assert feed.row("faults")["harmed"] == 1
    assert feed.watch.told()["units"] == {"candidate": 1, "control": 0}
    assert feed.watch.shown == ()


def test_faults_count_before_their_conversation_is_done() -> None:
    feed = Feed()
    for n in range(20):
        feed.add(f"c{n}", fault=1.0)
    assert "faults" in feed.watch.shown


def test_a_conversation_that_began_well_is_harmed_by_what_comes_later() -> None:
    feed = Feed()
    for n in range(20):
        feed.add(f"c{n}")
        feed.add(f"c{n}", fault=1.0)
    assert feed.row("faults")["harmed"] == 20
    assert "faults" in feed.watch.shown


def test_as_many_faults_with_the_champion_are_no_harm() -> None:
    feed = Feed()
    for n in range(60):
        feed.add(f"c{n}", candidate=n % 2 == 0, fault=1.0)
    assert feed.watch.shown == ()


def test_the_warm_up_does_not_count() -> None:
    feed = Feed()
    for n in range(20):
        feed.add(f"c{n}", at=5.0, fault=1.0)
    feed.settle()
    assert feed.watch.told()["units"]["candidate"] == 0
    assert feed.watch.reached == 20


def test_what_does_not_count_is_only_known_to_have_been_reached() -> None:
    feed = Feed()
    feed.add("cached", counted=False, fault=1.0)
    feed.add("cached")
    feed.settle()
    assert feed.row("faults")["harmed"] == 0
    assert feed.watch.told()["units"]["candidate"] == 1
    assert feed.watch.reached == 1


def test_a_conversation_that_changed_sides_is_left_out_from_then_on() -> None:
    feed = Feed()
    feed.add("one", candidate=True)
    feed.add("one", candidate=False, fault=1.0)
    feed.add("one", candidate=True, fault=1.0)
    feed.settle()
    assert feed.row("faults")["harmed"] == 0


def test_a_tenant_counts_only_so_far() -> None:
    feed = Feed(RULES.model_copy(update={"tenant_units": 5}))
    for n in range(40):
        feed.add(f"c{n}", candidate=n % 2 == 0)
    feed.add("other", tenant="globex")
    assert sum(feed.watch.told()["units"].values()) == 10 + 1


def test_slow_is_what_takes_longer_than_the_champion_took_before() -> None:
    feed = Feed()
    feed.add("early", seconds=60.0)
    for n in range(ENOUGH):
        feed.add(f"k{n}", candidate=False, seconds=1.0)
    feed.add("usual", seconds=1.9)
    feed.add("slow", seconds=2.1)
    feed.settle()
    row = feed.row("slow")
    assert (row["harmed"], row["rate_control"]) == (1, 0.0)


def test_what_takes_hardly_any_time_is_not_slow() -> None:
    feed = Feed()
    for n in range(ENOUGH):
        feed.add(f"k{n}", candidate=False, seconds=0.01)
    feed.add("much longer, and nobody notices", seconds=0.09)
    feed.settle()
    assert feed.row("slow")["harmed"] == 0


def test_usual_is_what_the_champion_takes_lately() -> None:
    feed = Feed(RULES.model_copy(update={"tenant_units": 10_000}))
    for n in range(2 * REMEMBERED):
        feed.add(f"k{n}", candidate=False, seconds=1.0 if n < REMEMBERED else 10.0)
    feed.add("as slow as the champion is now", seconds=11.0)
    feed.settle()
    assert feed.row("slow")["rate_candidate"] == 0.0


def test_the_chance_by_which_a_conversation_was_drawn_weighs_its_harm() -> None:
    """Six faults of a candidate that gets one conversation in a hundred are no chance; of one that gets all
    but one in a hundred they say nothing."""
    for propensity, shown in ((0.01, ("faults",)), (0.99, ())):
        feed = Feed()
        for n in range(6):
            feed.add(f"c{n}", propensity=propensity, fault=1.0)
        assert feed.watch.shown == shown


def test_a_step_waits_for_the_candidate_s_conversations_that_count() -> None:
    feed = Feed()
    for n in range(3):
        feed.add(f"champion's {n}", candidate=False)
    feed.add("one")
    feed.add("changed sides")
    left_out = feed.add("changed sides", candidate=False)
    feed.settle()
    assert feed.watch.settled_at(0.5) == 1
    assert feed.watch.told()["settled"] == {"candidate": 1, "control": 3}
    feed.watch.dislike(left_out)
    assert feed.row("disliked")["harmed"] == 0


def test_unsupported_is_the_mean_of_a_conversation_and_counts_when_it_is_done() -> None:
    feed = Feed()
    feed.add("one", unsupported=1.0)
    feed.add("one", unsupported=0.0)
    assert feed.row("unsupported")["units"] == 0
    feed.settle()
    assert feed.row("unsupported")["rate_candidate"] == 0.5


def test_a_conversation_is_done_some_time_after_its_last_request() -> None:
    feed = Feed()
    feed.add("one", at=60.0)
    feed.add("one", at=80.0)
    feed.settle(at=100.0)
    assert feed.watch.settled_at(0.5) == 0
    feed.settle(at=111.0)
    assert feed.watch.settled_at(0.5) == 1


def test_a_dislike_counts_once_and_also_when_it_comes_late() -> None:
    feed = Feed()
    outcome = feed.add("one")
    feed.settle()
    for _ in range(3):
        feed.watch.dislike(outcome)
    assert feed.row("disliked")["rate_candidate"] == 1.0
    assert feed.row("disliked")["harmed"] == 1


def test_the_exposure_is_of_the_candidate_s_conversations_counted_or_not() -> None:
    feed = Feed()
    for unit in ("a", "b"):
        feed.add(unit, counted=False)
        feed.add(f"{unit} of the champion", candidate=False)
    assert feed.watch.reached == 2
