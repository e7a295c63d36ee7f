"""A model behind an OpenAI-compatible chat completions URL, streamed; made for vLLM.

Closing the generator closes the connection, by which vLLM knows to stop and free the slot. Nothing is
retried here except a request that was refused for a field that not every server takes: `cache_salt`, which
keeps one tenant from timing another's cached prefixes, `chat_template_kwargs`, which says whether a model is
to think first, `temperature` and `top_p`, which some models fix. A server is not sent again what it refused;
one that wants `max_completion_tokens` gets that.

aiohttp rather than httpx, because a token costs a quarter of the processor time on its way through.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import aiohttp
import orjson

from llm.errors import (
    ContextTooLong,
    LlmError,
    ModelOverloaded,
    ModelRejected,
    ModelTimeout,
    ModelUnavailable,
    StreamBroken,
)
from llm.events import Events, EventTooLong
from llm.thoughts import CLOSE, Thoughts
from llm.types import Call, Delta, Load, Message

logger = logging.getLogger(__name__)

FIRST_TOKEN = 20.0
"""Seconds to the first token, after which another model is the better choice."""
GATHER = 0.02
"""Seconds between two deltas at least: tokens that come faster travel together. Nobody reads faster, and
each delta costs several times what a token in it does. The first is never held back."""
GATHER_EACH = 0.004
"""The same for each stream that is under way: many streams take turns at being sent on,"""
GATHER_MOST = 0.1
"""so long as each still moves ten times a second."""
KEEP_ALIVE = 4.0
"""Seconds that an idle connection is kept: vLLM closes it after 5, and a request must not meet that."""
_END = b"data: [DONE]"
_SHOWN = 500
_ASIDE = 2.0
"""Seconds for a question beside the stream: models, load, tokens."""
_LOAD = re.compile(rb"^vllm:num_requests_(running|waiting)(?:\{[^}\n]*\})? ([0-9.e+]+)", re.MULTILINE)
_TOO_LONG = re.compile(r"maximum context length is (\d+)")
_UNKNOWN = r"(?is)(unsupported|not support).*{0}|{0}.*(unsupported|not support)"
_OPTIONAL = {
    "cache_salt": re.compile("cache_salt"),
    "chat_template_kwargs": re.compile("chat_template"),
    # The value may be wrong, and the field be known.
    "temperature": re.compile(_UNKNOWN.format("temperature")),
    "top_p": re.compile(_UNKNOWN.format("top_p")),
}
"""Fields that only some servers take, and how one says that it does not."""


def new_client() -> aiohttp.ClientSession:
    """A pool of connections without a bound (admission bounds them); the caller closes it."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


