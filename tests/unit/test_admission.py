"""A bounded house with fair turns."""

from __future__ import annotations

import asyncio

import pytest

from app import deadline
from app.admission import LEAST, Admission
from app.errors import AdmissionFull, DeadlineExceeded
from llm.types import Load


async def hold(
    admission: Admission, tenant: str, go: asyncio.Event, order: list[str], seconds: float = 60
) -> None:
    async with admission.turn(tenant, deadline.after(seconds)):
        order.append(tenant)
        await go.wait()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_full_house_refuses_at_once_and_says_when_to_come_back() -> None:
    admission, go = Admission(max_running=1, max_waiting=1), asyncio.Event()
    tasks = [asyncio.create_task(hold(admission, "a", go, [])) for _ in range(2)]
    await settle()

    with pytest.raises(AdmissionFull) as full:
        async with admission.turn("b", deadline.after(30)):
            pass

    assert full.value.retry_after > 0
    go.set()
    await asyncio.gather(*tasks)
    assert (admission.running, admission.waiting) == (0, 0)


async def test_a_tenant_with_many_questions_delays_another_by_one() -> None:
    admission, order = Admission(max_running=1, max_waiting=100), list[str]()
    go = asyncio.Event()
    tasks = [asyncio.create_task(hold(admission, "many", go, order)) for _ in range(10)]
    await settle()
    tasks.append(asyncio.create_task(hold(admission, "one", go, order)))
    await settle()

    go.set()
    await asyncio.gather(*tasks)

    assert order.index("one") <= 2


async def test_waiting_ends_with_the_deadline_and_frees_the_place_in_the_queue() -> None:
    admission, go = Admission(max_running=1, max_waiting=1), asyncio.Event()
    holder = asyncio.create_task(hold(admission, "a", go, []))
    await settle()

    with pytest.raises(DeadlineExceeded):
        async with admission.turn("b", deadline.after(0.01)):
            pass

    assert admission.waiting == 0
    go.set()
    await holder
    assert admission.running == 0


async def test_a_caller_who_stops_waiting_leaves_no_trace() -> None:
    admission, go, order = Admission(max_running=1, max_waiting=5), asyncio.Event(), list[str]()
    first = asyncio.create_task(hold(admission, "a", go, order))
    gone = asyncio.create_task(hold(admission, "gone", go, order))
    after = asyncio.create_task(hold(admission, "after", go, order))
    await settle()

    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    go.set()
    await asyncio.gather(first, after)

    assert order == ["a", "after"]
    assert (admission.running, admission.waiting) == (0, 0)


async def test_a_place_handed_to_a_caller_who_leaves_in_that_moment_goes_to_the_next() -> None:
    admission, go, order = Admission(max_running=1, max_waiting=5), asyncio.Event(), list[str]()
    async with admission.turn("a", deadline.after(60)):
        gone = asyncio.create_task(hold(admission, "gone", asyncio.Event(), order))
        after = asyncio.create_task(hold(admission, "after", go, order))
        await settle()
    gone.cancel()  # It has its place, and has not come to know of it.
    await asyncio.gather(gone, return_exceptions=True)
    go.set()
    await asyncio.wait_for(after, 10)

    assert order == ["after"]
    assert (admission.running, admission.waiting) == (0, 0)


async def test_a_failed_answer_gives_its_place_back() -> None:
    admission = Admission(max_running=1, max_waiting=0)
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"):
            async with admission.turn("a", deadline.after(30)):
                raise ValueError("broken")
    assert admission.running == 0


