"""The HTTP service: the application, and the process that serves it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict

import uvicorn
import uvloop
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Match
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from app import description, problems, stalls, telemetry
from app.admission import Admission
from app.edge import Edge
from app.metrics import Metrics
from app.routes import (
    chat,
    collections,
    documents,
    embeddings,
    erasures,
    health,
    jobs,
    keys,
    models,
    queue,
    releases,
    rerank,
    search,
    source,
    summarize,
    trials,
    uploads,
    verdicts,
)
from app.routes.caller import in_full
from app.routes.straight import Straight
from app.served import Spans
from app.settings import Settings
from app.wire import Wire
from app.wiring import Services, open_services

WEB = Path(__file__).with_name("web")
JSON_LIMIT = 4 * 2**20
"""Bytes of a body that carries no documents."""

UPLOADS = 8
"""Uploads that are held in memory at once."""

KEPT = 75
"""Seconds for which a connection without a request is kept: longer than proxies and clients keep theirs (5 to
60), which would send the next request into one that is being closed."""

_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
_TOLD = ("X-Request-Id", "X-Plumbline-Release", "Retry-After", "Content-Disposition", "ETag")
"""Headers that a page of an allowed origin may read."""
_REMEMBERED = 600
"""Seconds for which a browser need not ask again whether it may call."""
_PAGE_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)


class State(TypedDict):
    """What the lifespan lends to every request as `request.state`."""

    services: Services
    metrics: Metrics
    uploads: Admission
    stopping: asyncio.Event
    mcp: ASGIApp


def create_app(
    settings: Settings, services: Services | None = None, stopping: asyncio.Event | None = None
) -> FastAPI:
    """The application. It opens the service's parts itself, unless it is lent them. Once `stopping` is set,
    streams that have no end of their own are ended."""
    # Its library takes longer to import than most commands to do their work.
    from app.routes import mcp

    counters = Metrics()
    spans = Spans(telemetry.tracer(), _untraced)
    app = FastAPI(
        title="Plumbline",
        version=version("plumbline"),
        description=description.TEXT,
        lifespan=lambda app: _lent(settings, services, counters, stopping or asyncio.Event()),
        openapi_url=None,
        redirect_slashes=False,
        responses=problems.described(),
        generate_unique_id_function=description.operation_id,
        middleware=[
            *_for_pages_of(settings.origins),
            Middleware(
                Edge,
                metrics=counters,
                body_limit=_body_limit(settings),
                spans=spans,
                log_reads=settings.log_reads,
            ),
            Middleware(Straight, chat.router, search.router, summarize.router),
        ],
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
    )
    answering = (chat, search, summarize, embeddings, rerank)
    # Of two paths that fit, the first is taken: what `trials` names comes before any release's name.
    handling = (documents, erasures, collections, source, jobs, queue)
    everything = (*answering, mcp, *handling, models, trials, verdicts, releases, keys, health)
    routers = [routes.router for routes in everything]
    for router in routers:
        app.include_router(router)
    _tell_errors(app, counters, routers)
    _serve_page(app)
    _serve_description(app)
    return app


@asynccontextmanager
async def _lent(
    settings: Settings, services: Services | None, counters: Metrics, stopping: asyncio.Event
) -> AsyncIterator[State]:
    """What every request may use, while the application runs."""
    from app.routes import mcp

    async with AsyncExitStack() as stack:
        parts = services
        if parts is None:
            parts = await stack.enter_async_context(open_services(settings))
        await parts.access.require_keys(settings)
        # Who sends slowly holds a place for as long as that takes.
        uploading = Admission(max_running=UPLOADS, max_waiting=settings.max_waiting, sparing=True)
        stack.enter_context(stalls.watched(settings.stall, counters.lag))
        yield {
            "services": parts,
            "metrics": counters,
            "uploads": uploading,
            "stopping": stopping,
            "mcp": await stack.enter_async_context(mcp.speaking()),
        }


def run(settings: Settings) -> None:
    """Serve until a signal says stop. Raises before listening when the service cannot be opened."""
    run_process(serve(settings), settings.log_level)


def run_process(work: Coroutine[Any, Any, None], log_level: str) -> None:
    """Do this work as a process of the service: with its log, and its traces where OTEL_* says."""
    with closing(work):
        telemetry.log_to_stderr(log_level)
        flush = telemetry.start("plumbline", os.environ)
        try:
            uvloop.run(work)
        finally:
            flush()


async def serve(settings: Settings) -> None:
    async with open_services(settings) as services:
        await services.access.require_keys(settings)
        stopping = asyncio.Event()
        await listen(settings, create_app(settings, services, stopping), stopping=stopping)


async def listen(
    settings: Settings,
    app: ASGIApp,
    *,
    ready: Callable[[], None] = lambda: None,
    stopping: asyncio.Event | None = None,
) -> None:
    """Serve the application until a signal says stop, which sets `stopping`; `ready` is called when it
    listens."""
    config = configured(app, settings.host, settings.port, settings.grace)
    await Server(config, ready, stopping or asyncio.Event()).serve()


def configured(app: ASGIApp, host: str, port: int, grace: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=Wire,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=round(grace),
        timeout_keep_alive=KEPT,
    )


class Server(uvicorn.Server):
    """Stops at a signal without raising it again, so that the service's parts are closed afterwards."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], stopping: asyncio.Event) -> None:
        super().__init__(config)
        self._ready = ready
        self._stopping = stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is there now stays: a full collection that looks through it again stalls every request.
        gc.collect()
        gc.freeze()
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping.set()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for one in signals:
            loop.add_signal_handler(one, self.handle_exit, one, None)
        try:
            yield
        finally:
            for one in signals:
                loop.remove_signal_handler(one)