@dataclass(slots=True)
class _Progress:
    """What a stream has brought so far. `started` is the answer."""

    thoughts: Thoughts
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
        client: aiohttp.ClientSession | None = None,
        connect_timeout: float = 2.0,
        first_token_timeout: float = FIRST_TOKEN,
        headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._base = url.rstrip("/")
        self._root = self._base.removesuffix("/v1")
        self._model = model
        self._key = key
        self._owned = client is None
        self._client = client
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        self._first_token_timeout = first_token_timeout
        self._headers = headers
        self._fields = dict.fromkeys((*_OPTIONAL, "max_tokens"), True)
        """Whether the server takes them, as far as is known."""
        self._thinks_aloud = False
        self._streams = 0

    def __repr__(self) -> str:
        return f"Vllm({self._base!r}, {self._model!r})"

    @property
    def name(self) -> str:
        return self._model

    @property
    def url(self) -> str:
        return self._base

    async def aclose(self) -> None:
        if self._owned and self._client is not None:
            await self._client.close()
            self._client = None

    async def ping(self) -> None:
        """Raises `ModelUnavailable` when the server does not list its models now."""
        await self._aside("GET", self._base + "/models")

    async def window(self) -> int | None:
        """The most tokens that prompt and answer may have together, where the server says it (vLLM does)."""
        listed = _loaded(await self._aside("GET", self._base + "/models"))
        cards = [card for card in listed.get("data") or () if card.get("id") == self._model]
        return next((int(card["max_model_len"]) for card in cards if card.get("max_model_len")), None)

    async def count(self, messages: Sequence[Message]) -> int | None:
        """Tokens of these messages in the model's own template, by vLLM's `/tokenize`; None where the
        server has none."""
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
        }
        if self._fields["chat_template_kwargs"]:
            # The longer one: it says that there are no thoughts.
            body["chat_template_kwargs"] = _template_options(thinking=False)
        said = _loaded(await self._aside("POST", self._root + "/tokenize", body))
        return int(said["count"]) if "count" in said else None

    async def load(self) -> Load | None:
        """How much the server has to do, by vLLM's own gauges; None when it has none."""
        counts = {b"running": 0, b"waiting": 0}
        found = _LOAD.findall(await self._aside("GET", self._root + "/metrics"))
        for name, value in found:
            counts[name] += int(float(value))
        return (
            Load(running=counts[b"running"], waiting=counts[b"waiting"], at=time.monotonic())
            if found
            else None
        )

    async def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        progress = _Progress(Thoughts(expected=call.sampling.thinking or self._thinks_aloud))
        try:
            async with aclosing(self._deltas(call, progress)) as deltas:
                async for delta in deltas:
                    yield delta
        except (aiohttp.ClientError, TimeoutError, OSError, EventTooLong, _NotSpoken) as error:
            raise self._translated(error, started=progress.started) from error

    async def _deltas(self, call: Call, progress: _Progress) -> AsyncGenerator[Delta, None]:
        clock = asyncio.get_running_loop().time
        begin = clock()
        end, first = begin + call.timeout, begin + min(call.timeout, self._first_token_timeout)
        async with asyncio.timeout_at(first):
            response = await self._open(call)
        watch, events, next_at, waited = _Watch(response, first), Events(), 0.0, True
        self._streams += 1
        try:
            while not progress.done and (piece := await self._read(response, next_at)):
                text, problem = _texts(events.feed(piece), progress)
                if waited and progress.thoughts.begun:
                    waited = False
                    watch.until(end)
                if CLOSE in text and not _is_quoted(call):
                    self._thinks_aloud = True
                    raise _NotSpoken("it thinks before it answers; from now on its thoughts are left out")
                if text:
                    progress.started = True
                    next_at = clock() + max(GATHER, min(self._streams * GATHER_EACH, GATHER_MOST))
                    yield Delta(text=text, model=self._model)
                if problem:
                    raise problem
            await _drain(response)
        except aiohttp.ClientError:
            if watch.late:
                raise TimeoutError from None
            raise
        finally:
            self._streams -= 1
            watch.stop()
            response.close()
        rest = progress.thoughts.finish(cut=progress.finish == "length")
        last = self._last(progress, call, silent=not (progress.started or rest))
        if rest:
            yield Delta(text=rest, model=self._model)
        yield last

    async def _read(self, response: aiohttp.ClientResponse, next_at: float) -> bytes:
        """What came, and, if the last delta left just now, what comes until the next may."""
        piece = await response.content.readany()
        wait = next_at - asyncio.get_running_loop().time()
        if wait <= 0 or not piece or _END in piece:
            return piece
        await asyncio.sleep(wait)
        return piece + response.content.read_nowait()

    async def _open(self, call: Call) -> aiohttp.ClientResponse:
        """The response with its status checked and its body still to come."""
        while True:
            sent = [name for name, known in self._fields.items() if known]
            response = await self._send(call, sent)
            if response.status == 200:
                return response
            async with response:
                message = _message(await response.read())
            refused = _refused(message, sent) if response.status in (400, 422) else []
            if not refused:
                raise self._refusal(response, message)
            self._fields |= dict.fromkeys(refused, False)
            logger.warning("Model %r is sent without %s, which its server refused", self._model, refused)

    async def _send(self, call: Call, fields: Sequence[str]) -> aiohttp.ClientResponse:
        headers = {**self._headers(), "accept": "text/event-stream", "accept-encoding": "identity"}
        return await self._pool().post(
            self._base + "/chat/completions",
            headers=self._authorized({**headers, "content-type": "application/json"}),
            data=orjson.dumps(_body(self._model, call, fields)),
            timeout=self._timeout,
            allow_redirects=False,
        )

    async def _aside(self, method: str, url: str, body: dict[str, Any] | None = None) -> bytes:
        """The body of a short answer; empty when the server does not know the question."""
        timeout = aiohttp.ClientTimeout(total=_ASIDE)
        headers = self._authorized({})
        try:
            async with self._pool().request(
                method, url, headers=headers, json=body, timeout=timeout
            ) as answer:
                if answer.status >= 500:
                    raise ModelUnavailable(f"The server of model {self._model!r} answered {answer.status}.")
                return await answer.read() if answer.status == 200 else b""
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._translated(error, started=False) from error

    def _authorized(self, headers: dict[str, str]) -> dict[str, str]:
        return headers if self._key is None else {**headers, "authorization": f"Bearer {self._key}"}

    def _pool(self) -> aiohttp.ClientSession:
        if self._client is None:
            self._client = new_client()
        return self._client

    def _refusal(self, response: aiohttp.ClientResponse, message: str) -> LlmError:
        status = response.status
        said = f"Model {self._model!r} answered {status}: {message}"
        if status in (429, 503):
            return ModelOverloaded(said, _retry_after(response.headers.get("retry-after")))
        if status == 400 and (limit := _TOO_LONG.search(message)):
            return ContextTooLong(said, limit=int(limit.group(1)))
        return ModelUnavailable(said) if status >= 500 else ModelRejected(said)

    def _last(self, progress: _Progress, call: Call, *, silent: bool) -> Delta:
        if progress.finish is None:
            raise _NotSpoken("the stream ended before the output was complete")
        if silent and progress.thoughts.any:
            raise ModelRejected(
                f"Model {self._model!r} thought, and said nothing within {call.sampling.max_tokens} tokens. "
                "Allow more in the release's [sampling] (`max_tokens`), or no thinking (`thinking = false`)."
            )
        return Delta(
            text="",
            model=self._model,
            finish=progress.finish,
            prompt_tokens=progress.prompt_tokens,
            output_tokens=progress.output_tokens,
        )

    def _translated(self, error: Exception, *, started: bool) -> LlmError:
        slow = isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError)
        reason = "its time was up" if slow else str(error) or type(error).__name__
        if started:
            return StreamBroken(f"Model {self._model!r} broke off: {reason}.")
        if slow:
            return ModelTimeout(f"Model {self._model!r} sent nothing within the time given.")
        return ModelUnavailable(f"Model {self._model!r} cannot be used: {reason}.")


