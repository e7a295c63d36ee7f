"""Where finished outputs are kept: in Redis, or in the memory of one process.

A cache never makes a request fail: while Redis is away every look-up is a miss. For each document there is an
index of the values that it went into, so that erasing it is one question to Redis. Redis may drop an index to
make room, so a value also carries what it was made from in front of it, and erasing looks through those too:
what is said to be gone is gone. It stays gone: what a request that began before makes of the document is
not kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

from llm.errors import OutputsUnavailable
from llm.pipe import Line, Pipe, PipeBroken

PREFIX = "plumbline:output:"
INDEX = "plumbline:made-from:"
LARGEST = 1 << 20
"""Bytes of a value; a larger one is not kept."""
LATE = 900.0
"""Seconds for which nothing that was made from a document is kept after it was forgotten: longer than any
request that may still have its text."""
_MARK = 16
_AT_ONCE = 500
_LOOK = 0.05
_PUT = """
local now = redis.call('TIME')[1]
for i = 2, #KEYS do
  local gone = redis.call('ZSCORE', KEYS[i], 'forgotten')
  if gone and tonumber(gone) >= tonumber(now) then return end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
for i = 2, #KEYS do
  redis.call('ZADD', KEYS[i], now + math.ceil(ARGV[2] / 1000), KEYS[1])
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', '(' .. now)
  if redis.call('PTTL', KEYS[i]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[i], ARGV[2]) end
end
"""
"""A value and its place in the index of each document, whose members end when the values do."""
_FORGET = """
local late = tonumber(ARGV[1])
local erased = 0
for i = 1, #KEYS do
  for _, key in ipairs(redis.call('ZRANGE', KEYS[i], 0, -1)) do erased = erased + redis.call('DEL', key) end
  redis.call('DEL', KEYS[i])
  redis.call('ZADD', KEYS[i], redis.call('TIME')[1] + late, 'forgotten')
  redis.call('EXPIRE', KEYS[i], late)
end
return erased
"""
"""The outputs in the index of each document; what is left of it refuses others until it ends."""
_PUT_NAME = hashlib.sha1(_PUT.encode(), usedforsecurity=False).hexdigest()
_NONE: frozenset[bytes] = frozenset()


class RedisOutputs:
    """Outputs in Redis. While it is away every look-up is a miss, at once (`llm.pipe.Line`)."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 0.25,
        pause: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._line = Line(url, timeout=timeout, pause=pause, clock=clock, first=(("SCRIPT", "LOAD", _PUT),))

    async def aclose(self) -> None:
        self._line.close()

    async def get(self, key: str) -> bytes | None:
        try:
            kept = await self._line.ask("GET", PREFIX + key)
        except PipeBroken:
            return None
        return None if kept is None else _value(kept)

    async def put(self, key: str, value: bytes, ttl: float, documents: Sequence[str] = ()) -> None:
        """Written behind: whoever asks next, finds it."""
        if ttl <= 0 or len(value) > LARGEST:
            return
        marks = sorted(_marks(documents))
        keys = (PREFIX + key, *(INDEX + mark.hex() for mark in marks))
        life = str(max(1, round(ttl * 1000)))
        await self._line.tell("EVALSHA", _PUT_NAME, str(len(keys)), *keys, _marked(value, marks), life)

    async def available(self) -> bool:
        """Whether Redis is in use; asks it only when it was away."""
        if self._line.down:
            with suppress(PipeBroken):
                await self._line.ask("PING")
        return not self._line.down

    async def ping(self) -> None:
        """Raises `OutputsUnavailable` when Redis does not answer now."""
        try:
            await (await self._line.connected()).ask("PING")
        except PipeBroken as error:
            raise OutputsUnavailable(f"Redis does not answer: {error}") from error

    async def forget(self, documents: Sequence[str]) -> int:
        """Delete every output that one of these (`tenant/document id`) went into; how many they were.

        First those in the documents' indexes, at once; then every kept output is looked at, since an index
        may have been dropped. For `LATE` seconds nothing that is made from them is kept. Raises
        `OutputsUnavailable`, since an erasure must not be believed done when it is not."""
        wanted = _marks(documents)
        try:
            pipe = await self._line.connected()
            keys = [INDEX + mark.hex() for mark in wanted]
            erased = int(await pipe.ask("EVAL", _FORGET, str(len(keys)), *keys, str(round(LATE))))
            async for found in _keys(pipe):
                made_from = await asyncio.gather(*(_made_from_of(pipe, key) for key in found))
                gone = [key for key, marks in zip(found, made_from, strict=True) if wanted & marks]
                if gone:
                    erased += int(await pipe.ask("DEL", *gone))
        except PipeBroken as error:
            raise OutputsUnavailable(f"Redis does not answer, nothing can be erased: {error}") from error
        return erased

    async def settle(self) -> Path | None:
        """Write the snapshot on the disk anew, without what was forgotten; the folder that it lies in, None
        where that is not for us to know or to do. Raises `OutputsUnavailable`."""
        try:
            pipe = await self._line.connected()
            await _saved(pipe)  # One that began before does not count.
            await pipe.ask("BGSAVE")
            told = await _saved(pipe)
            _, place = await pipe.ask("CONFIG", "GET", "dir")
        except PipeBroken as error:
            if "refused" in str(error):
                return None
            raise OutputsUnavailable(f"Redis does not answer, its snapshot is old: {error}") from error
        if told["rdb_last_bgsave_status"] != "ok":
            raise OutputsUnavailable("Redis could not write its snapshot.")
        return Path(place.decode()) if told["aof_enabled"] == "0" else None


async def _saved(pipe: Pipe) -> dict[str, str]:
    """What Redis says of its files, once no snapshot is being written."""
    while True:
        lines = (await pipe.ask("INFO", "persistence")).decode().splitlines()
        told = dict(line.split(":", 1) for line in lines if ":" in line)
        if told["rdb_bgsave_in_progress"] == "0":
            return told
        await asyncio.sleep(_LOOK)


async def _keys(pipe: Pipe) -> AsyncIterator[list[bytes]]:
    cursor = b"0"
    while True:
        cursor, keys = await pipe.ask("SCAN", cursor, "MATCH", PREFIX + "*", "COUNT", str(_AT_ONCE))
        yield keys
        if cursor == b"0":
            return


async def _made_from_of(pipe: Pipe, key: bytes) -> frozenset[bytes]:
    count = int.from_bytes(await pipe.ask("GETRANGE", key, "0", "1"))
    return _split(await pipe.ask("GETRANGE", key, "2", str(1 + count * _MARK))) if count else _NONE


class MemoryOutputs:
    """Outputs in this process, at most `limit`, the longest unused out first."""

    def __init__(self, *, limit: int = 1024, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._forgotten: dict[bytes, float] = {}
        self._limit = limit
        self._clock = clock

    async def aclose(self) -> None:
        self._kept.clear()

    async def get(self, key: str) -> bytes | None:
        ends, kept = self._kept.get(key, (0.0, b""))
        if not kept or self._clock() >= ends:
            self._kept.pop(key, None)
            return None
        self._kept.move_to_end(key)
        return _value(kept)

    async def put(self, key: str, value: bytes, ttl: float, documents: Sequence[str] = ()) -> None:
        marks, now = _marks(documents), self._clock()
        if ttl <= 0 or len(value) > LARGEST or any(self._forgotten.get(mark, 0.0) > now for mark in marks):
            return
        self._kept[key] = (now + ttl, _marked(value, sorted(marks)))
        self._kept.move_to_end(key)
        while len(self._kept) > self._limit:
            self._kept.popitem(last=False)

    async def available(self) -> bool:
        return True

    async def ping(self) -> None:
        return

    async def forget(self, documents: Sequence[str]) -> int:
        wanted, now = _marks(documents), self._clock()
        self._forgotten = {mark: end for mark, end in self._forgotten.items() if end > now}
        self._forgotten |= dict.fromkeys(wanted, now + LATE)
        found = [key for key, (_, kept) in self._kept.items() if wanted & _made_from(kept)]
        for key in found:
            del self._kept[key]
        return len(found)


def _marks(documents: Sequence[str]) -> frozenset[bytes]:
    return frozenset([hashlib.blake2b(d.encode(), digest_size=_MARK).digest() for d in documents])


def _marked(value: bytes, marks: Sequence[bytes]) -> bytes:
    """Two bytes for the number of documents, the mark of each, the value."""
    return len(marks).to_bytes(2) + b"".join(marks) + value


def _made_from(kept: bytes) -> frozenset[bytes]:
    return _split(kept[2 : 2 + int.from_bytes(kept[:2]) * _MARK])


def _split(marks: bytes) -> frozenset[bytes]:
    return frozenset(marks[i : i + _MARK] for i in range(0, len(marks), _MARK))


def _value(kept: bytes) -> bytes:
    return kept[2 + int.from_bytes(kept[:2]) * _MARK :]
