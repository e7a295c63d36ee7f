"""A web server in a thread of the tests that replies in JSON as a test wants, and keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Post = Callable[[str, Body], tuple[int, object]]
Get = Callable[[str], tuple[int, str]]


def _nothing(path: str) -> tuple[int, str]:
    return 404, ""


@dataclass(slots=True)
class Replying:
    """`post` makes status and JSON of a reply from path and body, `get` status and text. Every reply has the
    headers `told` too."""

    post: Post
    get: Get = _nothing
    told: Mapping[str, str] = field(default_factory=dict)
    bodies: list[Body] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)


@contextmanager
def replying(server: Replying) -> Iterator[str]:
    """Its address, without a path."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def _handler(server: Replying) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.looks.append(self.path)
            status, text = server.get(self.path)
            self.reply(status, text.encode())

        def do_POST(self) -> None:
            server.headers.append(dict(self.headers))
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.bodies.append(body)
            status, found = server.post(self.path, body)
            self.reply(status, json.dumps(found).encode())

        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            for name, value in server.told.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  the library's name
            return None

    return Handler
