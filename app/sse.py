"""Server-sent events: how a stream of values becomes a response, and what happens when either end fails.

The status and headers leave with the first event, so a failure before it has its real status. A failure
after it is one `error` event and no `[DONE]`. A caller that hangs up closes the stream at once, which
frees the model's slot.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, TypeVar

import orjson
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app import telemetry
from app.deadline import within
from app.errors import ClientGone, Stopping
from app.problems import problem_of

E = TypeVar("E")
DONE = b"data: [DONE]\n\n"
GRACE = 0.5
"""Seconds that whoever makes the events has to end them in its own words after the deadline."""
STALLED = 30.0
"""Seconds without a byte taken, after which a caller counts as gone."""
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The whole of it; with `stream`, server-sent events of JSON, the last one `[DONE]`. "
        'After an error, which is an event `{"error": {...}}`, no `[DONE]` comes.',
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
"""The answer of a route that streams when it is asked to, for the OpenAPI document."""


def event(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


class Connected:
    """`async with Connected(receive)`: the block is cancelled, and `ClientGone` raised, when the caller
    hangs up. Enter it only after the request's body was read."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._watcher = asyncio.create_task(self._watch())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task, watcher = self._task, self._watcher
        # What is cancelled keeps where it was, and so this and the whole request. If this kept it, too, only
        # the collector would free them.
        del self._task, self._watcher
        watcher.cancel()
        if self._gone:
            task.uncancel()
            if kind is asyncio.CancelledError:
                raise ClientGone("The caller hung up.")

    async def _watch(self) -> None:
        message: Message = {"type": ""}
        while message["type"] != "http.disconnect":
            message = await self._receive()
        self._gone = True
        self._task.cancel()


class _Taker:
    """`async with _Taker(send, stalled) as taker`: what is written in the block must be taken within so many
    seconds; else the block is cancelled, and `ClientGone` raised. One timer looks after all writes, since one
    for each costs more than the write."""

    def __init__(self, send: Send, stalled: float) -> None:
        self._send = send
        self._stalled = stalled
        self._since = math.inf
        self._gone = False
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._timer = self._loop.call_later(self._stalled, self._look)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._gone:
            self._task.uncancel()
            if kind is asyncio.CancelledError:
                raise ClientGone("The caller takes nothing any more.")

    async def write(self, body: bytes, more: bool = True) -> None:
        self._since = self._loop.time()
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
        self._since = math.inf

    def _look(self) -> None:
        """Now, or when the write that is under way will have lasted too long, or the next one may have."""
        left = self._since + self._stalled - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(min(left, self._stalled), self._look)
            return
        self._gone = True
        self._task.cancel()


class _Unless:
    """`async with _Unless(stopping)`: once the event is set, the block is cancelled and `Stopping` raised."""

    def __init__(self, stopping: asyncio.Event | None) -> None:
        self._stopping = stopping
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._watcher = asyncio.create_task(self._watch(self._stopping)) if self._stopping else None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watcher:
            self._watcher.cancel()
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise Stopping("The service stops. Ask again.") from None

    async def _watch(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._timeout.reschedule(0)


async def first_of(events: AsyncGenerator[E, None]) -> E | None:
    """The first event, None if there is none. If it fails, the stream is closed before the error goes on."""
    try:
        return await anext(events, None)
    except BaseException:
        await events.aclose()
        raise


class EventStream(Response):
    """A response of events, whose generator is closed at the end, whichever end that is.

    `deadline` ends it, if there is one, and so does `until` when it is set. `failed` hears the code of an
    error that ended the stream. A caller who takes nothing for `stalled` seconds counts as gone.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        *,
        deadline: float | None = None,
        until: asyncio.Event | None = None,
        failed: Callable[[str], None] = lambda code: None,
        stalled: float = STALLED,
    ) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._events = events
        self._deadline = math.inf if deadline is None else deadline + GRACE
        self._until = until
        self._failed = failed
        self._stalled = stalled

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with _Taker(send, self._stalled) as taker:
                async with aclosing(self._events):
                    await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                    async with Connected(receive):
                        await self._write_all(taker)
                await taker.write(b"", False)
        except ClientGone:
            self._failed("client_gone")

    async def _write_all(self, taker: _Taker) -> None:
        try:
            async with within(self._deadline, "the answer"), _Unless(self._until):
                async for event_bytes in self._events:
                    await taker.write(event_bytes)
        except ClientGone:
            raise
        except Exception as error:  # noqa: BLE001 - the headers have left: an event must tell it
            current = telemetry.CURRENT.get()
            problem = problem_of(error, current.request_id if current else "")
            self._failed(problem.code)
            await taker.write(event(problem.body()))
