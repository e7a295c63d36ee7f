"""Something that is done while something else is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class beside(Generic[T]):  # noqa: N801  (it reads as the statement that it makes)
    """`async with beside(work) as task`: do this while the block does something else, and not longer. What it
    raises is raised where the task is awaited, and nowhere if it is not."""

    __slots__ = ("_task", "_work")

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work

    async def __aenter__(self) -> asyncio.Task[T]:
        self._task = aside(self._work)
        return self._task

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()


def aside(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Do this some time, whether anybody waits for it or not; who keeps the task keeps it from being lost."""
    task = asyncio.create_task(work)
    task.add_done_callback(_heeded)
    return task


def _heeded(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
