"""The service's HTTP API as commands use it: typed failures, patience where the service asks for it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from app import instance
from app.settings import Settings, load_settings

TIMEOUT = httpx.Timeout(120.0, connect=5.0)
ATTEMPTS = 4
LONGEST_WAIT = 10.0
_KEY = re.compile(r"[\x21-\x7e]+")


class ClientError(Exception):
    """The service refused or failed; the message is its own sentence."""

    def __init__(self, message: str, status: int = 0, code: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after


class Unreachable(ClientError):
    """Nobody answers at the address."""


class Misused(ClientError):
    """What was given can be no address, or no key."""


class Client:
    """A caller of one service. Close it, or use it as a context manager. Safe to share between threads."""

    def __init__(self, url: str, key: str | None = None, timeout: httpx.Timeout = TIMEOUT) -> None:
        self.url = address(url)
        headers = {"Authorization": f"Bearer {bearer(key)}"} if key else {}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        return self._call("GET", path, params={k: v for k, v in params.items() if v is not None})

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._call("POST", path, json=dict(body or {}))

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._call("PUT", path, json=dict(body))

    def delete(self, path: str) -> Any:
        return self._call("DELETE", path)

    def put_file(
        self, document_id: str, name: str, content: bytes, fields: Mapping[str, Any], once: str
    ) -> Any:
        """Hand in one file under an id; `fields` go into the query. However often it is asked with the same
        `once`, the document is handed in once. Returns its job."""
        answer = self._call(
            "PUT",
            f"/v1/documents/{document_id}",
            params={"filename": name, **fields},
            content=content,
            headers={"Content-Type": "application/octet-stream", "Idempotency-Key": once},
        )
        return answer["jobs"][0]

    def events(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Iterator[Any]:
        """The events of a stream, until it ends. Raises `ClientError` when it breaks off."""
        ended = False
        try:
            with self._http.stream(method, path, json=dict(body) if body is not None else None) as response:
                if response.is_error:
                    response.read()
                    raise _refused(response)
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        if line == "data: [DONE]":
                            ended = True
                            break
                        yield _checked(json.loads(line.removeprefix("data: ")))
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        if not ended:
            raise ClientError(f"The service at {self.url} broke off its answer. Ask again.")

    def _call(self, method: str, path: str, **content: Any) -> Any:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = self._http.request(method, path, **content)
            except httpx.TransportError as error:
                raise self._unreachable(error) from None
            if response.status_code not in (429, 503) or attempt == ATTEMPTS or _is_full(response):
                break
            time.sleep(min(_patience(response, attempt), LONGEST_WAIT))
        if response.is_error:
            raise _refused(response)
        return _json(response)

    def _unreachable(self, error: httpx.TransportError) -> ClientError:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return Unreachable(
                f"Nothing answers at {self.url}: start it with `plumbline up`, or name it with --url."
            )
        if isinstance(error, httpx.TimeoutException):
            return ClientError(f"The service at {self.url} took too long to answer. Try again.")
        return ClientError(f"The connection to {self.url} broke ({type(error).__name__}). Try again.")


def connect(url: str | None, key: str | None, data: Path | None = None, port: int | None = None) -> Client:
    """A client of the service that these options and the environment name: an address if one is given,
    else the instance that runs on the data folder, else the usual address. Raises `Unreachable` where none
    runs on the folder that was asked for: another instance may have the usual address."""
    settings = load_settings(url=url, key=key, data=data, port=port)
    if data and not (settings.url or port or instance.running(settings.data)):
        raise Unreachable(
            f"No instance runs on {data}: start it with `plumbline up --data {data}`, or name it with --url."
        )
    secret = settings.key.get_secret_value() if settings.key else None
    return Client(address_of(settings), secret)


def address_of(settings: Settings) -> str:
    if settings.url:
        return settings.url
    running = instance.running(settings.data)
    return running.url if running else f"http://127.0.0.1:{settings.port}"


def address(url: str) -> str:
    """Without a slash at its end. Raises `Misused` for what can be no service's."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise Misused(f"{url} is no address: {error}.") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise Misused(f"{url} is no address of a service: write one as http://127.0.0.1:8080.")
    return url.rstrip("/")


def bearer(key: str) -> str:
    """Raises `Misused` for what can be no key."""
    if not _KEY.fullmatch(key):
        raise Misused(
            "The key (--key, PLUMBLINE_KEY) holds what no key does: a space, a line break, or a character "
            "beyond ASCII."
        )
    return key


def _patience(response: httpx.Response, attempt: int) -> float:
    try:
        asked = float(response.headers.get("retry-after", ""))
    except ValueError:
        asked = 0.25 * 2.0**attempt
    return asked


def _is_full(response: httpx.Response) -> bool:
    """Whether the queue of documents is full, which a moment does not mend."""
    return response.status_code == 429 and b'"queue_full"' in response.content


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise ClientError(
            f"{response.request.url} did not answer in JSON. Is this address Plumbline's?"
        ) from None


def _checked(event: Any) -> Any:
    if isinstance(event, dict) and "error" in event:
        raise ClientError(str(event["error"]["message"]), code=str(event["error"].get("code", "")))
    return event


def _refused(response: httpx.Response) -> ClientError:
    try:
        error = response.json()["error"]
        code, patience = str(error["code"] or ""), _patience(response, 1)
        return ClientError(str(error["message"]), response.status_code, code, patience)
    except (ValueError, KeyError, TypeError):
        return ClientError(
            f"{response.request.url} answered {response.status_code}. Is this address Plumbline's?",
            response.status_code,
        )
