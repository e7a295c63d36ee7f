"""What is left of a request's time. A deadline is a moment on the event loop's clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.errors import DeadlineExceeded


def after(seconds: float) -> float:
    """The deadline that many seconds from now."""
    return asyncio.get_running_loop().time() + seconds


def left(deadline: float) -> float:
    """Seconds until the deadline; raises `DeadlineExceeded` when there are none."""
    seconds = deadline - asyncio.get_running_loop().time()
    if seconds <= 0:
        raise DeadlineExceeded("The request's time ran out. Ask again, or allow more time.")
    return seconds


@asynccontextmanager
async def within(deadline: float, what: str) -> AsyncIterator[None]:
    """Bound the awaits of a block by the deadline. Never put a `yield` of a generator inside."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise DeadlineExceeded(
            f"The request's time ran out during {what}. Ask again, or allow more time."
        ) from None
