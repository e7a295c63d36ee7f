"""Finished outputs, kept: where (Redis, or the memory of one process), and a model that uses it (L2).

A cache never makes a request fail: while Redis is away every look-up is a miss. What a value was made from
is written in front of it, so that erasing a document finds every output it went into, also after Redis has
dropped other keys to make room (an index beside the values could be dropped itself).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import fields
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from llm.errors import OutputsUnavailable
from llm.types import Call, ChatModel, Delta, Outputs

PREFIX = "plumbline:output:"
LARGEST = 1 << 20
"""Bytes of a value; a larger one is not kept."""
_MARK = 16
_NONE: frozenset[bytes] = frozenset()


class RedisOutputs:
    """Outputs in Redis. After a failure Redis is left alone for `pause` seconds, so that a dead one costs
    a request nothing; then one call in every `pause` looks whether it is back."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 0.25,
        pause: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)
        )
        self._pause = pause
        self._clock = clock
        self._retry_at: float | None = None

    async def aclose(self) -> None:
        await self._redis.aclose()

    async def get(self, key: str) -> bytes | None:
        kept = await self._attempt(lambda: self._redis.get(PREFIX + key))
        return None if not isinstance(kept, bytes) else _value(kept)

    async def put(self, key: str, value: bytes, ttl: float, documents: Sequence[str] = ()) -> None:
        if ttl > 0 and len(value) <= LARGEST:
            kept = _marked(value, documents)
            await self._attempt(lambda: self._redis.set(PREFIX + key, kept, px=max(1, round(ttl * 1000))))

    async def available(self) -> bool:
        """Whether Redis is in use; asks it only when it was away."""
        if self._retry_at is not None:
            await self._attempt(self._redis.ping)
        return self._retry_at is None

    async def ping(self) -> None:
        """Raises `OutputsUnavailable` when Redis does not answer now."""
        try:
            await self._redis.ping()
        except (RedisError, OSError, TimeoutError) as error:
            raise OutputsUnavailable(f"Redis does not answer: {error}") from error

    async def forget(self, documents: Sequence[str]) -> int:
        """Delete every output that one of these (`tenant/document id`) went into; how many they were.

        Looks at every kept output. Raises `OutputsUnavailable`, since an erasure must not be believed
        done when it is not."""
        wanted, erased = _marks(documents), 0
        try:
            async for keys in self._keys():
                found = [key for key in keys if wanted & await self._made_from(key)]
                if found:
                    erased += int(await self._redis.delete(*found))
        except (RedisError, OSError, TimeoutError) as error:
            raise OutputsUnavailable(f"Redis does not answer, nothing can be erased: {error}") from error
        return erased

    async def _keys(self) -> AsyncIterator[list[bytes | str]]:
        cursor = 0
        while True:
            cursor, keys = await self._redis.scan(cursor, match=PREFIX + "*", count=500)
            yield keys
            if not cursor:
                return

    async def _made_from(self, key: bytes | str) -> frozenset[bytes]:
        count = int.from_bytes(_bytes(await self._redis.getrange(key, 0, 1)))
        return _split(_bytes(await self._redis.getrange(key, 2, 1 + count * _MARK))) if count else _NONE

    async def _attempt(self, command: Callable[[], Awaitable[object]]) -> object:
        """The command's result, or None when Redis is away."""
        if self._retry_at is not None:
            if self._clock() < self._retry_at:
                return None
            self._retry_at = self._clock() + self._pause
        try:
            result = await command()
        except (RedisError, OSError, TimeoutError):
            self._retry_at = self._clock() + self._pause
            return None
        self._retry_at = None
        return result


class MemoryOutputs:
    """Outputs in this process, at most `limit`, the longest unused out first."""

    def __init__(self, *, limit: int = 1024, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
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
        if ttl <= 0 or len(value) > LARGEST:
            return
        self._kept[key] = (self._clock() + ttl, _marked(value, documents))
        self._kept.move_to_end(key)
        while len(self._kept) > self._limit:
            self._kept.popitem(last=False)

    async def available(self) -> bool:
        return True

    async def ping(self) -> None:
        return

    async def forget(self, documents: Sequence[str]) -> int:
        wanted = _marks(documents)
        found = [key for key, (_, kept) in self._kept.items() if wanted & _made_from(kept)]
        for key in found:
            del self._kept[key]
        return len(found)


class Cached:
    """A model whose finished outputs are kept for `ttl` seconds (0 keeps nothing) and replayed.

    The key holds everything that makes an output one caller's and no other's: tenant, rights, release,
    product version, evidence, model, messages and sampling. Only what this very model said to its end is
    kept: never a part, never what a fallback said.
    """

    def __init__(self, model: ChatModel, outputs: Outputs, *, ttl: float, product: str) -> None:
        self._model = model
        self._outputs = outputs
        self._ttl = ttl
        self._product = product

    @property
    def name(self) -> str:
        return self._model.name

    async def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        use = call.cache and self._ttl > 0
        key = self.key(call)
        kept = await self._outputs.get(key) if use else None
        if kept is not None:
            yield _load(kept)
            return
        said: list[Delta] = []
        async with aclosing(self._model.stream(call)) as deltas:
            async for delta in deltas:
                said.append(delta)
                if use and delta.finish == "stop":
                    await self._keep(key, call, said)
                yield delta

    def key(self, call: Call) -> str:
        scope = call.scope
        parts: list[Any] = [
            self._product,
            [scope.tenant, scope.rights, scope.release, scope.evidence],
            self.name,
            [(m.role, m.content) for m in call.prompt.messages],
            [getattr(call.sampling, field.name) for field in fields(call.sampling)],
        ]
        body = json.dumps(parts, separators=(",", ":"), ensure_ascii=False)
        return "model:" + hashlib.sha256(body.encode("utf-8", errors="surrogatepass")).hexdigest()

    async def _keep(self, key: str, call: Call, said: list[Delta]) -> None:
        """Kept before the last delta leaves: a caller need not come back for what follows it."""
        if any(delta.model != self.name for delta in said):
            return
        scope = call.scope
        documents = [f"{scope.tenant}/{document}" for document in scope.documents]
        await self._outputs.put(key, _dump(said), self._ttl, documents)


def _marks(documents: Sequence[str]) -> frozenset[bytes]:
    return frozenset(hashlib.sha256(d.encode()).digest()[:_MARK] for d in documents)


def _marked(value: bytes, documents: Sequence[str]) -> bytes:
    """Two bytes for the number of documents, the digest of each, the value."""
    marks = sorted(_marks(documents))
    return len(marks).to_bytes(2) + b"".join(marks) + value


def _made_from(kept: bytes) -> frozenset[bytes]:
    return _split(kept[2 : 2 + int.from_bytes(kept[:2]) * _MARK])


def _bytes(reply: bytes | str) -> bytes:
    """Replies are never decoded here; the client's types cannot say so."""
    return reply if isinstance(reply, bytes) else reply.encode()


def _split(marks: bytes) -> frozenset[bytes]:
    return frozenset(marks[i : i + _MARK] for i in range(0, len(marks), _MARK))


def _value(kept: bytes) -> bytes:
    return kept[2 + int.from_bytes(kept[:2]) * _MARK :]


def _dump(said: list[Delta]) -> bytes:
    last = said[-1]
    told = ["".join(delta.text for delta in said), last.model, last.prompt_tokens, last.output_tokens]
    return json.dumps(told).encode()


def _load(kept: bytes) -> Delta:
    text, model, prompt_tokens, output_tokens = json.loads(kept)
    return Delta(
        text=text,
        model=model,
        finish="stop",
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        cached=True,
    )
