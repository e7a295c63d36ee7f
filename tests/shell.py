"""Commands as a shell runs them, and a small real server for them to talk to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from typer.testing import CliRunner, Result

from app.cli import build


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(build(), arguments, input=stdin)


QUEUE = "/v1/queue"
NOTHING_WAITS = (200, dict[str, str](), b'{"queued": 0, "running": 0, "state": "open"}')


class Server:
    """Answers every request of a path with what `replies` holds for it, and keeps what it was sent. Commands
    ask beside what they do what is under way: nothing is, unless it is given, and that is not kept."""

    def __init__(self) -> None:
        self.replies: dict[str, list[tuple[int, dict[str, str], bytes]]] = {}
        self.sent: list[tuple[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                raw = self.rfile.read(length)
                path = self.path.partition("?")[0]
                replies = [NOTHING_WAITS]
                if path != QUEUE or QUEUE in outer.replies:
                    outer.sent.append(
                        (f"{self.command} {self.path}", json.loads(raw) if self.command == "POST" else raw)
                    )
                    replies = outer.replies[path]
                status, headers, body = replies.pop(0) if len(replies) > 1 else replies[0]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: Any) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def reply(
        self, path: str, *bodies: Any, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        raw = [body if isinstance(body, bytes) else json.dumps(body).encode() for body in bodies]
        self.replies.setdefault(path, []).extend((status, headers or {}, body) for body in raw)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@contextmanager
def serving() -> Iterator[Server]:
    made = Server()
    try:
        yield made
    finally:
        made.close()
