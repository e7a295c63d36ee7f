"""What leaves a connection, in how many pieces, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import Receive, Scope, Send

from app.wire import Wire

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]}
GET = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"


@asynccontextmanager
async def told_by(*turns: tuple[bytes, ...]) -> AsyncIterator[asyncio.StreamReader]:
    """The reader of a connection over which a response came whose head and parts were written so: what is in
    one of the `turns` without a pause, and a pause between them."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        for turn in turns:
            for part in turn:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(
        application, http=Wire, lifespan="off", log_config=None, access_log=False, server_header=False
    )
    config.load()
    state = uvicorn.server.ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Wire(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        writer.write(GET)
        yield reader
    finally:
        writer.close()
        server.close()


async def test_the_head_leaves_with_the_first_of_the_body() -> None:
    async with told_by((b"one",), (b"two",)) as reader:
        assert (await reader.read(1_000)).endswith(b"\r\n\r\none")
        assert await reader.read(1_000) == b"two"


async def test_a_head_does_not_wait_for_a_body_that_is_not_there() -> None:
    async with told_by((), (b"onetwo",)) as reader:
        assert (await reader.read(1_000)).endswith(b"\r\n\r\n")
        assert await reader.read(1_000) == b"onetwo"
