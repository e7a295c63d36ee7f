"""Outcomes count in the order in which their requests began, and not before those of both releases can be
known."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from app.trials import Outcome
from eval.arrivals import LATELY, LONGEST, Arrivals
from eval.canary import CanaryWatch
from eval.rules import load_rules
from tests.unit.test_canary import START, TRIAL

BROKEN = 40.0


def ended(number: int, began: float, took: float, *, candidate: bool = False, fault: float = 0.0) -> Outcome:
    return Outcome(
        id=number,
        candidate=candidate,
        counted=True,
        kind="chat",
        tenant="acme",
        unit=str(number),
        propensity=0.25,
        facts={"fault": fault, "degraded": 0.0, "seconds": took},
        at=START + timedelta(seconds=began + took),
    )


def due(arrivals: Arrivals, at: float) -> list[int]:
    return [one.id for one in arrivals.due(START + timedelta(seconds=at))]


def test_what_began_first_counts_first_and_each_once() -> None:
    arrivals = Arrivals()
    for outcome in (ended(2, 1.0, 1.0), ended(3, 2.0, 1.0), ended(1, 0.0, 5.0)):
        arrivals.add(outcome)
    assert due(arrivals, 100.0) == [1, 2, 3]
    assert due(arrivals, 200.0) == []


def test_a_quick_answer_waits_as_long_as_answers_take() -> None:
    arrivals = Arrivals()
    for number in range(20):
        arrivals.add(ended(number, 0.0, 5.0))
    arrivals.add(ended(99, 10.0, 0.1, candidate=True))
    assert 99 not in due(arrivals, 14.9)
    assert due(arrivals, 15.0) == [99]


def test_it_counts_as_of_the_time_that_it_waited_for() -> None:
    arrivals = Arrivals()
    arrivals.add(ended(1, 1.0, 4.0))
    arrivals.add(ended(2, 2.0, 4.0))
    times = [one.at for one in arrivals.due(START + timedelta(seconds=60))]
    assert times == [START + timedelta(seconds=5), START + timedelta(seconds=6)]


def test_a_few_that_take_for_ever_hold_up_nothing() -> None:
    arrivals = Arrivals()
    for number in range(40):
        arrivals.add(ended(number, 0.0, 60.0 if number % 20 == 0 else 1.0))
    assert len(due(arrivals, 61.0)) == 40
    slow = Arrivals()
    for number in range(40):
        slow.add(ended(number, 0.0, 90.0))
    slow.add(ended(99, 60.0, 1.0))
    assert 99 in due(slow, 60.0 + LONGEST)


@pytest.mark.parametrize("champion", [1.0, 5.0], ids=["alike", "slower"])
def test_who_answers_sooner_does_no_harm_by_it(champion: float) -> None:
    """From some moment on everything fails, whichever release answers: that shows nothing, also while the
    champion's failures are still to come."""
    assert sum(_shown(seed, champion) for seed in range(40)) <= 2


def _shown(seed: int, champion: float) -> bool:
    rules = load_rules().canary
    assert rules
    watch = CanaryWatch(
        replace(TRIAL, share=0.25), rules.model_copy(update={"warm_up_seconds": 20.0, "settle_seconds": 1.0})
    )
    arrivals = Arrivals()
    for outcome in _flow(random.Random(seed), champion):
        arrivals.add(outcome)
        for one in arrivals.due(outcome.at):
            watch.observe(one)
    assert watch.told()["units"]["candidate"] > 20
    return "faults" in watch.shown


def _flow(dice: random.Random, champion: float) -> Sequence[Outcome]:
    """As they end: a quarter is the candidate's, which takes a second. Those that begin after `BROKEN`
    fail."""
    found, began = [], 0.0
    for number in range(250):
        began += dice.expovariate(2.5)
        candidate = dice.random() < 0.25
        took = (1.0 if candidate else champion) * dice.uniform(0.8, 1.2)
        found.append(ended(number, began, took, candidate=candidate, fault=float(began > BROKEN)))
    return sorted(found, key=lambda one: one.at)


def test_a_quick_answer_counts_as_of_the_same_time_as_a_slow_one_that_began_with_it() -> None:
    """Else the warm-up would end sooner for the release that answers sooner."""
    arrivals = Arrivals()
    for number in range(40):
        arrivals.add(ended(number, 1.0, 4.0))
    arrivals.add(ended(99, 1.0, 0.1, candidate=True))
    assert {one.at for one in arrivals.due(START + timedelta(seconds=60))} == {START + timedelta(seconds=5)}


def test_how_long_answers_took_long_ago_makes_nobody_wait() -> None:
    arrivals = Arrivals()
    for number in range(LATELY):
        arrivals.add(ended(number, 0.0, 20.0))
    for number in range(LATELY):
        arrivals.add(ended(LATELY + number, 100.0, 0.1))
    assert len(due(arrivals, 100.2)) == 2 * LATELY
