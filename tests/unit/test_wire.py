"""What leaves a connection, in how many pieces, and when; and what has to come over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from app import wire
from app.main import Server, configured
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

    async with connected(application) as (reader, writer):
        writer.write(GET)
        yield reader


@asynccontextmanager
async def connected(
    application: ASGIApp,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a server of this application."""
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
        yield reader, writer
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


async def whole(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the length of the body, once it has come."""
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length, more = length + len(message["body"]), message["more_body"]
    told = str(length).encode()
    await send({**START, "headers": [(b"content-length", str(len(told)).encode())]})
    await send({"type": "http.response.body", "body": told})


def post(length: int, *headers: str) -> bytes:
    told = "".join(f"{header}\r\n" for header in headers)
    return f"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: {length}\r\n{told}\r\n".encode()


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nhost:", post(9) + b"half", GET + b"GET / HT"])
async def test_a_request_that_does_not_come_on_is_given_up(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(wire, "WINDOW", 0.1)
    async with connected(whole) as (reader, writer), asyncio.timeout(30):
        writer.write(sent)
        told = await reader.read()
    head, _, body = told[told.index(b"HTTP/1.1 408") :].partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert b'"request_timeout"' in body


async def test_a_connection_over_which_nothing_comes_is_closed_without_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "WINDOW", 0.1)
    async with connected(whole) as (reader, _), asyncio.timeout(30):
        assert await reader.read() == b""


async def test_who_reads_a_body_that_does_not_come_on_hears_that_it_will_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "WINDOW", 0.1)
    ended = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await whole(scope, receive, send)
        ended.set()

    async with connected(application) as (_, writer), asyncio.timeout(30):
        writer.write(post(9) + b"half")
        await ended.wait()


async def test_a_body_that_waits_because_it_is_not_read_is_not_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "WINDOW", 0.1)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.6)
        await whole(scope, receive, send)

    for headers in ((), ("expect: 100-continue",)):
        async with connected(application) as (reader, writer), asyncio.timeout(30):
            writer.write(post(2**22, *headers))
            if headers:
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
            writer.write(bytes(2**22))
            assert (await reader.read(1_000)).endswith(b"4194304")


async def test_a_head_without_an_end_is_refused() -> None:
    async with connected(whole) as (reader, writer), asyncio.timeout(30):
        writer.write(b"GET / HTTP/1.1\r\nx: " + b"a" * (wire.LONGEST_HEAD + 2**10))
        told = await reader.read()
    assert told.startswith(b"HTTP/1.1 431")
    assert b'"header_too_large"' in told


async def test_many_requests_over_one_connection_each_have_a_head_of_their_own() -> None:
    long = b"GET / HTTP/1.1\r\nhost: here\r\nx: " + b"a" * (wire.LONGEST_HEAD // 4) + b"\r\n\r\n"
    async with connected(whole) as (reader, writer), asyncio.timeout(30):
        for _ in range(8):
            writer.write(long[:1_000])
            await asyncio.sleep(0.02)  # The server has a part of the head, and not its end.
            writer.write(long[1_000:])
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(1) == b"0"


@pytest.fixture
async def end_of_window(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Ends the window of the latest connection: none ends by itself."""
    loop, looks = asyncio.get_running_loop(), list[Callable[[], object]]()
    call_later = loop.call_later

    def noted(delay: float, callback: Callable[..., Any], *args: Any, **more: Any) -> asyncio.TimerHandle:
        if delay == wire.WINDOW:
            looks.append(callback)
        return call_later(delay, callback, *args, **more)

    def end() -> None:
        looks[-1]()

    monkeypatch.setattr(wire, "WINDOW", 3_601.0)
    monkeypatch.setattr(loop, "call_later", noted)
    return end


async def test_a_request_has_a_window_of_its_own_and_must_bring_enough_in_each(
    end_of_window: Callable[[], None],
) -> None:
    begun = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await whole(scope, receive, send)

    async with connected(application) as (reader, writer), asyncio.timeout(30):
        writer.write(GET)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(1) == b"0"
        end_of_window()

        begun.clear()
        writer.write(post(9) + b"half")
        await begun.wait()
        end_of_window()  # It began late in this one.
        writer.write(b"half.")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(1) == b"9"

        begun.clear()
        writer.write(post(2**20) + b"h")
        await begun.wait()
        end_of_window()
        writer.write(b"alf.")
        await asyncio.sleep(0.05)
        end_of_window()  # A little is too little.
        assert (await reader.read()).startswith(b"HTTP/1.1 408")


async def test_a_response_that_has_begun_is_cut_off_and_not_answered_once_more(
    end_of_window: Callable[[], None],
) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await whole(scope, receive, send)

    async with connected(application) as (reader, writer), asyncio.timeout(30):
        writer.write(post(9) + b"half")
        assert (await reader.readuntil(b"one")).startswith(b"HTTP/1.1 200")
        end_of_window()
        end_of_window()
        assert await reader.read() == b""


async def test_a_service_that_stops_cuts_off_nobody_who_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "LINGER", 0.3)
    going_on = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        if scope["path"] == "/long":
            await going_on.wait()
        await send({"type": "http.response.body", "body": b"two"})

    listening = asyncio.Event()
    server = Server(configured(application, "127.0.0.1", 0, 5), listening.set, asyncio.Event())
    served = asyncio.create_task(server.serve())
    await listening.wait()
    address = server.servers[0].sockets[0].getsockname()
    asks, waits, hears = [await asyncio.open_connection(*address) for _ in range(3)]
    for (reader, writer), path in ((asks, b"/"), (waits, b"/"), (hears, b"/long")):
        writer.write(GET.replace(b"/ ", path + b" ", 1))
        await reader.readuntil(b"one")
        if path == b"/":
            await reader.readexactly(3)

    server.should_exit = True
    while server.servers[0].sockets:
        await asyncio.sleep(0.01)
    reader, writer = asks
    writer.write(GET)
    told = await reader.read()
    assert b"connection: close" in told
    assert told.endswith(b"onetwo")
    assert await waits[0].read() == b""  # Nothing was on its way.

    going_on.set()
    reader, writer = hears
    assert await reader.readexactly(3) == b"two"
    writer.write(GET)
    told = await reader.read()
    assert b"connection: close" in told
    assert told.endswith(b"onetwo")
    await served
    for _, writer in (asks, waits, hears):
        writer.close()
