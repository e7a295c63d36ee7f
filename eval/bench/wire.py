"""An HTTP/1.1 client that costs little: one request at a time on one connection that stays open.

A full client spends as much on a request as the service that is measured, on the same two cores.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httptools

from eval.types import EvalError


class WireError(EvalError):
    """The connection failed, or what came back was no HTTP."""


@dataclass(slots=True)
class Reply:
    """`sent`, `first` and `last` are times of `time.perf_counter`: when the request left, when the body's
    first byte and its last came. `pieces` are the body as it came, each with its time."""

    sent: float
    status: int = 0
    first: float = 0.0
    last: float = 0.0
    pieces: list[tuple[float, bytes]] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)

    @property
    def seconds(self) -> float:
        return self.last - self.sent


class _Receiver(asyncio.Protocol):
    """Parses one response after the other."""

    def __init__(self) -> None:
        self.reply: Reply | None = None
        self.done: asyncio.Future[Reply] | None = None
        self._now = 0.0
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        self._now = time.perf_counter()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.connection_lost(error)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.done and not self.done.done():
            self.done.set_exception(WireError(f"The service closed the connection: {exc or 'no reason'}."))

    def on_body(self, body: bytes) -> None:
        reply = self.reply
        if reply is not None:
            reply.first = reply.first or self._now
            reply.pieces.append((self._now, body))

    def on_message_complete(self) -> None:
        reply, done = self.reply, self.done
        if reply is not None and done is not None and not done.done():
            reply.status = self._parser.get_status_code()
            reply.last = self._now
            done.set_result(reply)
        self._parser = httptools.HttpResponseParser(self)


class Connection:
    """`async with Connection(url)`; `headers` go with every request."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        given = {"Host": f"{self._host}:{self._port}", "Content-Type": "application/json", **(headers or {})}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        self._receiver = _Receiver()
        self._transport: asyncio.Transport | None = None

    async def __aenter__(self) -> Connection:
        await self._connect()
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def post(self, path: str, body: bytes) -> Reply:
        return await self._ask(
            f"POST {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n", body
        )

    async def get(self, path: str) -> Reply:
        return await self._ask(f"GET {path} HTTP/1.1\r\n{self._head}\r\n", b"")

    async def _ask(self, head: str, body: bytes) -> Reply:
        transport = self._transport
        if transport is None or transport.is_closing():  # A server closes what was idle for a while.
            transport = await self._connect()
        receiver = self._receiver
        receiver.done = asyncio.get_running_loop().create_future()
        receiver.reply = Reply(sent=time.perf_counter())
        transport.write(head.encode() + body)
        return await receiver.done

    async def _connect(self) -> asyncio.Transport:
        self._receiver = receiver = _Receiver()
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_connection(lambda: receiver, self._host, self._port)
        except OSError as error:
            raise WireError(f"Nothing answers at {self._host}:{self._port}: {error}.") from None
        self._transport = transport
        return transport