class Reports:
    """What the model says of its own queue; each report is a second later."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.last: Load | None = None

    def __call__(self) -> Load | None:
        return self.last

    def clock(self) -> float:
        return self.now

    def say(self, *, running: int, waiting: int) -> None:
        self.now += 1
        self.last = Load(running=running, waiting=waiting, at=self.now)


async def served(admission: Admission) -> None:
    async with admission.turn("a", deadline.after(30)):
        pass


async def test_fewer_are_let_through_while_the_model_has_a_queue_of_its_own_but_never_too_few() -> None:
    reports = Reports()
    admission = Admission(max_running=32, max_waiting=0, load=reports, clock=reports.clock)
    limits = []
    for _ in range(20):
        reports.say(running=16, waiting=20)
        await served(admission)
        limits.append(admission.limit)
    assert limits == sorted(limits, reverse=True)
    assert limits[0] < 32
    assert limits[-1] == LEAST


async def test_more_are_let_through_again_when_the_models_queue_is_gone_and_they_are_wanted() -> None:
    reports = Reports()
    admission = Admission(max_running=32, max_waiting=8, load=reports, clock=reports.clock)
    for _ in range(20):
        reports.say(running=16, waiting=20)
        await served(admission)

    for _ in range(60):
        reports.say(running=16, waiting=0)
        go = asyncio.Event()
        tasks = [asyncio.create_task(hold(admission, "a", go, [])) for _ in range(admission.limit)]
        await settle()
        go.set()
        await asyncio.gather(*tasks)
    assert admission.limit == 32


async def test_one_report_is_taken_into_account_once() -> None:
    reports = Reports()
    admission = Admission(max_running=32, max_waiting=0, load=reports, clock=reports.clock)
    reports.say(running=16, waiting=20)
    for _ in range(10):
        await served(admission)
    assert admission.limit == 24


async def test_a_few_that_wait_at_a_busy_model_are_no_reason_to_send_fewer() -> None:
    reports = Reports()
    admission = Admission(max_running=32, max_waiting=0, load=reports, clock=reports.clock)
    for waiting in (2, 3):  # A queue that is always empty would be a model that is not always busy.
        reports.say(running=20, waiting=waiting)
        await served(admission)
    assert admission.limit == 32
    reports.say(running=20, waiting=4)
    await served(admission)
    assert admission.limit == 24


async def test_a_bound_that_nobody_reaches_does_not_rise() -> None:
    reports = Reports()
    admission = Admission(max_running=32, max_waiting=0, load=reports, clock=reports.clock)
    for _ in range(20):
        reports.say(running=16, waiting=20)
        await served(admission)
    for _ in range(10):
        reports.say(running=1, waiting=0)
        await served(admission)
    assert admission.limit == LEAST


async def test_no_report_takes_a_small_house_above_its_bound() -> None:
    reports = Reports()
    admission = Admission(max_running=2, max_waiting=0, load=reports, clock=reports.clock)
    for waiting in (20, 20, 0, 0):
        reports.say(running=2, waiting=waiting)
        await served(admission)
        assert admission.limit <= 2


async def test_without_reports_the_configured_bound_holds_again() -> None:
    reports = Reports()
    admission = Admission(max_running=32, max_waiting=0, load=reports, clock=reports.clock)
    for _ in range(20):
        reports.say(running=16, waiting=20)
        await served(admission)
    reports.last = None
    reports.now += 60
    await served(admission)
    assert admission.limit == 32


async def test_whoever_cannot_be_answered_in_time_is_told_at_once_and_when_to_come_back() -> None:
    reports = Reports()
    admission = Admission(max_running=1, max_waiting=100, load=reports, clock=reports.clock)
    async with admission.turn("a", deadline.after(30)):
        reports.now += 10  # Answers take ten seconds.
    go = asyncio.Event()
    tasks = [asyncio.create_task(hold(admission, "a", go, [])) for _ in range(3)]
    await settle()
    waiting = admission.waiting

    with pytest.raises(AdmissionFull) as full:
        async with admission.turn("a", deadline.after(20)):
            pass
    assert full.value.retry_after == pytest.approx(10, abs=0.5)
    assert admission.waiting == waiting

    patient = asyncio.create_task(hold(admission, "a", go, []))
    await settle()
    assert admission.waiting == waiting + 1
    go.set()
    await asyncio.gather(*tasks, patient)


async def test_another_tenants_long_queue_makes_nobody_else_late() -> None:
    reports = Reports()
    admission = Admission(max_running=1, max_waiting=100, load=reports, clock=reports.clock)
    async with admission.turn("many", deadline.after(30)):
        reports.now += 5
    go = asyncio.Event()
    tasks = [asyncio.create_task(hold(admission, "many", go, [])) for _ in range(5)]
    await settle()

    tasks.append(asyncio.create_task(_briefly(admission, go)))
    await settle()
    assert admission.waiting == 5
    go.set()
    await asyncio.gather(*tasks)


async def _briefly(admission: Admission, go: asyncio.Event) -> None:
    async with admission.turn("one", deadline.after(12)):
        await go.wait()


async def test_the_pressure_of_a_turn_is_the_share_of_the_queue_that_is_taken_when_it_comes() -> None:
    admission, pressures = Admission(max_running=1, max_waiting=4), list[float]()

    async def ask() -> None:
        async with admission.turn("a", deadline.after(30)) as turn:
            pressures.append(turn.pressure)

    async with admission.turn("a", deadline.after(30)) as alone:
        tasks = [asyncio.create_task(ask()) for _ in range(4)]
        await settle()
    await asyncio.gather(*tasks)

    assert alone.pressure == 0
    assert pressures == [0.75, 0.5, 0.25, 0]


async def test_tenants_who_hold_places_for_long_leave_some_for_others() -> None:
    admission, order = Admission(max_running=8, max_waiting=100, sparing=True), list[str]()
    go, tasks = asyncio.Event(), list[asyncio.Task[None]]()
    for tenant, held in (("first", 4), ("second", 2), ("third", 1), ("fourth", 1)):
        tasks += [asyncio.create_task(hold(admission, tenant, go, order)) for _ in range(10)]
        await settle()
        assert order.count(tenant) == held
    assert (admission.running, admission.waiting) == (8, 32)
    go.set()
    await asyncio.gather(*tasks)
    assert (admission.running, admission.waiting, len(order)) == (0, 0, 40)


async def test_a_place_that_comes_free_is_anybodys_who_may_take_it() -> None:
    admission, order = Admission(max_running=2, max_waiting=100, sparing=True), list[str]()
    first, then = asyncio.Event(), asyncio.Event()
    tasks = [asyncio.create_task(hold(admission, "slow", first, order))]
    await settle()
    tasks += [asyncio.create_task(hold(admission, "slow", then, order)) for _ in range(3)]
    await settle()
    assert (order, admission.waiting) == (["slow"], 3)
    first.set()
    await settle()
    assert order == ["slow", "slow"]
    then.set()
    await asyncio.gather(*tasks)
    assert len(order) == 4
