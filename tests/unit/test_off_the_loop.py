"""What takes long is not done on the event loop, where it would keep every other request waiting."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.types import Message

from app.description import Described
from app.main import create_app
from app.routes import uploads
from app.routes.route import parsed
from app.settings import load_settings


async def test_the_description_of_the_api_is_made_once_and_in_a_thread() -> None:
    app = create_app(load_settings({}))
    made, threads = app.openapi, []

    def making() -> dict[str, Any]:
        threads.append(threading.get_ident())
        return made()

    app.openapi = making  # type: ignore[method-assign]
    described = Described(app)
    first, second = await asyncio.gather(described.text(), described.text())
    asked = len(threads)
    assert threading.get_ident() not in threads
    assert first == second == await described.text()
    assert len(threads) == asked


async def test_the_description_that_is_served_is_that_one() -> None:
    app = create_app(load_settings({}))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        reply = await client.get("/openapi.json")
    assert reply.headers["content-type"] == "application/json"
    assert reply.json() == json.loads(json.dumps(app.openapi()))


@pytest.mark.parametrize(("length", "aside"), [(100, False), (2**20, True)])
async def test_much_json_is_read_in_a_thread(
    monkeypatch: pytest.MonkeyPatch, length: int, aside: bool
) -> None:
    threads = []

    def parsing(raw: bytes | str) -> Any:
        threads.append(threading.get_ident())
        return parsed(raw)

    monkeypatch.setattr(uploads, "parsed", parsing)
    text = "words " * (length // 6)
    many = await uploads.documents_of(_request({"documents": [{"id": "one", "text": text}]}))
    one = await uploads.document_of(_request({"text": text}), "one")
    assert [one] == many
    assert [thread != threading.get_ident() for thread in threads] == [aside, aside]


def _request(body: dict[str, Any]) -> Request:
    async def receive() -> Message:
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    scope = {
        "type": "http",
        "method": "POST",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    return Request(scope, receive)
