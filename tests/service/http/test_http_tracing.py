"""Traces as a real OTLP receiver gets them from real processes: the API and a worker."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from app.embedded import free_port
from tests.service.http.house import tool_call

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@dataclass(slots=True)
class Receiver:
    """What arrived, as (service, span)."""

    url: str = ""
    spans: list[tuple[str, Span]] = field(default_factory=list)

    def of(self, trace: str) -> list[tuple[str, Span]]:
        return [(service, span) for service, span in self.spans if span.trace_id.hex() == trace]

    def names(self, trace: str) -> list[tuple[str, str]]:
        return [(service, span.name) for service, span in self.of(trace)]

    async def until(self, trace: str, *wanted: str) -> None:
        async with asyncio.timeout(60):
            while not set(wanted) <= {name for _, name in self.names(trace)}:
                await asyncio.sleep(0.1)


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                told = {a.key: a.value.string_value for a in resource.resource.attributes}
                for scope in resource.scope_spans:
                    receiver.spans += [(told["service.name"], span) for span in scope.spans]
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def process(command: str, environ: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "app.cli", command], env=environ, stdout=output, stderr=output
        )
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            code = child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise
    assert code == 0, log.read_text()[-2_000:]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
async def api(
    receiver: Receiver,
    shared_database_url: str,
    redis_url: str,
    milvus_uri: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[httpx.AsyncClient]:
    """One API and one worker for all tests; each has traces of its own."""
    port, folder = free_port(), tmp_path_factory.mktemp("traced")
    environ = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "PLUMBLINE_"))},
        "DATABASE_URL": shared_database_url,
        "REDIS_URL": redis_url,
        "MILVUS_URI": milvus_uri,
        "PLUMBLINE_DATA": str(folder),
        "PLUMBLINE_PORT": str(port),
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_TRACES_SAMPLER": "always_on",
    }
    with (
        process("serve", environ, folder / "serve.log"),
        process("worker", environ, folder / "worker.log"),
    ):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            await _ready(client, folder / "serve.log")
            yield client


async def _ready(client: httpx.AsyncClient, log: Path) -> None:
    for _ in range(2_400):
        try:
            if (await client.get("/health/ready")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    raise AssertionError(log.read_text()[-3_000:])


async def test_an_upload_and_a_question_are_each_one_trace_through_every_process(
    receiver: Receiver, api: httpx.AsyncClient
) -> None:
    body = {"documents": [{"id": "owls", "text": "Owls hunt at night. They sleep by day."}]}
    reply = await api.post("/v1/documents", json=body, headers={"traceparent": PARENT})
    job = reply.json()["jobs"][0]["id"]
    await api.get(f"/v1/jobs/{job}/events")
    await receiver.until(TRACE, "POST /v1/documents", "process document", "parse", "embed", "index")
    assert ("plumbline", "POST /v1/documents") in receiver.names(TRACE)
    assert ("plumbline-worker", "process document") in receiver.names(TRACE)

    trace = TRACE[::-1]
    question = {"messages": [{"role": "user", "content": "When do owls hunt?"}], "stream": True}
    answer = await api.post(
        "/v1/chat/completions", json=question, headers={"traceparent": PARENT.replace(TRACE, trace)}
    )
    assert answer.text.endswith("[DONE]\n\n")
    root = "POST /v1/chat/completions"
    await receiver.until(trace, root, "chat extractive")
    spans = {span.name: span for _, span in receiver.of(trace)}
    assert any(name.startswith("retrieval ") for name in spans)
    assert any(name.startswith("embeddings ") for name in spans)
    assert {spans[name].parent_span_id for name in spans if name != root} <= {
        span.span_id for span in spans.values()
    }
    told = {one.key: one.value.string_value for one in spans["chat extractive"].attributes}
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == "extractive"
    served = {one.key: one.value.string_value for one in spans[root].attributes}
    assert served["plumbline.release"] == answer.headers["x-plumbline-release"]
    assert served["plumbline.request_id"] == answer.headers["x-request-id"]
    assert not any("night" in str(span) for _, span in receiver.spans)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_trace_names_what_an_answer_had_to_do_without(
    receiver: Receiver, api: httpx.AsyncClient, stream: bool
) -> None:
    too_long = "Which owls hunt at night? " * 100
    asked = {"messages": [{"role": "user", "content": too_long}], "stream": stream}
    english = "The owls of this forest hunt at night, and they sleep in the trees by day. " * 3
    german = {"text": english, "language": "de", "stream": stream}
    requests = [
        ("/v1/search", {"query": too_long}, "query_truncated"),
        ("/v1/chat/completions", asked, "query_truncated"),
        ("/v1/summarize", german, "language"),
    ]
    job = (await api.post("/v1/documents", json={"documents": [{"text": "Owls hunt at night."}]})).json()
    await api.get(f"/v1/jobs/{job['jobs'][0]['id']}/events")
    for number, (path, body, expected) in enumerate(requests):
        trace = f"{10 * (1 + stream) + number:032x}"
        answer = await api.post(path, json=body, headers={"traceparent": PARENT.replace(TRACE, trace)})
        assert answer.status_code == 200
        root = f"POST {path}"
        await receiver.until(trace, root)
        span = next(span for _, span in receiver.of(trace) if span.name == root)
        told = {one.key: [v.string_value for v in one.value.array_value.values] for one in span.attributes}
        assert told.get("plumbline.degraded") == [expected], path


async def test_a_call_of_a_tool_is_one_trace_in_which_no_text_leaves(
    receiver: Receiver, api: httpx.AsyncClient
) -> None:
    for trace, version in (("a" * 32, "2025-06-18"), ("b" * 32, "2026-07-28")):
        call, headers = tool_call(version, "ask", question=f"When do badgers hunt? {version}")
        headers["traceparent"] = PARENT.replace(TRACE, trace)
        assert (await api.post("/mcp", json=call, headers=headers)).status_code == 200
        await receiver.until(trace, "POST /mcp", "tools/call ask")
        spans = {span.name: span for _, span in receiver.of(trace)}
        assert any(name.startswith("retrieval ") for name in spans)
        assert {spans[name].parent_span_id for name in spans if name != "POST /mcp"} <= {
            span.span_id for span in spans.values()
        }
    assert not any("badgers" in str(span) for _, span in receiver.spans)
