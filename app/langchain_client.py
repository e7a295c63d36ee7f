"""What users of LangChain get: a retriever and a tool that speak to a running service over HTTP.

For their programs, with the extra `langchain`; nothing of the service imports it, and it imports nothing of
the service. Whatever goes wrong is one of these, in the service's own sentence where it gave one:

PlumblineError   the base; a `ToolException`, so that `handle_tool_error` shows an agent the sentence
├── Unreachable  nobody answers at the address, or the connection broke: try again later
├── TimedOut     there was no answer within `timeout`
├── Busy         429 or 503, still so after every retry: try again in `retry_after` seconds
├── Denied       401 or 403: the key is missing, wrong, or may not do this
├── Refused      another 4xx: the request is at fault, and will be refused again
└── Broken       the answer is none of Plumbline's, or the service failed
"""

from __future__ import annotations

import re
import ssl
import time
from asyncio import sleep
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal

import httpx
from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    AsyncCallbackManagerForToolRun,
    CallbackManagerForRetrieverRun,
    CallbackManagerForToolRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import ArgsSchema, BaseTool, ToolException
from pydantic import AfterValidator, BaseModel, Field, SecretStr

PATIENCE = 1.0
"""Seconds before the first retry where the service does not say how many; twice as many before each next."""
GRACE = 1.0
"""Seconds beyond `timeout` that are waited for the service's own sentence about it."""
_KEY = re.compile(r"[\x21-\x7e]+")


