"""Crashes, lost messages, stalled processes and races, simulated: the short forms of `python -m
tests.faults.simulate` and `python -m tests.faults.planted`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.faults.database import Database
from tests.faults.planted import BUGS, hunt
from tests.faults.schedule import run
from tests.faults.server import opened

SCHEDULES = 200
MOST = 500
HAPPENED = (
    "accepted",
    "killed worker",
    "killed api",
    "leases that ran out",
    "flip: superseded",
    "flip: lost",
    "lost ledger.flip",
    "late store.upsert",
    "sweeps while rows were on their way",
    "rows written after their revision was retired",
)


@pytest.fixture(scope="module")
def simulated(postgres_url: str) -> Iterator[Database]:
    logging.disable(logging.WARNING)
    with opened(postgres_url, "simulated") as where:
        yield where
    logging.disable(logging.NOTSET)


def test_no_schedule_breaks_a_promise(simulated: Database) -> None:
    seen: Counter[str] = Counter()
    for seed in range(1, SCHEDULES + 1):
        outcome = run(simulated, seed)
        assert outcome.flaws == [], f"seed {seed}: python -m tests.faults.simulate --only {seed}"
        seen.update(outcome.seen)
    assert [name for name in HAPPENED if not seen[name]] == []


def test_a_seed_plays_the_same_schedule_again(simulated: Database) -> None:
    first, again = (run(simulated, 7) for _ in range(2))
    assert first.history == again.history
    assert first.seen == again.seen


@pytest.mark.parametrize("name", BUGS)
def test_a_mistake_that_is_built_in_is_found(simulated: Database, name: str) -> None:
    assert hunt(simulated, BUGS[name], seed=1, most=MOST) is not None
