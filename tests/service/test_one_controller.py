"""Of the controllers of an instance one works; when it hangs or its machine is gone, another takes over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.database import open_engine
from eval.controller import alone

SILENCE = 1.5
"""Longer than who waits for a turn is silent between two looks."""


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = open_engine(database_url)
    yield engine
    await engine.dispose()


async def _works(held: AsyncConnection) -> bool:
    return bool(await held.scalar(select(1)))


async def _is_taken(engine: AsyncEngine, seconds: float) -> bool:
    """Whether another controller still waits for its turn after so many seconds."""
    stop = asyncio.Event()
    try:
        async with asyncio.timeout(seconds), alone(engine, stop, SILENCE):
            return False
    except TimeoutError:
        return True


async def test_one_that_is_heard_from_stays_the_only_one(engine: AsyncEngine) -> None:
    async with alone(engine, asyncio.Event(), SILENCE) as held:
        other = asyncio.create_task(_is_taken(engine, 2 * SILENCE))
        while not other.done():
            assert await _works(held)
            await asyncio.sleep(SILENCE / 10)
        assert await other


async def test_one_that_hangs_loses_its_place_and_hears_of_it(engine: AsyncEngine) -> None:
    async with alone(engine, asyncio.Event(), SILENCE) as held:
        assert not await _is_taken(engine, 10.0)
        with pytest.raises(DBAPIError):
            await _works(held)


async def test_the_place_is_free_at_once_when_one_leaves(engine: AsyncEngine) -> None:
    async with alone(engine, asyncio.Event(), SILENCE):
        pass
    assert not await _is_taken(engine, 0.9)


async def test_whoever_uses_the_connection_next_may_be_silent(engine: AsyncEngine) -> None:
    async with alone(engine, asyncio.Event(), SILENCE):
        pass
    async with engine.connect() as next_one:
        assert await _works(next_one)
        await asyncio.sleep(1.5 * SILENCE)
        assert await _works(next_one)
