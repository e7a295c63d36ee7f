"""The span of a request: what it tells, whose it is, and what it keeps to itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import NoOpTracer, SpanKind, StatusCode, get_current_span
from starlette.types import Scope

from app.served import Spans
from app.telemetry import Context

TRACE = "0af7651916cd43dd8448eb211c80319c"
CURRENT = Context(request_id="r-1")


def asked(path: str = "/v1/search") -> Scope:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "query_string": b"secret=words",
        "server": ("127.0.0.1", 8080),
    }


def of(trace: str, flags: str = "01") -> dict[bytes, bytes]:
    return {b"traceparent": f"00-{trace}-b7ad6b7169203331-{flags}".encode()}


class Recorder:
    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=ParentBased(sampler))
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.spans = Spans(provider.get_tracer("test"), lambda scope: scope["path"].startswith("/health/"))

    @property
    def ended(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Nothing is left behind as the current span."""
    yield
    assert not get_current_span().get_span_context().is_valid


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_request_is_one_span_by_the_conventions_and_says_nothing_of_its_query() -> None:
    recorder = Recorder()
    with recorder.spans.of(asked(), {}, CURRENT) as span:
        assert get_current_span().is_recording()
        span.release("abc")
        span.tell("/v1/search", 200)
    [ended] = recorder.ended
    assert (ended.name, ended.kind, ended.status.status_code) == (
        "POST /v1/search",
        SpanKind.SERVER,
        StatusCode.UNSET,
    )
    assert told(ended) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/v1/search",
        "network.protocol.version": "1.1",
        "plumbline.release": "abc",
        "plumbline.request_id": "r-1",
        "server.address": "127.0.0.1",
        "server.port": 8080,
        "url.path": "/v1/search",
        "url.scheme": "http",
    }


def test_a_fault_of_the_server_is_an_error_and_one_of_the_caller_is_not() -> None:
    recorder = Recorder()
    for status in (404, 503):
        with recorder.spans.of(asked(), {}, CURRENT) as span:
            span.tell(None, status)
    caller, server = recorder.ended
    assert (caller.name, caller.status.status_code) == ("POST", StatusCode.UNSET)
    assert (server.status.status_code, told(server)["error.type"]) == (StatusCode.ERROR, "503")


def test_a_request_belongs_to_the_trace_that_its_caller_names() -> None:
    recorder = Recorder(ALWAYS_OFF)
    with recorder.spans.of(asked(), of(TRACE), CURRENT):
        pass
    with recorder.spans.of(asked(), of(TRACE, "00"), CURRENT):
        assert not get_current_span().is_recording()
    with recorder.spans.of(asked(), {b"traceparent": b"nonsense"}, CURRENT):
        assert not get_current_span().is_recording()
    [ended] = recorder.ended
    assert ended.context is not None
    assert ended.parent is not None
    assert (f"{ended.context.trace_id:032x}", f"{ended.parent.span_id:016x}") == (TRACE, "b7ad6b7169203331")


def test_where_no_traces_leave_the_callers_is_passed_on() -> None:
    spans = Spans(NoOpTracer(), lambda scope: False)
    with spans.of(asked(), of(TRACE), CURRENT) as span:
        assert f"{get_current_span().get_span_context().trace_id:032x}" == TRACE
        span.tell("/v1/search", 200)


def test_what_is_untraced_has_no_span() -> None:
    recorder = Recorder()
    with recorder.spans.of(asked("/health/live"), of(TRACE), CURRENT) as span:
        assert not get_current_span().get_span_context().is_valid
        span.release("abc")
        span.tell("/health/live", 500)
    assert recorder.ended == ()
