"""The log of requests holds what was asked, changed or refused, but not what only looks and goes well."""

from __future__ import annotations

import logging

import httpx
import pytest
from opentelemetry.trace import NoOpTracer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from app.edge import Edge
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