class PlumblineError(ToolException):
    """`status` and `code` are the answer's, 0 and empty where there was none; `retry_after` is in seconds."""

    def __init__(self, message: str, status: int = 0, code: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after


class Unreachable(PlumblineError):
    pass


class TimedOut(PlumblineError):
    pass


class Busy(PlumblineError):
    pass


class Denied(PlumblineError):
    pass


class Refused(PlumblineError):
    pass


class Broken(PlumblineError):
    pass


def _address(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"is no address: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError("is no address of a service: write one as http://127.0.0.1:8080")
    return url.rstrip("/")


def _sendable(key: SecretStr) -> SecretStr:
    if not _KEY.fullmatch(key.get_secret_value()):
        raise ValueError("holds what no key does: a space, a line break, or a character beyond ASCII")
    return key


class _Caller(BaseModel):
    """Of one service, as somebody, about a part of the documents. What is None is not asked for; an empty
    list is sent, and refused, since who computes a list and finds none does not mean everything."""

    url: Annotated[str, AfterValidator(_address)] = "http://127.0.0.1:8080"
    key: Annotated[SecretStr, AfterValidator(_sendable)] | None = None
    timeout: float = Field(default=60.0, gt=0, le=600, description="Seconds for all, retries included.")
    retries: int = Field(default=3, ge=0, description="How often a busy service is asked again.")
    model: str = Field(default="plumbline", description="`plumbline`, or `plumbline@RELEASE`.")
    collections: list[str] | None = Field(default=None, description="Where to look; None: everywhere.")
    filter: dict[str, Any] | None = Field(default=None, description="On metadata, as the service has it.")

    def _selection(self) -> dict[str, Any]:
        wishes = {"collections": self.collections, "filter": self.filter}
        return {name: wish for name, wish in wishes.items() if wish is not None}

    # A client for each call: retrievers and tools have no end at which one that is kept could be closed.
    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        attempts = self._attempts()
        with _failures(self.url), httpx.Client(**self._options()) as client:
            while True:
                response = client.post(path, json=body, headers=attempts.headers(), timeout=attempts.wait())
                if (pause := attempts.pause(response)) is None:
                    return _read(response)
                time.sleep(pause)

    async def _apost(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        attempts = self._attempts()
        with _failures(self.url):
            async with httpx.AsyncClient(**self._options()) as client:
                while True:
                    response = await client.post(
                        path, json=body, headers=attempts.headers(), timeout=attempts.wait()
                    )
                    if (pause := attempts.pause(response)) is None:
                        return _read(response)
                    await sleep(pause)

    def _attempts(self) -> _Attempts:
        return _Attempts(time.monotonic() + self.timeout, self.retries)

    def _options(self) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.key.get_secret_value()}"} if self.key else {}
        return {"base_url": self.url, "headers": headers, "trust_env": False, "verify": _certificates()}


class PlumblineRetriever(_Caller, BaseRetriever):
    """The passages of `POST /v1/search`, best first, those that the key may read.

    `limit` None leaves their number to the release; `group="document"` gives the best passage of each
    document. Of each `Document`, `id` is the passage's and `metadata` has: `title`, `heading`, `score`,
    `document_id`, `chunk_id`, `page` (None where there are none), `span` (`start` and `end` in the document's
    text, in characters), `collection`, `metadata` (the document's own), `release`, and `degraded` (what the
    search had to do without). Raises `PlumblineError`.
    """

    limit: int | None = None
    group: Literal["chunk", "document"] = "chunk"

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return self._documents(self._post("/v1/search", self._search(query)))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        return self._documents(await self._apost("/v1/search", self._search(query)))

    def _search(self, query: str) -> dict[str, Any]:
        body = {"query": query, "model": self.model, "group": self.group, **self._selection()}
        return body if self.limit is None else {**body, "limit": self.limit}

    def _documents(self, found: dict[str, Any]) -> list[Document]:
        with _expected(self.url):
            of_all = {"release": found["release"], "degraded": found["degraded"]}
            return [_document(hit, of_all) for hit in found["hits"]]


class Asked(BaseModel):
    """What an agent gives the tool."""

    question: str = Field(description="A whole question, in plain words, that can stand alone.")


class PlumblineTool(_Caller, BaseTool):
    """The cited answer of `POST /v1/chat/completions`, for an agent.

    The message's content is the answer with its markers, and a line for each source that they name; its
    artifact is the reply's `plumbline` object (citations, release, degraded, support and so on). Raises
    `PlumblineError`.
    """

    name: str = "ask_documents"
    description: str = (
        "Answers a question from the organisation's own documents and names its sources, or says that they "
        "do not hold the answer."
    )
    args_schema: ArgsSchema | None = Asked
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"

    def _run(
        self, question: str, run_manager: CallbackManagerForToolRun | None = None
    ) -> tuple[str, dict[str, Any]]:
        return self._answer(self._post("/v1/chat/completions", self._chat(question)))

    async def _arun(
        self, question: str, run_manager: AsyncCallbackManagerForToolRun | None = None
    ) -> tuple[str, dict[str, Any]]:
        return self._answer(await self._apost("/v1/chat/completions", self._chat(question)))

    def _chat(self, question: str) -> dict[str, Any]:
        messages = [{"role": "user", "content": question}]
        return {"model": self.model, "messages": messages, "plumbline": self._selection()}

    def _answer(self, reply: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        with _expected(self.url):
            told: dict[str, Any] = reply["plumbline"]
            lines = [reply["choices"][0]["message"]["content"], *map(_source, told["citations"])]
            if told["degraded"]:
                lines.append(f"(Answered without: {', '.join(told['degraded'])}.)")
        return "\n".join(lines), told


@dataclass(slots=True)
class _Attempts:
    """Of one call, until `end` (of the monotonic clock) or until `left` of them were used up."""

    end: float
    left: int
    _patience: float = field(default=PATIENCE)

    def headers(self) -> dict[str, str]:
        """The service gives up when its caller does."""
        return {"X-Request-Timeout": f"{self._rest():.3f}"}

    def wait(self) -> float:
        return self._rest() + GRACE

    def pause(self, response: httpx.Response) -> float | None:
        """Seconds until the next attempt, None where this response is the last word."""
        if response.status_code not in (429, 503) or self.left == 0:
            return None
        seconds = _retry_after(response) or self._patience
        if seconds >= self._rest():
            return None
        self.left -= 1
        self._patience *= 2
        return seconds

    def _rest(self) -> float:
        return max(self.end - time.monotonic(), 0.001)


@cache
def _certificates() -> ssl.SSLContext:
    """Read once: that takes longer than a search."""
    return httpx.create_ssl_context(trust_env=False)


@contextmanager
def _failures(url: str) -> Iterator[None]:
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout):
        raise Unreachable(f"Nothing answers at {url}.") from None
    except httpx.TimeoutException:
        raise TimedOut(f"The service at {url} took too long to answer.") from None
    except httpx.TransportError as error:
        raise Unreachable(f"The connection to {url} broke ({type(error).__name__}).") from None


@contextmanager
def _expected(url: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, IndexError, TypeError):
        raise Broken(f"{url} did not answer as Plumbline does. Is this address Plumbline's?") from None


def _read(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_success and isinstance(body, dict):
        return body
    status, code = response.status_code, ""
    sentence = f"{response.request.url} answered {status}, not as Plumbline does. Is this its address?"
    if isinstance(body, dict) and isinstance(error := body.get("error"), dict):
        sentence, code = str(error.get("message") or sentence), str(error.get("code") or "")
    raise _kind(status)(sentence, status, code, _retry_after(response) or 0.0)


def _kind(status: int) -> type[PlumblineError]:
    if status in (429, 503):
        return Busy
    if status in (401, 403):
        return Denied
    if status == 504:
        return TimedOut
    return Refused if 400 <= status < 500 else Broken


def _retry_after(response: httpx.Response) -> float | None:
    """In seconds. A date, which the service never gives, counts as none."""
    told = response.headers.get("retry-after", "")
    return float(told) if told.isascii() and told.isdigit() else None


def _document(hit: dict[str, Any], of_all: dict[str, Any]) -> Document:
    return Document(
        page_content=hit["text"],
        id=hit["chunk_id"],
        metadata={**{name: value for name, value in hit.items() if name != "text"}, **of_all},
    )


def _source(citation: dict[str, Any]) -> str:
    page = f", page {citation['page']}" if citation["page"] is not None else ""
    return f"[{citation['number']}] {citation['title']}{page} ({citation['document_id']})"
