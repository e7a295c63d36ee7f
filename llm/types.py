"""The words of generation: prompts, calls, streamed deltas.

Imports nothing of the project. A model is anything with `stream`; behaviour is added by wrapping
(`Fallback([Cached(Breaker(Vllm)), Breaker(Vllm), Extractive])`), never by flags.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A numbered source in a prompt; `number` is what `[n]` in the answer refers to, from 1."""

    number: int
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """Rendered messages and the name and version (hash) of the template they came from."""

    name: str
    version: str
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """`min_tokens` is a field of vLLM; it is sent only where it is not 0. `thinking`: a model that can think
    before it answers does; its thoughts count as output tokens, and go nowhere."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    min_tokens: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    thinking: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """On what a cached output may be shared: the same tenant, rights, release, product and evidence.

    `rights` is a digest of the caller's groups; `release` the fingerprint with the product version;
    `evidence` the ids of the chunks in the prompt (they carry the revision). `documents` are the ids of
    the documents that these come from: no part of what is shared, only for erasing it.
    """

    tenant: str
    rights: str
    release: str
    evidence: tuple[str, ...]
    documents: tuple[str, ...] = ()


Caching = Literal["use", "fill", "off"]
"""What a request does with kept outputs: read and write them, only write them, or neither."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to a model. `timeout` is what is left of the deadline, in seconds, for the whole
    stream. `spare` is how many models of a chain are left out from the front, to spare them under load."""

    prompt: Prompt
    sampling: Sampling
    scope: Scope
    timeout: float
    cache: Caching = "use"
    spare: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A piece of output. The last delta of a stream has `finish`; counts are known there at the latest.

    `model` is the model that really answered; `cached` says that the output came from the cache.
    """

    text: str
    model: str
    finish: Literal["stop", "length"] | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a server has to do: requests that run in it and that wait in it, as it said at `at` (seconds of
    the monotonic clock)."""

    running: int
    waiting: int
    at: float


class ChatModel(Protocol):
    @property
    def name(self) -> str: ...

    def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        """Stream the output. Before the first delta any `LlmError` may be raised; after it only
        `StreamBroken`. Closing the generator frees the model's slot: whoever iterates closes it
        (`contextlib.aclosing`), since the garbage collector would do so too late."""
        ...


Scorer = Callable[[str, str, Sequence[str]], Awaitable[Sequence[float]]]
"""Given a tenant, a question and sentences of that tenant's: the similarity in [-1, 1] of the question to
each; the composition root lends an embedder as one."""


class Outputs(Protocol):
    """A cache of finished outputs. It never raises: an outage is a miss, and `available` says so."""

    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, value: bytes, ttl: float, documents: Sequence[str] = ()) -> None:
        """Keep a value for `ttl` seconds; `documents` (`tenant/document id`) are what it was made from."""
        ...

    async def available(self) -> bool: ...
