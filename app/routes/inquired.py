"""Routes that answer questions: the frame's own way from a request to its endpoint costs as much as a search.

A body that fits its model goes straight to the endpoint, with the one dependency that these endpoints have;
everything else about such a route is FastAPI's, and so is every body that does not fit: it is read once more,
by FastAPI, which says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, get_type_hints

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from app.routes.caller import inquire

_JSON = "application/json"


class Inquired(APIRoute):
    """For `async def endpoint(body: Model, request: Request, inquiry: Asked) -> Response`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        framed = super().get_route_handler()
        endpoint = self.endpoint
        model: type[BaseModel] = get_type_hints(endpoint)["body"]

        async def handle(request: Request) -> Response:
            if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
                return await framed(request)
            try:
                body = model.model_validate_json(await request.body())
            except ValidationError:
                return await framed(request)
            inquiry = await inquire(request, request.headers.get("x-request-timeout"))
            response: Response = await endpoint(body, request, inquiry)
            return response

        return handle
