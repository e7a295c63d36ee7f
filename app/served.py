"""The span of a request that is served, by OpenTelemetry's conventions for HTTP servers.

FastAPI makes such spans, too, but reads and tells all that it would record of a request before it knows
whether it is recorded: of a hundred requests most are not, and for each that costs as much as finding its
route and reading its body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import Token
from types import TracebackType
from typing import Self

from opentelemetry import context, propagate
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue
from starlette.types import Scope

from app import semconv as names
from app import telemetry

_FAILED = 500
"""The least status that is the server's fault."""


class Spans:
    """Makes the span of each request, but of those that are `untraced`; the caller's headers say of which
    trace it is a part."""

    def __init__(self, tracer: Tracer, untraced: Callable[[Scope], bool]) -> None:
        self._tracer = tracer
        self._untraced = untraced
        self._fields = [field.encode() for field in propagate.get_global_textmap().fields]

    def of(self, scope: Scope, headers: Mapping[bytes, bytes], current: telemetry.Context) -> Served:
        if self._untraced(scope):
            return Served(None, "", None)
        parent = None
        if any(field in headers for field in self._fields):
            parent = propagate.extract({_text(name): _text(value) for name, value in headers.items()})
        method, path = scope["method"], scope["path"]
        told: dict[str, AttributeValue] = {
            names.METHOD: method,
            names.SCHEME: scope["scheme"],
            names.PATH: path,
        }
        span = self._tracer.start_span(method, parent, SpanKind.SERVER, told)
        if span.is_recording():
            span.set_attributes({**_ends(scope), names.REQUEST_ID: current.request_id})
        return Served(span, method, parent)


class Served:
    """`with` it the request is served: what is done in the block belongs to its span."""

    __slots__ = ("_method", "_parent", "_span", "_token")

    def __init__(self, span: Span | None, method: str, parent: context.Context | None) -> None:
        self._span = span
        self._method = method
        self._parent = parent

    def __enter__(self) -> Self:
        self._token: Token[context.Context] | None = None
        if self._span is not None:
            self._token = context.attach(set_span_in_context(self._span, self._parent))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._span is not None and self._token is not None:
            context.detach(self._token)
            self._span.end()

    def release(self, release_id: str) -> None:
        """Which release answers."""
        if self._span is not None:
            self._span.set_attribute(names.RELEASE, release_id)

    def tell(self, route: str | None, status: int) -> None:
        """How it ended; `route` is the path's pattern, None where nothing is at this address."""
        span = self._span
        if span is None or not span.is_recording():
            return
        if route is not None:
            span.update_name(f"{self._method} {route}")
            span.set_attribute(names.ROUTE, route)
        span.set_attribute(names.STATUS, status)
        if status >= _FAILED:
            span.set_attribute(names.ERROR_TYPE, str(status))
            span.set_status(Status(StatusCode.ERROR))


def _ends(scope: Scope) -> dict[str, AttributeValue]:
    """What the two ends speak, and where this one is."""
    address, port = scope.get("server") or ("", None)
    told: dict[str, AttributeValue] = {names.PROTOCOL: scope["http_version"], names.ADDRESS: address}
    return told if port is None else {**told, names.PORT: port}


def _text(header: bytes) -> str:
    return header.decode("latin-1")
