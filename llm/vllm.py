"""A model behind an OpenAI-compatible chat completions URL, streamed; made for vLLM.

Closing the generator closes the HTTP stream, by which vLLM knows to stop and free the slot. Nothing is
retried here except a request that was refused for `cache_salt`, a vLLM field that keeps one tenant from
timing another's cached prefixes; a server that does not know the field is not sent it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, cast

import httpx

from llm.errors import (
    LlmError,
    ModelOverloaded,
    ModelRejected,
    ModelTimeout,
    ModelUnavailable,
    StreamBroken,
)
from llm.events import Events, EventTooLong
from llm.types import Call, Delta

FIRST_TOKEN = 20.0
"""Seconds to the first token, after which another model is the better choice."""
_SHOWN = 500
_PING = 2.0


@dataclass(slots=True)
class _Progress:
    """What a stream has brought so far."""

    finish: Literal["stop", "length"] | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    started: bool = False
    done: bool = False


class Vllm:
    """`url` ends in `/v1`. `headers` is asked before every request (trace context). A `client` that is
    passed in stays the caller's to close; otherwise `aclose` closes it. Times are in seconds."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None = None,
        client: httpx.AsyncClient | None = None,
        connect_timeout: float = 2.0,
        first_token_timeout: float = FIRST_TOKEN,
        headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._base = url.rstrip("/")
        self._url = httpx.URL(self._base + "/chat/completions")
        self._model = model
        self._key = key
        self._owned = client is None
        self._client = client or httpx.AsyncClient(limits=httpx.Limits(max_connections=None))
        self._timeout = httpx.Timeout(None, connect=connect_timeout)
        self._first_token_timeout = first_token_timeout
        self._headers = headers
        self._salted = True

    def __repr__(self) -> str:
        return f"Vllm({str(self._url)!r}, {self._model!r})"

    @property
    def name(self) -> str:
        return self._model

    async def aclose(self) -> None:
        if self._owned:
            await self._client.aclose()

    async def ping(self) -> None:
        """Raises `ModelUnavailable` when the server does not list its models now."""
        headers = {} if self._key is None else {"authorization": f"Bearer {self._key}"}
        try:
            response = await self._client.get(self._base + "/models", headers=headers, timeout=_PING)
        except httpx.HTTPError as error:
            raise self._translated(error, started=False) from error
        if response.status_code >= 500:
            raise ModelUnavailable(f"The server of model {self._model!r} answered {response.status_code}.")

    async def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        progress = _Progress()
        try:
            async with aclosing(self._deltas(call, progress)) as deltas:
                async for delta in deltas:
                    progress.started = True
                    yield delta
        except (httpx.HTTPError, TimeoutError, EventTooLong, _NotSpoken) as error:
            raise self._translated(error, started=progress.started) from error

    async def _deltas(self, call: Call, progress: _Progress) -> AsyncGenerator[Delta, None]:
        begin = asyncio.get_running_loop().time()
        end, first = begin + call.timeout, begin + min(call.timeout, self._first_token_timeout)
        async with asyncio.timeout_at(first):
            response = await self._open(call)
        try:
            events, pieces = Events(), cast(AsyncGenerator[bytes, None], response.aiter_bytes())
            async with aclosing(pieces):
                while not progress.done:
                    async with asyncio.timeout_at(end if progress.started else first):
                        piece = await anext(pieces, None)
                    if piece is None:
                        break
                    for data in events.feed(piece):
                        if text := _read(data, progress):
                            yield Delta(text=text, model=self._model)
                await _drain(pieces)
        finally:
            await response.aclose()
        yield self._last(progress)

    async def _open(self, call: Call) -> httpx.Response:
        """The response with its status checked and its body still to come."""
        while True:
            salted = self._salted
            response = await self._client.send(self._request(call, salted), stream=True)
            if response.status_code == 200:
                return response
            try:
                message = _message(await response.aread())
            finally:
                await response.aclose()
            if salted and response.status_code in (400, 422) and "cache_salt" in message:
                self._salted = False
                continue
            raise self._refusal(response, message)

    def _request(self, call: Call, salted: bool) -> httpx.Request:
        headers = {**self._headers(), "accept": "text/event-stream", "accept-encoding": "identity"}
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        body = _body(self._model, call)
        if salted:
            body["cache_salt"] = _salt(call.scope.tenant)
        return self._client.build_request(
            "POST", self._url, headers=headers, json=body, timeout=self._timeout
        )

    def _refusal(self, response: httpx.Response, message: str) -> LlmError:
        status = response.status_code
        said = f"Model {self._model!r} answered {status}: {message}"
        if status in (429, 503):
            return ModelOverloaded(said, _retry_after(response.headers.get("retry-after")))
        return ModelUnavailable(said) if status >= 500 else ModelRejected(said)

    def _last(self, progress: _Progress) -> Delta:
        if progress.finish is None:
            raise _NotSpoken("the stream ended before the output was complete")
        return Delta(
            text="",
            model=self._model,
            finish=progress.finish,
            prompt_tokens=progress.prompt_tokens,
            output_tokens=progress.output_tokens,
        )

    def _translated(self, error: Exception, *, started: bool) -> LlmError:
        slow = isinstance(error, TimeoutError)
        reason = "its time was up" if slow else str(error) or type(error).__name__
        if started:
            return StreamBroken(f"Model {self._model!r} broke off: {reason}.")
        if slow:
            return ModelTimeout(f"Model {self._model!r} sent nothing within the time given.")
        return ModelUnavailable(f"Model {self._model!r} cannot be used: {reason}.")


