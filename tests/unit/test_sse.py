"""How a stream of events leaves: to whom is slow, to whom takes nothing any more, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
from starlette.types import Message, Scope

from app.deadline import after
from app.sse import EventStream
from llm.errors import StreamBroken

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


async def test_a_caller_who_takes_longer_in_all_but_not_with_one_piece_gets_everything() -> None:
    taken, failed = list[bytes](), list[str]()
    pieces = (b"a", b"b", b"c", b"d")
    stream = EventStream(_spoken(*pieces, pause=0, ended=[]), failed=failed.append, stalled=1.0)
    await stream(SCOPE, _connected, _taking(0.4, taken))
    assert (taken, failed) == ([*pieces, b""], [])


async def test_a_caller_who_hangs_up_ends_the_answer_and_nothing_else() -> None:
    ended, failed = list[bool](), list[str]()

    async def hung_up() -> Message:
        await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    stream = EventStream(_spoken(b"a", pause=3600, ended=ended), failed=failed.append)
    async with asyncio.timeout(30):
        await stream(SCOPE, hung_up, _taking(0, []))
    assert (ended, failed) == ([True], ["client_gone"])
    task = asyncio.current_task()
    assert task
    assert task.cancelling() == 0


@pytest.mark.asyncio(loop_scope="function")  # In the loop of all tests others' tasks come and go.
async def test_a_stream_that_has_ended_leaves_nothing_behind() -> None:
    before, taken, stopping = asyncio.all_tasks(), list[bytes](), asyncio.Event()
    stream = EventStream(_spoken(b"a", pause=0, ended=[]), until=stopping)
    send = _taking(0, taken)
    kept = weakref.ref(send)
    await stream(SCOPE, _connected, send)
    await asyncio.sleep(0)  # What was cancelled ends.
    assert asyncio.all_tasks() == before
    del send, stream
    gc.collect()
    assert kept() is None
    assert taken == [b"a", b""]


@pytest.mark.parametrize(
    ("error", "code"), [(StreamBroken("gone"), "stream_broken"), (ZeroDivisionError(), "internal_error")]
)
async def test_an_answer_that_breaks_off_is_told_and_counted_and_not_called_done(
    error: Exception, code: str
) -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield b"a"
        raise error

    taken, failed = list[bytes](), list[str]()
    await EventStream(broken(), failed=failed.append)(SCOPE, _connected, _taking(0, taken))
    first, told, last = taken
    assert (first, last, failed) == (b"a", b"", [code])
    assert f'"code":"{code}"' in told.decode()
    assert b"[DONE]" not in b"".join(taken)


async def test_a_stream_ends_with_its_deadline_whoever_makes_it() -> None:
    ended, taken, failed = list[bool](), list[bytes](), list[str]()
    events = _spoken(b"a", pause=3600, ended=ended)
    stream = EventStream(events, deadline=after(0.05), failed=failed.append)
    await asyncio.wait_for(stream(SCOPE, _connected, _taking(0, taken)), 30)
    assert (ended, failed) == ([True], ["deadline_exceeded"])
    assert b"deadline_exceeded" in taken[1]


async def test_who_makes_the_events_may_say_a_last_word_after_the_deadline() -> None:
    async def excused() -> AsyncGenerator[bytes, None]:
        yield b"a"
        await asyncio.sleep(0.1)
        yield b"sorry"

    taken, failed = list[bytes](), list[str]()
    stream = EventStream(excused(), deadline=after(0.05), failed=failed.append)
    await stream(SCOPE, _connected, _taking(0, taken))
    assert (taken, failed) == ([b"a", b"sorry", b""], [])


async def test_a_service_that_stops_ends_the_streams_that_hear_of_it() -> None:
    ended, taken, failed, stopping = list[bool](), list[bytes](), list[str](), asyncio.Event()
    events = _spoken(b"a", pause=3600, ended=ended)
    asyncio.get_running_loop().call_later(0.05, stopping.set)
    stream = EventStream(events, until=stopping, failed=failed.append)
    await asyncio.wait_for(stream(SCOPE, _connected, _taking(0, taken)), 30)
    assert (ended, failed) == ([True], ["service_stopping"])
