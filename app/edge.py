"""What every request passes on its way in and out: its id, its span, the bound on its body, its metrics, its
log line, and the last net under it. Plain ASGI: a stream must not be buffered on the way.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import telemetry
from app.metrics import Metrics
from app.printable import printable
from app.problems import CLIENT_GONE, problem_of, respond
from app.served import Served, Spans

log = logging.getLogger("plumbline.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_LOOKING = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOKED_UP = "/v1/jobs/lookup"
"""A question that has too many ids for an address."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_FAILED = 400
_NOSNIFF = (b"x-content-type-options", b"nosniff")

BodyLimit = Callable[[Scope], int]
"""The most bytes that a request's body may have."""


class Edge:
    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, body_limit: BodyLimit, spans: Spans, log_reads: bool
    ) -> None:
        self._app = app
        self._log_reads = log_reads
        self._metrics = metrics
        self._body_limit = body_limit
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        current = telemetry.Context(request_id=_request_id(headers))
        token = telemetry.CURRENT.set(current)
        begin = time.perf_counter()
        with self._spans.of(scope, headers, current) as span:
            out = _Out(send, current, span)
            try:
                bounded = _Bounded(headers, receive, self._body_limit(scope))
                await self._app(scope, bounded.receive, out.send)
            except ClientDisconnect:
                out.status = CLIENT_GONE
            except Exception as error:  # noqa: BLE001 - the last net: a defect must not end the process
                problem = problem_of(error, current.request_id)
                self._metrics.failure(problem.code)
                if not out.started:
                    await respond(problem)(scope, receive, out.send)
            finally:
                route = getattr(scope.get("route"), "path", None)
                span.tell(route, out.status)
                self._done(scope, route or "other", out.status, time.perf_counter() - begin)
                telemetry.CURRENT.reset(token)

    def _done(self, scope: Scope, route: str, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.request(method, route, status, seconds)
        if status < _FAILED and not self._log_reads and (method in _LOOKING or route == _LOOKED_UP):
            return
        path = printable(scope["path"])
        log.info("%s %s %d %.1f ms", scope["method"], path, status, seconds * 1_000)


class _Out:
    """Remembers the status and puts our headers on the response."""

    def __init__(self, send: Send, current: telemetry.Context, span: Served) -> None:
        self._send = send
        self._current = current
        self._span = span
        self.started = False
        self.status = CLIENT_GONE

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            ours = (b"x-request-id", self._current.request_id.encode()), _NOSNIFF
            headers = [*message.get("headers", ()), *ours]
            if self._current.release:
                headers.append((b"x-plumbline-release", self._current.release.encode()))
                self._span.release(self._current.release)
            message["headers"] = headers
        await self._send(message)


class _Bounded:
    """Counts the body while it is read, so that one that is too large is refused and never held."""

    def __init__(self, headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> None:
        length = headers.get(b"content-length", b"")
        self._declared = int(length) if length.isdigit() else 0
        self._encoded = headers.get(b"content-encoding", b"identity").strip().lower() != b"identity"
        self._receive = receive
        self._limit = limit
        self._read = 0

    async def receive(self) -> Message:
        if self._declared > self._limit:
            raise self._too_large()
        message = await self._receive()
        if message["type"] == "http.request":
            if self._encoded and message.get("body"):
                # Read as it comes, it would be no JSON, or a document that nobody can read.
                raise HTTPException(415, "A body with a Content-Encoding is not taken: send it uncompressed.")
            self._read += len(message.get("body", b""))
            if self._read > self._limit:
                raise self._too_large()
        return message

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"The body is larger than the {self._limit} bytes that this address takes.")


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
