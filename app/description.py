"""The OpenAPI document: what the frame makes of the routes, and what it cannot know."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from app.routes import uploads
from app.routes.route import KEY

TEXT = """Cited answers, search and summaries over your own documents.

**Errors** have one shape, `{"error": {"message", "type", "param", "code"}}`: a sentence that says what to do,
and a code that stays the same. 429 and 503 say in `Retry-After` when to come again.

**Keys** go into `Authorization: Bearer <key>`. An instance on loopback answers without one.

**Headers.** Every response has an `X-Request-Id`: yours, if you send one. `X-Request-Timeout` bounds the
seconds of a request; `Idempotency-Key` makes it safe to hand documents in again; `traceparent` is honoured.

**Times** are RFC 3339, in UTC. Fields that a response does not have today may be there tomorrow."""

_SCHEMES = {
    KEY: {
        "type": "http",
        "scheme": "bearer",
        "description": "A key of `plumbline keys create`. It has scopes, of which each operation names those "
        "that let it through; `admin` includes `read` and `write`. Where the service runs without keys, none "
        "is needed.",
    }
}
_KEYLESS = ("/health/live", "/health/ready", "/metrics")
"""Addresses that ask for no key."""


def operation_id(route: APIRoute) -> str:
    """The name of the function that a generated client gets: `search`, `documents_show`, `jobs_cancel`."""
    module, name = route.endpoint.__module__.rpartition(".")[2], route.name
    return name if module.removesuffix("s") in name else f"{module}_{name}"


class Described:
    """Makes the document when it is first asked for."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._framed = app.openapi
        self._making = asyncio.Lock()
        self._text = b""

    def document(self) -> dict[str, Any]:
        if self._app.openapi_schema is None:
            _complete(self._framed())
        return self._framed()

    async def text(self) -> bytes:
        """The document as JSON, made in a thread: it takes as long as a hundred answers."""
        async with self._making:
            if not self._text:
                self._text = await asyncio.to_thread(lambda: orjson.dumps(self.document()))
        return self._text


def _complete(document: dict[str, Any]) -> None:
    components = document["components"]
    components["schemas"] |= _bodies()
    components["securitySchemes"] = _SCHEMES
    document["security"] = [{KEY: []}, {}]
    for path in _KEYLESS:
        for operation in document["paths"][path].values():
            operation["security"] = []


def _bodies() -> dict[str, Any]:
    """Of requests that come in several types, which the routes read themselves."""
    models = (uploads.JsonDocuments, uploads.OneJsonDocument)
    _, schemas = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    found: dict[str, Any] = schemas["$defs"]
    return found
