"""The HTTP connection: a response's head leaves with the first of its body, a request must come on, and no
request is cut off by a stop.

Head and body are otherwise two calls of the system and two packets, each of which wakes the caller. And the
server itself waits for good for the rest of a request, and keeps a head of any length: whoever sends a byte a
minute holds a place among the uploads, and needs no key to hold connections.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Any, cast

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.problems import Problem, respond

log = logging.getLogger("plumbline.access")

_HEAD = b"HTTP/"
WINDOW = 15.0
"""Seconds in each of which at least"""
LEAST = 64 * 2**10
"""bytes of a request must come, or its end. A slow line manages that."""
LONGEST_HEAD = 64 * 2**10
"""Bytes of a request's head."""
LINGER = 1
"""Seconds for which a connection without a request stays open when the service stops: one may be on its way,
and whoever sent it could not tell whether it was carried out."""


class Wire(HttpToolsProtocol):
    """uvicorn's, over such a transport. A request that does not come on gets 408, one whose head has no end
    431, and the connection is closed. What waits because we do not read is not slow."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, _Together(cast(asyncio.Transport, transport))))
        self._silent = self._coming = self._in_head = self._fresh = True
        self._held = self._leaving = False
        self._got = self._got_of_head = 0
        self._look_again = self.loop.call_later(WINDOW, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._look_again.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._got += len(data)
        self._got_of_head += len(data)
        super().data_received(data)
        if self._in_head and self._got_of_head > LONGEST_HEAD and not self.transport.is_closing():
            self._refuse(431, "header_too_large", f"The head is longer than {LONGEST_HEAD} bytes.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._silent = False
        self._coming = self._in_head = self._fresh = True

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()
        if self._leaving:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._held = self._held or self.flow.read_paused

    def on_message_complete(self) -> None:
        self._coming = False
        self._got_of_head = 0
        super().on_message_complete()

    def shutdown(self) -> None:
        """The service stops: the next response over this connection says that it is the last."""
        self._leaving, self.timeout_keep_alive = True, LINGER
        if self.cycle is None or self.cycle.response_complete:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(LINGER, self.timeout_keep_alive_handler)
        elif not self.cycle.response_started:
            self.cycle.keep_alive = False

    def _look(self) -> None:
        """At the end of a window."""
        if self.transport.is_closing():
            return
        asked_for = self._in_head or not self.cycle.waiting_for_100_continue
        if self._coming and not self._fresh and not self._held and asked_for and self._got < LEAST:
            self._refuse(408, "request_timeout", "The request came too slowly. Send it again.")
            return
        self._fresh, self._got, self._held = False, 0, self.flow.read_paused
        self._look_again = self.loop.call_later(WINDOW, self._look)

    def _refuse(self, status: int, code: str, message: str) -> None:
        log.info("A request was given up: %s", message)
        if self._answerable():
            self.transport.write(_bare(respond(Problem(status=status, code=code, message=message))))
        self.transport.close()

    def _answerable(self) -> bool:
        """Whether a response would be taken for this request's, and not for a part of another one."""
        if self._in_head:
            return not self._silent and (self.cycle is None or self.cycle.response_complete)
        return not self.pipeline and not self.cycle.response_started


def _bare(response: Response) -> bytes:
    """A response as it goes over the wire, after which the connection is closed."""
    status = HTTPStatus(response.status_code)
    head = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
    head += [name + b": " + value for name, value in (*response.raw_headers, (b"connection", b"close"))]
    return b"\r\n".join([*head, b"", bytes(response.body)])


class _Together:
    """A transport that keeps a head for what follows it, and not longer than this turn of the event loop."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(_HEAD):
            self._head = data
            self._loop.call_soon(self._leave)
            return
        self._transport.write(data)

    def close(self) -> None:
        self._leave()
        self._transport.close()

    def _leave(self) -> None:
        if self._head:
            self._transport.write(self._head)
            self._head = b""
