"""How requests are read off the short way: their JSON by one parser, their addresses as strictly as bodies.

FastAPI's own parser takes what none of ours does, such as half of a surrogate pair, which no answer can hold;
and it passes over a query parameter that it does not know, so that a misspelt `colection` lists everything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Set
from typing import Any

from fastapi import params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response

from app.errors import RequestInvalid

_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def parsed(raw: bytes | str) -> Any:
    """The value of a JSON text. Raises `json.JSONDecodeError`, whose `msg` says what is wrong and where.

    By the parser that validates bodies on the short way, so that it makes no difference which way one goes.
    """
    try:
        return from_json(raw)
    except ValueError as error:
        raise json.JSONDecodeError(_clearer(str(error)), "", 0) from None


def _clearer(told: str) -> str:
    """The parser means a `\\ud800` that lacks its other half."""
    kind, at, place = told.rpartition(" at line ")
    return f"half of a surrogate pair{at}{place}" if kind.endswith("hex escape") else told


class Route(APIRoute):
    """For endpoints that clients made for other services call: they may add to the query what they like."""

    def get_route_handler(self) -> _Handler:
        handle = super().get_route_handler()

        async def read(request: Request) -> Response:
            return await handle(_Parsed(request.scope, request.receive))

        return read


class Exact(Route):
    """Refuses query parameters that the OpenAPI document does not name."""

    def get_route_handler(self) -> _Handler:
        handle = super().get_route_handler()
        stated = (self.openapi_extra or {}).get("parameters", ())
        fields = get_flat_params(self.dependant)
        known = {field.alias for field in fields if isinstance(field.field_info, params.Query)}
        known |= {one["name"] for one in stated if one["in"] == "query"}

        async def read(request: Request) -> Response:
            _check_query(request, known)
            return await handle(request)

        return read


def _check_query(request: Request, known: Set[str]) -> None:
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise RequestInvalid(f"Unknown query parameter `{name[:80]}`.", name[:80], "unknown_parameter")
        if "\x00" in value:
            raise RequestInvalid(f"`{name}` must not hold the character U+0000.", name)


class _Parsed(Request):
    async def json(self) -> Any:
        return parsed(await self.body())
