"""A bounded house with fair turns."""

from __future__ import annotations

import asyncio

import pytest

from app import deadline
from app.admission import Admission
from app.errors import AdmissionFull, DeadlineExceeded


async def hold(admission: Admission, tenant: str, go: asyncio.Event, order: list[str]) -> None:
    async with admission.turn(tenant, deadline.after(30)):
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
    first = asyncio.create_task(hold(admission, "a", go, order))
    gone = asyncio.create_task(hold(admission, "gone", asyncio.Event(), order))
    after = asyncio.create_task(hold(admission, "after", go, order))
    await settle()

    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    go.set()
    await after

    assert order[-1] == "after"
    assert (admission.running, admission.waiting) == (0, 0)


async def test_a_failed_answer_gives_its_place_back() -> None:
    admission = Admission(max_running=1, max_waiting=0)
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"):
            async with admission.turn("a", deadline.after(30)):
                raise ValueError("broken")
    assert admission.running == 0
