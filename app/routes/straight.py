"""A short way to the endpoints that answer questions: the frame's own, from a request to its endpoint and
back, costs as much as a search.

A request that fits the endpoint's model goes straight to it, with the one dependency that these endpoints
have. Everything else about such a route is FastAPI's, and so is every request that does not fit: it is read
once more, by FastAPI, which says what is wrong with it. What an endpoint raises is told by the edge.
"""

from __future__ import annotations

from typing import get_type_hints

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.routes.caller import inquiry_of, needs_of

_JSON = "application/json"


class _Straight:
    """A route whose endpoint is `async def (body: Model, request: Request, inquiry: Asked) -> Response`."""

    def __init__(self, route: APIRoute) -> None:
        self.route = route
        self.endpoint = route.endpoint
        self.model: type[BaseModel] = get_type_hints(route.endpoint)["body"]
        needs = needs_of(route.dependant)
        assert needs is not None, f"{route.path} answers without a key"
        self.needs = needs


class Straight:
    """ASGI: the routes of these routers, and `app` for all the rest."""

    def __init__(self, app: ASGIApp, *routers: APIRouter) -> None:
        self._app = app
        routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
        self._ways = {
            (method, route.path): _Straight(route) for route in routes for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        way = self._ways.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if way is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
            await self._app(scope, receive, send)
            return
        scope["route"] = way.route
        caller = await way.needs(request)  # Before the body: nobody without a key has one read.
        raw = await request.body()
        try:
            body = way.model.model_validate_json(raw)
        except ValidationError:
            await self._app(scope, Again(raw, receive).receive, send)
            return
        inquiry = inquiry_of(request, caller, request.headers.get("x-request-timeout"))
        response: Response = await way.endpoint(body, request, inquiry)
        await response(scope, receive, send)


class Again:
    """Gives a body once more that was read before."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def receive(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}
