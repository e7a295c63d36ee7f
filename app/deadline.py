"""What is left of a request's time. A deadline is a moment on the event loop's clock."""

from __future__ import annotations

import asyncio
from types import TracebackType

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


class within:  # noqa: N801  (it reads as the statement that it makes)
    """`async with within(deadline, what)`: bound the awaits of a block by the deadline. Never put a `yield`
    of a generator inside."""

    __slots__ = ("_timeout", "_what")

    def __init__(self, deadline: float, what: str) -> None:
        self._timeout = asyncio.timeout_at(deadline)
        self._what = what

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            error = TimeoutError()
        if isinstance(error, TimeoutError):
            raise DeadlineExceeded(
                f"The request's time ran out during {self._what}. Ask again, or allow more time."
            ) from None
