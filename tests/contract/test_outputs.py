"""What every cache of outputs promises; and that a Redis that dies and returns costs no request."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from app import embedded
from app.routes.caller import LONGEST_TIMEOUT
from llm.errors import OutputsUnavailable
from llm.outputs import INDEX, LARGEST, LATE, PREFIX, MemoryOutputs, RedisOutputs
from llm.pipe import Pipe, PipeBroken

Kept = MemoryOutputs | RedisOutputs
PATIENT = 5.0
"""A busy machine may take longer than the usual quarter of a second, and that would be a miss."""


@pytest.fixture(params=["memory", "redis"])
async def outputs(request: pytest.FixtureRequest, empty_url: str) -> AsyncIterator[Kept]:
    made: Kept = MemoryOutputs() if request.param == "memory" else RedisOutputs(empty_url, timeout=PATIENT)
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
    await outputs.get("other")  # What was put before is there now.
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


async def test_what_was_made_from_a_document_and_comes_late_is_not_kept(outputs: Kept) -> None:
    """The answer of a request that read the document before it was erased."""
    await outputs.forget(["t/a"])
    await outputs.put("late", b"1", 60, ["t/a", "t/b"])
    await outputs.put("other", b"2", 60, ["t/b"])
    assert [await outputs.get(key) for key in ("late", "other")] == [None, b"2"]


async def test_a_document_that_was_handed_in_again_is_kept_from_again() -> None:
    now = 0.0
    outputs = MemoryOutputs(clock=lambda: now)
    await outputs.forget(["t/a"])
    now = LATE
    await outputs.put("again", b"1", 60, ["t/a"])
    assert await outputs.get("again") == b"1"


def test_no_request_outlasts_the_time_for_which_what_comes_late_is_refused() -> None:
    assert LATE > LONGEST_TIMEOUT


@pytest.mark.parametrize("document", ["t/a", "t/b"])
async def test_each_of_several_documents_takes_what_was_made_from_them(outputs: Kept, document: str) -> None:
    await outputs.put("several", b"1", 60, ["t/a", "t/b"])
    assert await outputs.forget([document]) == 1
    assert await outputs.get("several") is None


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


@pytest.fixture
async def empty_url(redis_url: str) -> AsyncIterator[str]:
    """A database in which nobody else has left anything."""
    url = f"{redis_url}{'&' if '?' in redis_url else '?'}db=5"
    pipe = await Pipe.connect(url, 5)
    await pipe.ask("FLUSHDB")
    yield url
    await pipe.ask("FLUSHDB")
    pipe.close()


async def test_erasing_follows_the_index_of_a_document_and_does_not_depend_on_it(empty_url: str) -> None:
    outputs = RedisOutputs(empty_url, timeout=PATIENT)
    pipe = await Pipe.connect(empty_url, 5)
    await outputs.put("indexed", b"1", 60, ["t/a", "t/b"])
    await outputs.put("brief", b"2", 0.05, ["t/a"])
    await outputs.get("indexed")  # What was put before is there now.
    indexes = await pipe.ask("KEYS", INDEX + "*")
    assert len(indexes) == 2
    members = {key for index in indexes for key in await pipe.ask("ZRANGE", index, "0", "-1")}
    assert members == {(PREFIX + key).encode() for key in ("indexed", "brief")}

    await outputs.put("dropped", b"3", 60, ["t/a"])
    await pipe.ask("DEL", *indexes)  # as Redis does to make room
    assert await outputs.forget(["t/a"]) >= 2
    assert [await outputs.get(key) for key in ("indexed", "dropped")] == [None, None]
    await outputs.aclose()
    pipe.close()


async def test_a_snapshot_that_began_before_is_waited_for_and_made_anew(empty_url: str) -> None:
    outputs, pipe = RedisOutputs(empty_url, timeout=PATIENT), await Pipe.connect(empty_url, 5)
    await outputs.put("kept", b"1", 60, ["t/a"])
    await outputs.get("kept")
    await pipe.ask("CONFIG", "SET", "rdb-key-save-delay", "20000")
    try:
        await pipe.ask("BGSAVE")
    finally:
        await pipe.ask("CONFIG", "SET", "rdb-key-save-delay", "0")
    assert await outputs.settle() is not None
    await outputs.aclose()
    pipe.close()


async def test_of_a_redis_that_appends_to_a_file_nothing_is_said_to_be_off_the_disk(empty_url: str) -> None:
    outputs, pipe = RedisOutputs(empty_url, timeout=PATIENT), await Pipe.connect(empty_url, 5)
    await pipe.ask("CONFIG", "SET", "appendonly", "yes")
    try:
        while b"aof_rewrite_in_progress:0" not in await pipe.ask("INFO", "persistence"):
            await asyncio.sleep(0.01)
        assert await outputs.settle() is None
    finally:
        await pipe.ask("CONFIG", "SET", "appendonly", "no")
    await outputs.aclose()
    pipe.close()


async def test_an_index_lives_as_long_as_the_longest_of_its_outputs(empty_url: str) -> None:
    outputs = RedisOutputs(empty_url, timeout=PATIENT)
    pipe = await Pipe.connect(empty_url, 5)
    await outputs.put("long", b"1", 600, ["t/long"])
    await outputs.put("short", b"2", 1, ["t/long"])
    await outputs.get("long")
    (index,) = await pipe.ask("KEYS", INDEX + "*")
    assert 599_000 < await pipe.ask("PTTL", index) <= 600_000
    assert await outputs.forget(["t/long"]) == 2
    assert (LATE - 1) * 1000 < await pipe.ask("PTTL", index) <= LATE * 1000
    await pipe.ask("ZADD", index, "0", "forgotten")  # as it is when that time is over
    await outputs.put("again", b"3", 60, ["t/long"])
    assert await outputs.get("again") == b"3"
    await outputs.aclose()
    pipe.close()


async def test_what_was_written_behind_is_found_by_whoever_asks_next(redis_url: str) -> None:
    outputs, other = (RedisOutputs(redis_url, timeout=PATIENT) for _ in range(2))
    await outputs.put("behind", b"value", 60)
    assert await outputs.get("behind") == b"value"
    await outputs.put("later", b"value", 60)
    await outputs.aclose()  # Closing sends what is held.
    async with asyncio.timeout(30):
        while await other.get("later") is None:
            await asyncio.sleep(0.01)
    await other.aclose()


async def test_a_redis_that_forgot_the_script_costs_one_output_and_no_request(redis_url: str) -> None:
    outputs = RedisOutputs(redis_url, timeout=PATIENT)
    pipe = await Pipe.connect(redis_url, 5)
    await outputs.get("connect")
    await pipe.ask("SCRIPT", "FLUSH")
    await outputs.put("lost", b"value", 60)
    async with asyncio.timeout(30):
        while await outputs.get("kept") is None:
            await outputs.put("kept", b"value", 60)
            await asyncio.sleep(0.05)
    assert [await outputs.get(key) for key in ("lost", "kept")] == [None, b"value"]
    assert await outputs.available()
    await outputs.aclose()
    pipe.close()


async def test_many_look_ups_share_one_connection(redis_url: str) -> None:
    outputs = RedisOutputs(redis_url, timeout=PATIENT)
    pipe = await Pipe.connect(redis_url, 5)
    for n in range(200):
        await outputs.put(f"many-{n}", str(n).encode(), 60, ["t/many"])
    before = await pipe.ask("INFO", "stats")
    got = await asyncio.gather(*(outputs.get(f"many-{n}") for n in range(200)))
    assert got == [str(n).encode() for n in range(200)]
    assert _connections(await pipe.ask("INFO", "stats")) == _connections(before)
    assert await outputs.forget(["t/many"]) == 200
    await outputs.aclose()
    pipe.close()


def _connections(info: bytes) -> bytes:
    return next(line for line in info.splitlines() if line.startswith(b"total_connections_received"))


def test_it_works_on_the_event_loop_that_serves(redis_url: str) -> None:
    async def used() -> bytes | None:
        outputs = RedisOutputs(redis_url, timeout=PATIENT)
        await outputs.put("served", b"value", 60)
        found = await outputs.get("served")
        await outputs.aclose()
        return found

    assert uvloop.run(used()) == b"value"


async def test_a_url_with_a_password_and_a_database_is_followed(parts_folder: Path) -> None:
    folder = parts_folder / "locked-redis"
    folder.mkdir(exist_ok=True)
    redis = Redis(folder, "--requirepass", "open sesame")
    await redis.start(url := redis.part.url.replace("unix://", "unix://:open%20sesame@") + "?db=3")
    outputs, wrong = (RedisOutputs(one, timeout=PATIENT) for one in (url, redis.part.url))
    await outputs.put("key", b"value", 60)
    assert await outputs.get("key") == b"value"
    pipe = await Pipe.connect(url, 5)
    assert await pipe.ask("DBSIZE") == 1
    assert await wrong.get("key") is None
    with pytest.raises(OutputsUnavailable, match="NOAUTH"):
        await wrong.ping()
    with pytest.raises(PipeBroken, match="unknown command"):
        await pipe.ask("NO_SUCH_THING")
    assert await pipe.ask("PING") == b"PONG"
    await outputs.aclose()
    pipe.close()
    redis.kill()


class Redis:
    """A Redis of this test's own, on the same socket each time."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.part = embedded.redis(folder / "data", folder)
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, url: str | None = None) -> None:
        """Until it answers, at `url` where it is locked."""
        command = [*self.part.command, *self._options]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, env={**os.environ, **self.part.environment}
        )
        async with asyncio.timeout(20):
            while True:
                try:
                    (await Pipe.connect(url or self.part.url, 5)).close()
                    return
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
    outputs = RedisOutputs(server.part.url, timeout=PATIENT, pause=1.0, clock=clock)
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
