"""Traces and logs of a process: where they go, and what ties them together.

Traces leave only when the environment names where to (`OTEL_EXPORTER_OTLP_ENDPOINT`,
`OTEL_TRACES_EXPORTER`); otherwise OpenTelemetry's no-op provider stays, and a span costs nothing. Unless the
caller or `OTEL_TRACES_SAMPLER` says otherwise a few traces a second are recorded, which is all of them for
who asks now and then, and of more a small share: a recorded answer costs over half as much processor time
for its spans as for its own work.
Every log line is one JSON object with the request's id, its release and its trace.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import orjson
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)

from app import otel, semconv
from app.settings import SettingsError

A_SECOND = 5
"""Traces that are recorded in a second,"""
SHARE = 0.01
"""and the share of those beyond."""
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@dataclass(slots=True)
class Context:
    """What every log line of a request carries."""

    request_id: str = ""
    release: str = ""


CURRENT: ContextVar[Context | None] = ContextVar("plumbline_request", default=None)


def start(service: str, environ: Mapping[str, str]) -> Callable[[], None]:
    """Send this process's traces where `environ` says; returns what flushes them at the end. Raises
    `SettingsError` when what it says cannot be used."""
    otel.require_usable(environ)
    try:
        return _started(service, environ)
    except (ValueError, StopIteration) as error:
        # Some of its many variables are not known here, and some do not fit another's value.
        raise SettingsError(f"Settings that cannot be used: of OTEL_*: {error}") from error


def _started(service: str, environ: Mapping[str, str]) -> Callable[[], None]:
    processor = _processor(environ)
    if processor is None:
        return _nothing
    resource = Resource.create(
        {SERVICE_NAME: environ.get("OTEL_SERVICE_NAME", service), SERVICE_VERSION: version("plumbline")}
    )
    # Without one of ours, the SDK reads the environment.
    sampler = None if environ.get("OTEL_TRACES_SAMPLER") else ParentBased(FewASecond())
    provider = TracerProvider(sampler=sampler, resource=resource)
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    return provider.shutdown


class FewASecond(Sampler):
    """Records `most` traces a second and of those beyond a share, by their ids."""

    def __init__(
        self, most: int = A_SECOND, share: float = SHARE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._beyond = TraceIdRatioBased(share)
        self._clock = clock
        self._left = float(most)
        self._at = clock()

    def should_sample(self, *values: Any, **named: Any) -> SamplingResult:
        now = self._clock()
        self._left = min(self._left + (now - self._at) * self._most, self._most)
        self._at = now
        if self._left < 1:
            return self._beyond.should_sample(*values, **named)
        self._left -= 1
        return ALWAYS_ON.should_sample(*values, **named)

    def get_description(self) -> str:
        return f"FewASecond{{{self._most}, {self._beyond.rate}}}"


def tracer() -> trace.Tracer:
    return trace.get_tracer("plumbline", version("plumbline"))


def trace_headers() -> dict[str, str]:
    """`traceparent` and its companions of the current span, for a call to another server."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


def traceparent() -> str | None:
    return trace_headers().get("traceparent")


def request_id() -> str:
    """The id of the current request; empty outside of one."""
    current = CURRENT.get()
    return current.request_id if current else ""


def set_release(release_id: str) -> None:
    """Name the release on the current request's log lines and server span."""
    current = CURRENT.get()
    if current is not None:
        current.release = release_id


def tell_degraded(parts: Sequence[str]) -> None:
    """Name on the current request's span what its answer had to do without."""
    if parts:
        trace.get_current_span().set_attribute(semconv.DEGRADED, list(parts))


def recording() -> bool:
    """Whether this process makes traces, which leave it."""
    return isinstance(trace.get_tracer_provider(), TracerProvider)


def _processor(environ: Mapping[str, str]) -> SpanProcessor | None:
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return None
    if exporter == "console":
        return SimpleSpanProcessor(ConsoleSpanExporter(out=sys.stderr))
    if exporter == "otlp" or any(environ.get(name) for name in _ENDPOINTS):
        return BatchSpanProcessor(OTLPSpanExporter())
    return None


def _nothing() -> None:
    return None


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        current = CURRENT.get()
        if current is not None:
            line["request_id"] = current.request_id
            if current.release:
                line["release"] = current.release
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["trace_id"] = trace.format_trace_id(span.trace_id)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def log_to_stderr(level: str) -> None:
    """Send every logger's lines to stderr, uvicorn's included."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "pymilvus", "fsspec", "mcp"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
