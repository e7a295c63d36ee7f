"""How many requests may be sent a second time."""

from __future__ import annotations

from llm.budget import RetryBudget


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def spent(budget: RetryBudget) -> int:
    count = 0
    while budget.spend():
        count += 1
    return count


def test_a_tenth_of_the_requests_and_a_small_floor_may_be_sent_again() -> None:
    budget = RetryBudget(share=0.1, floor=3, clock=Clock())
    assert spent(budget) == 3
    for _ in range(100):
        budget.earn()
    assert spent(budget) in (9, 10)


def test_a_quiet_hour_saves_up_no_more_than_the_bound() -> None:
    budget = RetryBudget(share=0.1, most=20, clock=Clock())
    for _ in range(10_000):
        budget.earn()
    assert spent(budget) == 20


def test_the_floor_fills_up_with_time() -> None:
    clock = Clock()
    budget = RetryBudget(floor=3, per_second=0.1, clock=clock)
    spent(budget)
    clock.now = 20
    assert spent(budget) == 2
    clock.now = 1_000
    assert spent(budget) == 3
