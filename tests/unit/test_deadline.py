"""A block is bound by its deadline, and whoever it cut off hears what took too long."""

from __future__ import annotations

import asyncio

import pytest

from app.deadline import after, left, within
from app.errors import DeadlineExceeded


async def test_a_block_ends_with_its_deadline_and_says_what_took_too_long() -> None:
    with pytest.raises(DeadlineExceeded, match="during the search"):
        async with asyncio.timeout(4), within(after(0.02), "the search"):
            await asyncio.sleep(3600)


async def test_a_part_that_was_too_slow_for_its_own_bound_is_told_alike() -> None:
    with pytest.raises(DeadlineExceeded, match="during the search"):
        async with within(after(3600), "the search"):
            raise TimeoutError


async def test_what_goes_wrong_within_the_time_is_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with within(after(3600), "the search"):
            raise ZeroDivisionError
    task = asyncio.create_task(_waiting())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _waiting() -> None:
    async with within(after(3600), "the wait"):
        await asyncio.sleep(3600)


async def test_no_time_is_left_once_the_deadline_has_come() -> None:
    assert 0 < left(after(5.0)) <= 5.0
    with pytest.raises(DeadlineExceeded):
        left(after(-0.001))
