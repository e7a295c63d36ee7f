"""How a stream of events leaves: to a caller who is slow, and to one who takes nothing any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from starlette.types import Message, Scope

from app.sse import EventStream

SCOPE: Scope = {"type": "http"}


async def _connected() -> Message:
    """The caller's side of the connection, on which nothing more comes."""
    await asyncio.Event().wait()
    raise AssertionError


async def _spoken(*pieces: bytes, pause: float, ended: list[bool]) -> AsyncGenerator[bytes, None]:
    try:
        for piece in pieces:
            yield piece
            await asyncio.sleep(pause)
    finally:
        ended.append(True)


def _taking(seconds: float, taken: list[bytes]) -> Callable[[Message], Awaitable[None]]:
    """The caller takes a piece in so many seconds."""

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(seconds)
            taken.append(message["body"])

    return send


async def test_a_caller_who_takes_nothing_any_more_is_given_up_and_the_answer_ended() -> None:
    ended, taken, failed = list[bool](), list[bytes](), list[str]()
    stream = EventStream(_spoken(b"a", b"b", pause=0, ended=ended), failed=failed.append, stalled=0.05)
    await asyncio.wait_for(stream(SCOPE, _connected, _taking(3600, taken)), 30)
    assert (ended, taken, failed) == ([True], [], ["client_gone"])


async def test_a_slow_caller_of_a_slow_model_gets_everything() -> None:
    ended, taken, failed = list[bool](), list[bytes](), list[str]()
    pieces = (b"a", b"b", b"c", b"d")
    # Longer than a caller may stall, both between the pieces and over all of them, but never with one.
    stream = EventStream(_spoken(*pieces, pause=1.2, ended=ended), failed=failed.append, stalled=1.0)
    await stream(SCOPE, _connected, _taking(0.3, taken))
    assert (ended, taken, failed) == ([True], [*pieces, b""], [])
