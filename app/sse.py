"""Server-sent events: how a stream of values becomes a response, and what happens when either end fails.

The status and headers leave with the first event, so a failure before it has its real status. A failure
after it is one `error` event and no `[DONE]`. A caller that hangs up closes the stream at once, which
frees the model's slot.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Any, TypeVar

import orjson
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app import telemetry
from app.deadline import within
from app.errors import ClientGone
from app.problems import problem_of

E = TypeVar("E")
DONE = b"data: [DONE]\n\n"
GRACE = 0.5
"""Seconds that whoever makes the events has to end them in its own words after the deadline."""
STALLED = 30.0
"""Seconds without a byte taken, after which a caller counts as gone."""
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


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
        self._watcher.cancel()
        if self._gone:
            self._task.uncancel()
            if kind is asyncio.CancelledError:
                raise ClientGone("The caller hung up.")

    async def _watch(self) -> None:
        message: Message = {"type": ""}
        while message["type"] != "http.disconnect":
            message = await self._receive()
        self._gone = True
        self._task.cancel()


async def first_of(events: AsyncGenerator[E, None]) -> E | None:
    """The first event, None if there is none. If it fails, the stream is closed before the error goes on."""
    try:
        return await anext(events, None)
    except BaseException:
        await events.aclose()
        raise


class EventStream(Response):
    """A response of events, whose generator is closed at the end, whichever end that is.

    `deadline` ends it, if there is one. `failed` hears the code of an error that ended the stream.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        *,
        deadline: float | None = None,
        failed: Callable[[str], None] = lambda code: None,
    ) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._events = events
        self._deadline = math.inf if deadline is None else deadline + GRACE
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write(body: bytes, more: bool = True) -> None:
            try:
                async with asyncio.timeout(STALLED):
                    await send({"type": "http.response.body", "body": body, "more_body": more})
            except TimeoutError:
                raise ClientGone("The caller takes nothing any more.") from None

        async with aclosing(self._events):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                async with Connected(receive):
                    await self._write_all(write)
            except ClientGone:
                self._failed("client_gone")
                return
        await write(b"", False)

    async def _write_all(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        try:
            async with within(self._deadline, "the answer"):
                async for event_bytes in self._events:
                    await write(event_bytes)
        except ClientGone:
            raise
        except Exception as error:  # noqa: BLE001 - the headers have left: an event must tell it
            current = telemetry.CURRENT.get()
            problem = problem_of(error, current.request_id if current else "")
            self._failed(problem.code)
            await write(event(problem.body()))
