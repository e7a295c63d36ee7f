"""Something that is done while something else is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Do this while the block does something else, and not longer. What it raises is raised where the task is
    awaited, and nowhere if it is not."""
    task = aside(work)
    try:
        yield task
    finally:
        task.cancel()


def aside(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Do this some time, whether anybody waits for it or not; who keeps the task keeps it from being lost."""
    task = asyncio.create_task(work)
    task.add_done_callback(_heeded)
    return task


def _heeded(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
