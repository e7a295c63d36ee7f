"""What every request passes on its way in and out: its id, the bound on its body, its metrics, its log
line, and the last net under it. Plain ASGI: a stream must not be buffered on the way.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable

from opentelemetry import trace
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import semconv, telemetry
from app.metrics import Metrics
from app.problems import CLIENT_GONE, problem_of, respond

log = logging.getLogger("plumbline.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})

BodyLimit = Callable[[Scope], int]
"""The most bytes that a request's body may have."""


class Edge:
    def __init__(self, app: ASGIApp, *, metrics: Metrics, body_limit: BodyLimit) -> None:
        self._app = app
        self._metrics = metrics
        self._body_limit = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        current = telemetry.Context(request_id=_request_id(scope))
        token = telemetry.CURRENT.set(current)
        trace.get_current_span().set_attribute(semconv.REQUEST_ID, current.request_id)
        out = _Out(send, current)
        begin = time.perf_counter()
        try:
            await self._app(scope, _Bounded(scope, receive, self._body_limit(scope)).receive, out.send)
        except ClientDisconnect:
            out.status = CLIENT_GONE
        except Exception as error:  # noqa: BLE001 - the last net: a defect must not end the process
            problem = problem_of(error, current.request_id)
            self._metrics.failure(problem.code)
            if not out.started:
                await respond(problem)(scope, receive, out.send)
        finally:
            self._done(scope, out.status, time.perf_counter() - begin)
            telemetry.CURRENT.reset(token)

    def _done(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.request(method, route, status, seconds)
        log.info("%s %s %d %.1f ms", scope["method"], scope["path"], status, seconds * 1_000)


class _Out:
    """Remembers the status and puts our headers on the response."""

    def __init__(self, send: Send, current: telemetry.Context) -> None:
        self._send = send
        self._current = current
        self.started = False
        self.status = CLIENT_GONE

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._current.request_id
            headers.setdefault("X-Content-Type-Options", "nosniff")
            if self._current.release:
                headers["X-Plumbline-Release"] = self._current.release
                span = trace.get_current_span()
                span.set_attribute(semconv.RELEASE, self._current.release)
        await self._send(message)


class _Bounded:
    """Counts the body while it is read, so that one that is too large is refused and never held."""

    def __init__(self, scope: Scope, receive: Receive, limit: int) -> None:
        length = Headers(scope=scope).get("content-length", "")
        self._declared = int(length) if length.isascii() and length.isdigit() else 0
        self._receive = receive
        self._limit = limit
        self._read = 0

    async def receive(self) -> Message:
        if self._declared > self._limit:
            raise self._too_large()
        message = await self._receive()
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            if self._read > self._limit:
                raise self._too_large()
        return message

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"The body is larger than the {self._limit} bytes that this address takes.")


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
