"""What every cache of outputs promises; and that a Redis that dies and returns costs no request."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app import embedded
from llm.cache import LARGEST, MemoryOutputs, RedisOutputs
from llm.errors import OutputsUnavailable

Kept = MemoryOutputs | RedisOutputs


@pytest.fixture(params=["memory", "redis"])
async def outputs(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Kept]:
    made: Kept = MemoryOutputs() if request.param == "memory" else RedisOutputs(redis_url)
    await made.forget(["t/a", "t/b"])
    yield made
    await made.aclose()


async def test_what_was_put_is_got(outputs: Kept) -> None:
    await outputs.put("put", b"\x00value\xff", 60, ["t/a"])
    assert await outputs.get("put") == b"\x00value\xff"
    assert await outputs.get("other") is None
    assert await outputs.available()


async def test_a_later_value_takes_the_place_of_an_earlier(outputs: Kept) -> None:
    await outputs.put("twice", b"one", 60)
    await outputs.put("twice", b"two", 60)
    assert await outputs.get("twice") == b"two"


async def test_a_value_ends_with_its_time(outputs: Kept) -> None:
    await outputs.put("brief", b"value", 0.05)
    await outputs.put("never", b"value", 0)
    await asyncio.sleep(0.2)
    assert await outputs.get("brief") is None
    assert await outputs.get("never") is None


async def test_a_document_is_forgotten_with_all_that_was_made_from_it(outputs: Kept) -> None:
    await outputs.put("one", b"1", 60, ["t/a"])
    await outputs.put("both", b"2", 60, ["t/a", "t/b"])
    await outputs.put("other", b"3", 60, ["t/b"])
    await outputs.put("none", b"4", 60)
    assert await outputs.forget(["t/a"]) == 2
    assert [await outputs.get(key) for key in ("one", "both", "other", "none")] == [None, None, b"3", b"4"]


async def test_a_value_that_is_too_large_is_not_kept(outputs: Kept) -> None:
    await outputs.put("large", b"x" * (LARGEST + 1), 60)
    assert await outputs.get("large") is None


async def test_memory_holds_no_more_than_it_may() -> None:
    outputs = MemoryOutputs(limit=2)
    for key in ("a", "b"):
        await outputs.put(key, key.encode(), 60)
    await outputs.get("a")
    await outputs.put("c", b"c", 60)
    assert [await outputs.get(key) for key in "abc"] == [b"a", None, b"c"]


class Redis:
    """A Redis of this test's own, on the same socket each time."""

    def __init__(self, folder: Path) -> None:
        self.part = embedded.redis(folder / "data", folder)
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self._process = subprocess.Popen(
            self.part.command, stdout=subprocess.DEVNULL, env={**os.environ, **self.part.environment}
        )
        async with asyncio.timeout(20):
            while True:
                try:
                    return await self.part.ready()
                except Exception:
                    await asyncio.sleep(0.05)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()


@pytest.fixture
async def server(parts_folder: Path) -> AsyncIterator[Redis]:
    folder = parts_folder / "own-redis"
    folder.mkdir(exist_ok=True)
    redis = Redis(folder)
    await redis.start()
    yield redis
    redis.kill()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_while_redis_is_away_every_look_up_is_a_miss_and_then_it_is_used_again(server: Redis) -> None:
    clock = Clock()
    outputs = RedisOutputs(server.part.url, pause=1.0, clock=clock)
    await outputs.put("before", b"value", 60, ["t/a"])
    server.kill()
    assert await outputs.get("before") is None
    await outputs.put("during", b"value", 60)
    assert not await outputs.available()
    with pytest.raises(OutputsUnavailable):
        await outputs.forget(["t/a"])
    with pytest.raises(OutputsUnavailable):
        await outputs.ping()

    await server.start()
    clock.now += 1.0
    assert await outputs.available()
    await outputs.put("after", b"value", 60)
    assert await outputs.get("after") == b"value"
    await outputs.aclose()


async def test_a_dead_redis_is_asked_once_in_a_while_only(tmp_path: Path) -> None:
    """A server that accepts and never answers: the dearest way to be dead."""
    connections = 0

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read()
        writer.close()

    silent = await asyncio.start_unix_server(accept, tmp_path / "s")
    clock = Clock()
    outputs = RedisOutputs(f"unix://{tmp_path / 's'}", timeout=0.1, pause=1.0, clock=clock)
    for _ in range(50):
        assert await outputs.get("key") is None
    assert connections == 1
    clock.now += 1.0
    await asyncio.gather(*(outputs.get("key") for _ in range(50)))
    assert connections == 2
    await outputs.aclose()
    silent.close()
