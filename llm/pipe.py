"""One connection to Redis over which commands follow each other without waiting for one another's reply.

Every question looks into the cache twice and writes to it twice. A client with a pool of connections spends
several times as much processor time on a command as this does: one parser, one queue, one timer, and writes
that travel with whatever is asked next. Commands are packed and replies parsed by hiredis; how a URL says
where Redis is, is redis-py's matter.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from ssl import SSLContext
from typing import Any, cast

import hiredis
from redis.asyncio import Redis, SSLConnection, UnixDomainSocketConnection

BESIDE = 0.0005
"""Seconds for which a command that nobody waits for may stay, for the next one to take it along."""
_NOTHING = object()
_Reply = asyncio.Future[Any]


class PipeBroken(Exception):
    """Redis cannot be reached, fell silent, or refused a command. Trying again later may help."""


class Pipe(asyncio.Protocol):
    """Use `connect`. `timeout` is in seconds: a reply that takes longer breaks the connection."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._parser = hiredis.Reader(notEnoughData=_NOTHING)
        self._sent: deque[tuple[float, _Reply | None]] = deque()
        self._held: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._flush: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None

    @classmethod
    async def connect(cls, url: str, timeout: float, *first: tuple[Any, ...]) -> Pipe:
        """Connected and logged in, the commands `first` carried out. Raises `PipeBroken`."""
        pool: Any = Redis.from_url(url).connection_pool
        named = pool.make_connection()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                if isinstance(named, UnixDomainSocketConnection):
                    _, pipe = await loop.create_unix_connection(lambda: cls(timeout), named.path)
                else:
                    _, pipe = await loop.create_connection(
                        lambda: cls(timeout), named.host, named.port, ssl=_tls(named)
                    )
                try:
                    await asyncio.gather(*(pipe.ask(*command) for command in (*_login(named), *first)))
                except BaseException:
                    pipe.close()
                    raise
        except (OSError, TimeoutError) as error:
            raise PipeBroken(f"Redis cannot be reached: {error or 'no answer'}.") from error
        return pipe

    @property
    def closed(self) -> bool:
        return self._transport is None

    def close(self) -> None:
        """Send what is held and hang up."""
        if self._transport is not None:
            self._write()
            self._transport.close()
            self._transport = None
            self._fail("it was closed")

    async def ask(self, *command: Any) -> Any:
        """The reply: bytes, a number, a list or None. Raises `PipeBroken`, also for a reply that is an
        error."""
        reply: _Reply = self._loop.create_future()
        self._add(command, reply)
        self._write()
        return await reply

    def tell(self, *command: Any) -> None:
        """Send a command whose reply nobody waits for, ahead of whatever is asked after it. If Redis refuses
        it, the connection breaks, so that whoever asks next hears of it."""
        self._add(command, None)
        if self._flush is None:
            self._flush = self._loop.call_later(BESIDE, self._write)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it.

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        try:
            while (said := self._parser.gets()) is not _NOTHING:
                self._hear(said)
        except hiredis.ProtocolError as error:
            self._break(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self._break(str(exc or "it closed the connection"))

    def _hear(self, said: Any) -> None:
        if not self._sent:
            return
        _, reply = self._sent.popleft()
        refused = isinstance(said, hiredis.ReplyError)
        if reply is None:
            if refused:
                self._break(str(said))
        elif not reply.done():
            if refused:
                reply.set_exception(PipeBroken(f"Redis refused a command: {said}"))
            else:
                reply.set_result(said)

    def _add(self, command: tuple[Any, ...], reply: _Reply | None) -> None:
        if self._transport is None:
            raise PipeBroken("The connection to Redis is closed.")
        self._held.append(hiredis.pack_command(command))
        self._sent.append((self._loop.time(), reply))
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout, self._look)

    def _write(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if self._held and self._transport is not None:
            self._transport.write(b"".join(self._held))
            self._held.clear()

    def _look(self) -> None:
        """Whether the oldest reply is overdue; one timer for all of them."""
        self._watch = None
        if not self._sent:
            return
        left = self._sent[0][0] + self._timeout - self._loop.time()
        if left <= 0:
            self._break(f"no reply within {self._timeout:g} s")
        else:
            self._watch = self._loop.call_later(left, self._look)

    def _break(self, why: str) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        self._fail(why)

    def _fail(self, why: str) -> None:
        for timer in (self._flush, self._watch):
            if timer is not None:
                timer.cancel()
        self._flush = self._watch = None
        self._held.clear()
        while self._sent:
            _, reply = self._sent.popleft()
            if reply is not None and not reply.done():
                reply.set_exception(PipeBroken(f"Redis cannot be used: {why}."))


class Line:
    """A pipe to Redis that is opened when it is needed, and again after it broke.

    After a failure Redis is left alone for `pause` seconds, so that a dead one costs a request nothing; then
    one call in every `pause` looks whether it is back. `timeout` is in seconds; the commands `first` are
    carried out on each connection."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 0.25,
        pause: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        first: tuple[tuple[Any, ...], ...] = (),
    ) -> None:
        self._url = url
        self._timeout = timeout
        self._pause = pause
        self._clock = clock
        self._first = first
        self._retry_at: float | None = None
        self._pipe: Pipe | None = None
        self._connecting = asyncio.Lock()

    def close(self) -> None:
        if self._pipe is not None:
            self._pipe.close()

    @property
    def down(self) -> bool:
        """Whether the last call failed."""
        return self._retry_at is not None

    def usable(self) -> bool:
        """Whether Redis is in use, or it is time for one call to look whether it is back."""
        if self._retry_at is None:
            return True
        now = self._clock()
        if now < self._retry_at:
            return False
        self._retry_at = now + self._pause
        return True

    async def connected(self) -> Pipe:
        """Raises `PipeBroken`, without regard to the pause."""
        if self._pipe is not None and not self._pipe.closed:
            return self._pipe
        async with self._connecting:
            if self._pipe is None or self._pipe.closed:
                self._pipe = await Pipe.connect(self._url, self._timeout, *self._first)
        return self._pipe

    async def ask(self, *command: Any) -> Any:
        """The reply to a command. Raises `PipeBroken`, at once during the pause."""
        if not self.usable():
            raise PipeBroken("Redis was away a moment ago.")
        try:
            reply = await (await self.connected()).ask(*command)
        except PipeBroken:
            self._retry_at = self._clock() + self._pause
            raise
        self._retry_at = None
        return reply

    async def tell(self, *command: Any) -> None:
        """Send a command whose reply nobody waits for; nothing is sent while Redis is away."""
        if not self.usable():
            return
        try:
            (await self.connected()).tell(*command)
        except PipeBroken:
            self._retry_at = self._clock() + self._pause


def _tls(named: Any) -> SSLContext | None:
    context: SSLContext | None = named.ssl_context.get() if isinstance(named, SSLConnection) else None
    return context


def _login(named: Any) -> list[tuple[Any, ...]]:
    """The commands that make a new connection the one that the URL describes."""
    commands: list[tuple[Any, ...]] = []
    if named.password:
        commands.append(("AUTH", *([named.username] if named.username else []), named.password))
    if named.db:
        commands.append(("SELECT", str(named.db)))
    return commands
