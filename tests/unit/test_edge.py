"""What passes in and out: the log holds what was asked, changed or refused, but not what only looks and goes
well; what fails is counted, and answered once."""

from __future__ import annotations

import logging
import re

import httpx
import pytest
from opentelemetry.trace import NoOpTracer
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import telemetry
from app.edge import Edge, _request_id
from app.metrics import Metrics
from app.served import Spans

ASKED = [("GET", "/health/ready"), ("HEAD", "/v1/releases"), ("POST", "/v1/jobs/lookup")]


async def _answered(request: Request) -> PlainTextResponse:
    return PlainTextResponse("", int(request.query_params.get("status", 200)))


async def _logged(
    caplog: pytest.LogCaptureFixture, *requests: tuple[str, str], log_reads: bool = False
) -> list[str]:
    paths = [path.partition("?")[0] for _, path in requests]
    inner = Starlette(routes=[Route(path, _answered, methods=["GET", "POST", "DELETE"]) for path in paths])
    spans = Spans(NoOpTracer(), lambda scope: True)
    edge = Edge(inner, metrics=Metrics(), body_limit=lambda scope: 10, spans=spans, log_reads=log_reads)
    with caplog.at_level(logging.INFO, "plumbline.access"):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(edge), base_url="http://here") as client:
            for method, path in requests:
                await client.request(method, path)
    said = [record.getMessage() for record in caplog.records if record.name == "plumbline.access"]
    return [line.rsplit(" ", 2)[0] for line in said]


async def test_pages_and_probes_that_ask_again_and_again_do_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert await _logged(caplog, *ASKED) == []


async def test_what_asks_for_work_changes_something_or_fails_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = await _logged(
        caplog, ("POST", "/v1/search"), ("DELETE", "/v1/documents/a"), ("GET", "/health/ready?status=503")
    )
    assert told == ["POST /v1/search 200", "DELETE /v1/documents/a 200", "GET /health/ready 503"]


async def test_all_are_logged_where_that_is_wanted(caplog: pytest.LogCaptureFixture) -> None:
    assert len(await _logged(caplog, *ASKED, log_reads=True)) == len(ASKED)


async def _met(inner: ASGIApp, *headers: tuple[bytes, bytes], method: str = "POST") -> tuple[list[int], str]:
    """The statuses that are sent to a caller whose body never comes, and what is counted of its request."""
    metrics, sent = Metrics(), list[int]()

    async def receive() -> Message:
        raise AssertionError("nothing of the body is asked for")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            sent.append(message["status"])

    spans = Spans(NoOpTracer(), lambda scope: True)
    edge = Edge(inner, metrics=metrics, body_limit=lambda scope: 10, spans=spans, log_reads=False)
    scope = {"type": "http", "method": method, "path": "/", "headers": headers, "query_string": b""}
    before = telemetry.CURRENT.get()
    await edge(scope, receive, send)
    assert telemetry.CURRENT.get() is before
    counted = [line for line in metrics.text().decode().splitlines() if not line.startswith("#")]
    names = ("plumbline_failures_total", "plumbline_http_request_seconds_count")
    return sent, "\n".join(line for line in counted if line.startswith(names))


async def test_a_defect_after_the_head_has_left_is_counted_and_not_answered_again() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    sent, counted = await _met(broken)
    assert sent == [200]
    assert 'plumbline_failures_total{code="internal_error"} 1.0' in counted


async def test_a_caller_who_hangs_up_while_its_body_is_read_is_no_failure() -> None:
    async def gone(scope: Scope, receive: Receive, send: Send) -> None:
        raise ClientDisconnect

    sent, counted = await _met(gone)
    assert (sent, "plumbline_failures_total" in counted) == ([], False)


async def test_a_body_that_says_that_it_is_too_large_is_refused_before_any_of_it_comes() -> None:
    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    sent, _ = await _met(reads, (b"content-length", b"11"))
    assert sent == [413]


async def test_made_up_methods_are_counted_as_one() -> None:
    async def answers(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 405, "headers": []})

    _, counted = await _met(answers, method="BREW")
    assert 'method="other"' in counted
    assert "BREW" not in counted


def test_an_id_of_the_callers_is_taken_where_it_is_one() -> None:
    assert _request_id({b"x-request-id": b"order-17.a:b_c"}) == "order-17.a:b_c"
    for other in (b"", b"a b", b"a\nb", b"x" * 129, "é".encode()):
        assert re.fullmatch("[0-9a-f]{32}", _request_id({b"x-request-id": other}))