class _NotSpoken(Exception):
    """The server sent something else than the chat completions stream, or an error inside it."""


async def _drain(pieces: AsyncGenerator[bytes, None]) -> None:
    """Read the end of a finished response, so that its connection can be used again."""
    with suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(0.2):
            await anext(pieces, None)


def _body(model: str, call: Call) -> dict[str, Any]:
    sampling = call.sampling
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": m.role, "content": m.content} for m in call.prompt.messages],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    return body


def _salt(tenant: str) -> str:
    return hashlib.sha256(b"plumbline cache salt\0" + tenant.encode()).hexdigest()[:32]


def _read(data: str, progress: _Progress) -> str:
    """The text of one event; counts and the finish go into `progress`."""
    if data.strip() == "[DONE]":
        progress.done = True
        return ""
    try:
        event = json.loads(data)
        if event.get("error") or event.get("object") == "error":
            raise _NotSpoken(_message(data.encode()))
        usage = event.get("usage") or {}
        progress.prompt_tokens = usage.get("prompt_tokens", progress.prompt_tokens)
        progress.output_tokens = usage.get("completion_tokens", progress.output_tokens)
        choice: dict[str, Any] = next(iter(event.get("choices") or ()), {})
        text = (choice.get("delta") or {}).get("content") or ""
        finish = choice.get("finish_reason")
    except (ValueError, AttributeError, TypeError) as error:
        raise _NotSpoken("an event could not be read") from error
    if finish is not None:
        if finish not in ("stop", "length"):
            raise _NotSpoken(f"the output ended with {finish!r}")
        progress.finish = finish
    return str(text)


def _message(body: bytes) -> str:
    """What a server says in an error body, in whichever of the usual shapes."""
    text = body.decode("utf-8", errors="replace")
    try:
        said = json.loads(text)
        for name in ("error", "message", "detail"):
            if isinstance(said, dict) and said.get(name):
                said = said[name]
        text = said if isinstance(said, str) else json.dumps(said)
    except ValueError:
        pass
    return text.strip()[:_SHOWN] or "no message"


def _retry_after(value: str | None) -> float | None:
    """Seconds, from a number or an HTTP date."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