class _Watch:
    """Closes a response at a moment of the loop's clock; one timer for a stream, not one for every token."""

    def __init__(self, response: aiohttp.ClientResponse, moment: float) -> None:
        self.late = False
        self._response = response
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_at(moment, self._close)

    def until(self, moment: float) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_at(moment, self._close)

    def stop(self) -> None:
        self._timer.cancel()

    def _close(self) -> None:
        self.late = True
        self._response.close()


class _NotSpoken(Exception):
    """The server sent something else than the chat completions stream, or an error inside it."""


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read the end of a finished response, so that its connection can be used again."""
    with suppress(aiohttp.ClientError, TimeoutError):
        async with asyncio.timeout(0.2):
            while await response.content.readany():
                pass


def _body(model: str, call: Call, fields: Sequence[str]) -> dict[str, Any]:
    """`fields` are those that the server takes, of those that not every one does."""
    sampling = call.sampling
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": m.role, "content": m.content} for m in call.prompt.messages],
        **{name: getattr(sampling, name) for name in ("temperature", "top_p") if name in fields},
        "max_tokens" if "max_tokens" in fields else "max_completion_tokens": sampling.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if "cache_salt" in fields:
        body["cache_salt"] = _salt(call.scope.tenant)
    if "chat_template_kwargs" in fields:
        body["chat_template_kwargs"] = _template_options(thinking=sampling.thinking)
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.min_tokens:
        body["min_tokens"] = sampling.min_tokens
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    return body


def _is_quoted(call: Call) -> bool:
    """Whether the prompt itself holds the tag with which thoughts end."""
    return any(CLOSE in message.content for message in call.prompt.messages)


def _template_options(*, thinking: bool) -> dict[str, bool]:
    """What templates of models call it: Qwen, GLM and others the one, DeepSeek and Granite the other."""
    return {"enable_thinking": thinking, "thinking": thinking}


def _refused(message: str, sent: Sequence[str]) -> list[str]:
    """Of the fields that were sent, those that the message of a refusal says can be left out."""
    refused = [name for name in sent if name in _OPTIONAL and _OPTIONAL[name].search(message)]
    if "max_tokens" in sent and "max_completion_tokens" in message:
        refused.append("max_tokens")
    return refused


def _salt(tenant: str) -> str:
    return hashlib.sha256(b"plumbline cache salt\0" + tenant.encode()).hexdigest()[:32]


def _texts(events: Sequence[str], progress: _Progress) -> tuple[str, _NotSpoken | None]:
    """The text of events that came together, and what was wrong after it."""
    texts: list[str] = []
    try:
        for data in events:
            texts.append(_read(data, progress))
    except _NotSpoken as problem:
        return "".join(texts), problem
    return "".join(texts), None


def _read(data: str, progress: _Progress) -> str:
    """The text of one event; counts and the finish go into `progress`."""
    if data.strip() == "[DONE]":
        progress.done = True
        return ""
    try:
        event = orjson.loads(data)
        if event.get("error") or event.get("object") == "error":
            raise _NotSpoken(_message(data.encode()))
        usage = event.get("usage") or {}
        progress.prompt_tokens = usage.get("prompt_tokens", progress.prompt_tokens)
        progress.output_tokens = usage.get("completion_tokens", progress.output_tokens)
        choice: dict[str, Any] = next(iter(event.get("choices") or ()), {})
        delta = choice.get("delta") or {}
        text = delta.get("content") or ""
        if not text and (delta.get("reasoning") or delta.get("reasoning_content")):
            progress.thoughts.apart()
        finish = choice.get("finish_reason")
    except (ValueError, AttributeError, TypeError) as error:
        raise _NotSpoken("an event could not be read") from error
    if finish is not None:
        if finish not in ("stop", "length"):
            raise _NotSpoken(f"the output ended with {finish!r}")
        progress.finish = finish
    return progress.thoughts.feed(str(text)) if text else ""


def _loaded(body: bytes) -> dict[str, Any]:
    """A JSON object; an empty one for anything else."""
    try:
        said = orjson.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


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