def _tell_errors(app: FastAPI, counters: Metrics, routers: Sequence[APIRouter]) -> None:
    async def tell(request: Request, error: Exception) -> Response:
        current = telemetry.CURRENT.get()
        request_id = current.request_id if current else ""
        problem = problems.problem_of(error, request_id, in_full=in_full(request))
        counters.failure(problem.code)
        response = problems.respond(problem)
        if isinstance(error, HTTPException) and error.headers:
            response.headers.update(error.headers)
        if problem.status == HTTPStatus.METHOD_NOT_ALLOWED and (methods := _methods_at(request, routers)):
            response.headers["Allow"] = ", ".join(methods)
        return response

    for kind in (HTTPException, RequestValidationError, *problems.TABLE):
        app.add_exception_handler(kind, tell)


def _methods_at(request: Request, routers: Sequence[APIRouter]) -> list[str]:
    """Those that any route takes at this address: the frame asks the first one alone."""
    routes = (route for router in routers for route in router.routes if isinstance(route, APIRoute))
    fitting = (route for route in routes if route.matches(request.scope)[0] is Match.PARTIAL)
    return sorted({method for route in fitting for method in route.methods or ()})


def _serve_page(app: FastAPI) -> None:
    async def page(request: Request) -> Response:
        headers = {"Content-Security-Policy": _PAGE_POLICY, "Referrer-Policy": "no-referrer"}
        return FileResponse(WEB / "index.html", headers=headers)

    app.add_route("/", page, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/web", StaticFiles(directory=WEB))


def _serve_description(app: FastAPI) -> None:
    """Not the frame's own way, which makes the document on the event loop."""
    described = description.Described(app)
    app.openapi = described.document  # type: ignore[method-assign]

    async def document(request: Request) -> Response:
        return Response(await described.text(), media_type="application/json")

    app.add_route("/openapi.json", document, include_in_schema=False)


def _body_limit(settings: Settings) -> Callable[[Scope], int]:
    documents_limit = uploads.body_limit(settings.upload_limit)

    def limit(scope: Scope) -> int:
        path = scope["path"]
        if path == verdicts.WEBHOOK:
            return verdicts.MOST_BYTES
        return documents_limit if path.startswith("/v1/documents") else JSON_LIMIT

    return limit


def _for_pages_of(origins: tuple[str, ...]) -> list[Middleware]:
    """Lets pages of these origins call, and read what they are told, even by the edge: so it lies around
    that. Their key is all that opens anything: without one, other origins stay refused."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=["*"],  # Clients send headers of their own, such as OpenAI's.
            expose_headers=_TOLD,
            max_age=_REMEMBERED,
        )
    ]


def _untraced(scope: Scope) -> bool:
    return bool(scope["path"].startswith(("/health/", "/metrics", "/web/")))
