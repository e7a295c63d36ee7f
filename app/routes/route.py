"""How requests are read off the short way: the key before anything else, JSON by one parser, addresses as
strictly as bodies.

FastAPI's own parser takes what none of ours does, such as half of a surrogate pair, which no answer can hold;
and it passes over a query parameter that it does not know, so that a misspelt `colection` lists everything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Set
from functools import cached_property
from typing import Any

from fastapi import params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response

from app.errors import RequestInvalid
from app.routes.caller import Needs, needs_of

KEY = "key"
"""What the OpenAPI document calls the keys."""
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
    """For endpoints that clients made for other services call: they may add to the query what they like.
    `needs` is what is asked of the caller's key, None where none is needed."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **more: Any) -> None:
        super().__init__(path, endpoint, **more)
        if self.needs:
            scopes: tuple[str, ...] = self.needs.scopes
            opened = [{KEY: [one]} for one in scopes] or [{KEY: []}]
            self.openapi_extra = {**(self.openapi_extra or {}), "security": opened}

    @property
    def needs(self) -> Needs | None:
        return needs_of(self.dependant)

    def get_route_handler(self) -> _Handler:
        handle, needs = super().get_route_handler(), self.needs

        async def read(request: Request) -> Response:
            if needs:
                await needs(request)
            self.check(request)
            return await handle(_Parsed(request.scope, request.receive))

        return read

    def check(self, request: Request) -> None:
        """Refuse an address that says what the endpoint does not know."""


class Exact(Route):
    """Refuses query parameters that the OpenAPI document does not name."""

    @cached_property
    def _known(self) -> frozenset[str]:
        stated = (self.openapi_extra or {}).get("parameters", ())
        fields = get_flat_params(self.dependant)
        known = {field.alias for field in fields if isinstance(field.field_info, params.Query)}
        return frozenset(known | {one["name"] for one in stated if one["in"] == "query"})

    def check(self, request: Request) -> None:
        _check_query(request, self._known)


def _check_query(request: Request, known: Set[str]) -> None:
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise RequestInvalid(f"Unknown query parameter `{name[:80]}`.", name[:80], "unknown_parameter")
        if "\x00" in value:
            raise RequestInvalid(f"`{name}` must not hold the character U+0000.", name)


class _Parsed(Request):
    async def json(self) -> Any:
        return parsed(await self.body())
