"""The judge: a model behind an OpenAI-compatible URL that is asked for verdicts in JSON, each kept on disk.

Whoever judges must not disturb whoever answers: few calls at once, with low priority where the server takes
one, and none while requests wait in its queue. What fails is one `JudgeFailed` with a sentence, never a
verdict; a judge that is away is found out once and not waited for again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx

from eval.types import EvalError, JudgeFailed

VERSION = 1
"""Of the way in which prompts are sent: another one makes other verdicts."""
ATTEMPTS = 3
OUTAGES = 8
"""Calls in a row that found no server, after which it is away."""
PATIENCE = 120.0
"""Seconds that a call waits for the server's queue to empty."""
POLL = 0.5
PRIORITY = 100
"""vLLM serves the lowest number first; readers' questions have 0."""
VARIED = 0.7
"""Temperature where a verdict is asked for more than once; else it is 0."""
_WAITING = re.compile(r"^vllm:num_requests_waiting(?:\{[^}\n]*\})? ([0-9.e+]+)", re.MULTILINE)
_NAME = re.compile(r"[^A-Za-z0-9_-]")
_BUSY: Final = frozenset({429, 500, 502, 503, 504})

T = TypeVar("T")
Schema = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a reply may hold at most: characters of a text, items of a list, tokens of all. A model that
    knows no end fills every one of them."""

    characters: int = 800
    items: int = 24
    tokens: int = 3_000


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSettings:
    """`url` ends in /v1. `repeats` is how often each verdict is asked for, `timeout` the seconds of a call,
    `cache` the folder that keeps verdicts, None for none."""

    url: str
    model: str
    key: str | None = None
    repeats: int = 1
    concurrency: int = 4
    timeout: float = 120.0
    cache: Path | None = None
    bounds: Bounds = Bounds()

    def __repr__(self) -> str:
        return f"JudgeSettings({self.name} at {self.url})"

    @property
    def name(self) -> str:
        """How a report names it."""
        return f"{self.model} x{self.repeats}"

    @property
    def temperature(self) -> float:
        return VARIED if self.repeats > 1 else 0.0


def judge_settings(
    *, url: str | None, model: str | None, key: str | None, repeats: int, cache: Path
) -> JudgeSettings | None:
    """None when no judge is named. Raises `EvalError` for half of one."""
    if not url and not model:
        return None
    if not url or not model:
        raise EvalError("A judge needs both a URL and a model: --judge-url and --judge-model.")
    if not url.startswith(("http://", "https://")):
        raise EvalError(f"--judge-url is no URL like http://127.0.0.1:8000/v1: {url}")
    return JudgeSettings(url=url.rstrip("/"), model=model, key=key or None, repeats=repeats, cache=cache)


class Judge:
    """Leaving the block closes its connections."""

    def __init__(self, settings: JudgeSettings) -> None:
        self.settings = settings
        headers = {"Authorization": f"Bearer {settings.key}"} if settings.key else {}
        self._client = httpx.AsyncClient(headers=headers, timeout=settings.timeout, trust_env=False)
        self._turn = asyncio.Semaphore(settings.concurrency)
        self._verdicts = Verdicts(settings.cache)
        self._gauges = True
        self._priority = True
        self._outages = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def ask(self, prompt: str, schema: Schema, accept: Callable[[str], T], *, repeat: int = 0) -> T:
        """The reply to a prompt, in JSON of this schema within the bounds, as `accept` reads it. What it
        refuses with a ValueError is no verdict. Raises `JudgeFailed`."""
        body = self._body(prompt, schema, repeat)
        key = _key(body)
        kept = self._verdicts.get(key)
        if kept is not None:
            with suppress(ValueError):  # a file that was cut off is none
                return accept(kept)
        async with self._turn:
            self._require_there()
            await self._quiet()
            text = await self._reply(body)
        try:
            verdict = accept(text)
        except ValueError as error:
            raise JudgeFailed(f"The judge's reply is no verdict: {_line(error)}") from None
        self._verdicts.put(key, text)
        return verdict

    def _body(self, prompt: str, schema: Schema, repeat: int) -> dict[str, Any]:
        settings = self.settings
        name = _NAME.sub("-", str(schema.get("title", "verdict")))[:64]
        form = {"name": name, "schema": bounded(schema, settings.bounds)}
        return {
            "model": settings.model,
            "messages": [{"role": "user", "content": prompt}],
            "response_format": {"type": "json_schema", "json_schema": form},
            "temperature": settings.temperature,
            "seed": repeat,
            "max_tokens": settings.bounds.tokens,
        }

    async def _quiet(self) -> None:
        """Wait while requests wait at the server; one without gauges is asked only once."""
        end = asyncio.get_running_loop().time() + PATIENCE
        while self._gauges and await self._waiting():
            if asyncio.get_running_loop().time() > end:
                raise JudgeFailed(f"Requests waited at the judge's server for {PATIENCE:.0f} s.")
            await asyncio.sleep(POLL)

    async def _waiting(self) -> float:
        try:
            response = await self._client.get(f"{self.settings.url.removesuffix('/v1')}/metrics", timeout=5)
        except httpx.HTTPError:
            return 0.0  # the call itself will tell
        found = _WAITING.findall(response.text) if response.is_success else []
        self._gauges = bool(found)
        return sum(map(float, found))

    def _require_there(self) -> None:
        if self._outages >= OUTAGES:
            raise JudgeFailed("The judge is away: it was not reached several times in a row.")

    async def _reply(self, body: dict[str, Any]) -> str:
        try:
            async with asyncio.timeout(self.settings.timeout):
                response = await self._patiently(body)
        except TimeoutError:
            self._outages += 1
            raise JudgeFailed(f"The judge did not reply within {self.settings.timeout:g} s.") from None
        except httpx.HTTPError as error:
            self._outages += 1
            raise JudgeFailed(f"The judge was not reached: {type(error).__name__} {error}".rstrip()) from None
        self._outages = 0
        return _content(response)

    async def _patiently(self, body: dict[str, Any]) -> httpx.Response:
        for attempt in range(1, ATTEMPTS + 1):
            response = await self._post(body)
            if response.status_code not in _BUSY or attempt == ATTEMPTS:
                break
            await asyncio.sleep(POLL * 2**attempt)
        return response

    async def _post(self, body: dict[str, Any]) -> httpx.Response:
        """With a low priority, unless the server has refused one before."""
        url = f"{self.settings.url}/chat/completions"
        if self._priority:
            response = await self._client.post(url, json={**body, "priority": PRIORITY})
            if not (response.status_code in (400, 422) and "priority" in response.text.lower()):
                return response
            self._priority = False
        return await self._client.post(url, json=body)


class Verdicts:
    """A file for each reply, under the hash of all that went into it."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, key: str) -> str | None:
        if self._folder is None:
            return None
        try:
            return self._path(self._folder, key).read_text(encoding="utf-8")
        except OSError:
            return None

    def put(self, key: str, text: str) -> None:
        if self._folder is None:
            return
        path = self._path(self._folder, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            file.write(text)
        Path(file.name).replace(path)

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.json"


def bounded(schema: Schema, bounds: Bounds) -> Schema:
    """The schema with an end to every text and list, nothing beside the named fields, and whole numbers
    that are 0 or 1, as all of RAGAS's verdicts are. Lists are not empty: their mean would be none."""
    found = {name: _inner(value, bounds) for name, value in schema.items()}
    kind = found.get("type")
    if kind == "string":
        found.setdefault("maxLength", bounds.characters)
    elif kind == "array":
        found |= {"minItems": 1, "maxItems": bounds.items}
    elif kind == "integer":
        found |= {"minimum": 0, "maximum": 1}
    elif kind == "object":
        found["additionalProperties"] = False
    return found


def _inner(value: Any, bounds: Bounds) -> Any:
    if not isinstance(value, dict):
        return value
    if "type" in value or "$ref" in value:
        return bounded(value, bounds)
    return {name: _inner(item, bounds) for name, item in value.items()}


def _key(body: Mapping[str, Any]) -> str:
    """Model, prompt, schema, sampling and repeat are all in the body."""
    return hashlib.sha256(json.dumps([VERSION, body], sort_keys=True).encode()).hexdigest()


def _content(response: httpx.Response) -> str:
    if response.is_error:
        raise JudgeFailed(f"The judge replied {response.status_code}: {_line(response.text)}")
    try:
        [choice, *_] = response.json()["choices"]
        text, finish = choice["message"]["content"], choice["finish_reason"]
    except (ValueError, KeyError, TypeError) as error:
        raise JudgeFailed(f"The judge's reply has no {_line(error)}.") from None
    if finish == "length":
        raise JudgeFailed("The judge's reply ended by the limit of tokens.")
    if not isinstance(text, str):
        raise JudgeFailed("The judge's reply has no text.")
    return text


def _line(value: object) -> str:
    return " ".join(str(value).split())[:300]
