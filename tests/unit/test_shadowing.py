"""What a pair of answers says about the candidate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app.trials import Pair
from eval.rules import ShadowRules, Watched
from eval.shadowing import ShadowWatch
from tests.unit.test_canary import START, TRIAL

METRICS = ("faults", "flawed", "degraded", "declined", "unsupported", "slow")
RULES = ShadowRules(
    pairs=1_000,
    least_pairs=5,
    metrics={name: Watched(alpha=0.01, alternatives=((0.4, 1.0),)) for name in METRICS},
)
FINE = {"fault": 0.0, "degraded": 0.0, "declined": 0.0, "seconds": 1.0}


def watched(count: int, champion: dict[str, Any], candidate: dict[str, Any], **more: Any) -> ShadowWatch:
    watch = ShadowWatch(replace(TRIAL, kind="shadow", **more), RULES)
    for n in range(count):
        watch.observe(
            Pair(
                id=n,
                counted=True,
                kind="chat",
                tenant="acme",
                champion={**FINE, **champion},
                candidate={**FINE, **candidate},
                at=START,
            )
        )
    return watch


def test_harm_of_each_kind_is_shown() -> None:
    for metric, facts in {
        "faults": {"fault": 1.0},
        "flawed": {"malformed": 1.0},
        "degraded": {"degraded": 1.0},
        "declined": {"declined": 1.0},
        "slow": {"seconds": 3.0},
    }.items():
        assert watched(20, {}, facts).shown == (metric,)
        assert watched(20, facts, {}).shown == ()
        assert watched(20, facts, facts).shown == ()


def test_unsupported_is_compared_only_where_both_had_something_to_check() -> None:
    assert watched(20, {"unsupported": 0.0}, {"unsupported": 1.0}).shown == ("unsupported",)
    watch = watched(20, {}, {"unsupported": 1.0})
    assert watch.shown == ()
    [row] = [one for one in watch.told()["metrics"] if one["metric"] == "unsupported"]
    assert row["units"] == 0
    [row] = [
        one
        for one in watched(20, {"unsupported": 1.0}, {}).told()["metrics"]
        if one["metric"] == "unsupported"
    ]
    assert row["units"] == 0


def test_slow_is_much_slower_than_the_other_not_a_little() -> None:
    assert watched(20, {}, {"seconds": 1.9}).shown == ()
    assert watched(20, {"seconds": 0.01}, {"seconds": 0.4}).shown == ()


def test_pairs_that_do_not_count_are_passed_over() -> None:
    watch = ShadowWatch(replace(TRIAL, kind="shadow"), RULES)
    facts = {**FINE, "fault": 1.0}
    for n in range(20):
        watch.observe(
            Pair(
                id=n,
                counted=False,
                kind="chat",
                tenant="acme",
                champion=FINE,
                candidate=facts,
                at=START,
            )
        )
    assert (watch.pairs, watch.shown, watch.told()["passed_over"]) == (0, (), 20)


def test_the_plan_says_how_many_pairs_are_enough() -> None:
    assert watched(0, {}, {}).wanted == 5
    assert watched(0, {}, {}, plan={"pairs": 50}).wanted == 50
