"""What a connection to Redis does when the other end breaks off, falls silent or talks nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import hiredis
import pytest

from llm.pipe import Line, Pipe, PipeBroken
from tests.calls import becomes

Command = list[bytes]
Answer = Callable[[Command], bytes | None]
"""What is said to a command; None hangs up."""


@dataclass(slots=True)
class Server:
    url: str
    connections: int = 0
    gone: int = 0
    heard: list[Command] = field(default_factory=list)


@asynccontextmanager
async def serving(folder: Path, answer: Answer) -> AsyncIterator[Server]:
    """Something at the place of Redis that answers as a test wants."""
    path = folder / "redis.sock"
    server = Server(f"unix://{path}")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        parser = hiredis.Reader()
        try:
            while said := await reader.read(65_536):
                parser.feed(said)
                while (command := parser.gets()) is not False:
                    server.heard.append(command)
                    reply = answer(command)
                    if reply is None:
                        return
                    writer.write(reply)
        finally:
            server.gone += 1
            writer.close()

    listening = await asyncio.start_unix_server(serve, str(path))
    try:
        yield server
    finally:
        # Without waiting: from Python 3.12 on that lasts until every connection is closed.
        listening.close()


async def test_a_connection_that_is_closed_is_told_at_once_to_whoever_waits(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda command: None) as server, asyncio.timeout(10):
        pipe = await Pipe.connect(server.url, 60.0)
        with pytest.raises(PipeBroken, match="closed the connection"):
            await pipe.ask("PING")
        assert pipe.closed


async def test_what_is_no_reply_breaks_the_connection(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda command: b"nonsense\r\n") as server, asyncio.timeout(10):
        pipe = await Pipe.connect(server.url, 60.0)
        with pytest.raises(PipeBroken, match="Protocol error"):
            await pipe.ask("PING")


async def test_silence_is_noticed_also_long_after_the_first_reply(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, lambda command: b"" if command[0] == b"HANG" else b"+OK\r\n") as server,
        asyncio.timeout(10),
    ):
        pipe = await Pipe.connect(server.url, 0.2)
        assert await pipe.ask("PING") == b"OK"
        await asyncio.sleep(0.3)
        with pytest.raises(PipeBroken, match="no reply within"):
            await pipe.ask("HANG")


async def test_a_caller_who_waits_no_longer_takes_nobody_s_reply(tmp_path: Path) -> None:
    said = iter((b"", b"+one\r\n+two\r\n"))
    async with serving(tmp_path, lambda command: next(said)) as server, asyncio.timeout(10):
        pipe = await Pipe.connect(server.url, 60.0)
        gone = asyncio.create_task(pipe.ask("ONE"))
        assert await becomes(lambda: len(server.heard) == 1)
        gone.cancel()
        assert await pipe.ask("TWO") == b"two"
        assert not pipe.closed


async def test_what_nobody_waits_for_is_sent_each_time(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda command: b"+OK\r\n") as server:
        pipe = await Pipe.connect(server.url, 60.0)
        for n in range(1, 4):
            pipe.tell("SET", "a", str(n))
            assert await becomes(lambda n=n: len(server.heard) == n)  # type: ignore[misc]
        pipe.close()


async def test_those_who_ask_first_at_once_share_a_connection(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda command: b"+OK\r\n") as server:
        line = Line(server.url, timeout=60.0)
        assert await asyncio.gather(*(line.ask("PING") for _ in range(5))) == [b"OK"] * 5
        assert server.connections == 1
        line.close()


async def test_a_connection_on_which_the_login_fails_is_not_left_open(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda command: b"-WRONGPASS no\r\n") as server:
        with pytest.raises(PipeBroken, match="refused"):
            await Pipe.connect(server.url, 60.0, ("AUTH", "wrong"))
        assert await becomes(lambda: server.gone == 1)
