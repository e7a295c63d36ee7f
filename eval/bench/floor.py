"""The least that an HTTP answer can cost here: an application that only sends bytes, on the same web server.

python -m uvicorn eval.bench.floor:floor --port 9001
POST /8000                                                  (8 000 bytes)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def floor(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """Read the request's body and answer with as many bytes as the path says; none for any other path."""
    while (await receive()).get("more_body"):
        pass
    named = scope["path"].strip("/")
    size = int(named) if named.isdigit() else 0
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(size).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"." * size})
