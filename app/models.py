"""Models by name, and the chains of them that releases name: breaker, output cache and fallback around each.

Models are kept over releases, so that a breaker remembers what it saw.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx
from pydantic import SecretStr

from app import telemetry
from app.release import EXTRACTIVE, Release
from app.settings import Settings
from app.tracing import TracedModel
from llm.absent import Absent
from llm.breaker import Breaker
from llm.cache import Cached
from llm.extractive import Extractive
from llm.fallback import Fallback
from llm.types import ChatModel, Outputs, Scorer
from llm.vllm import Vllm

Ping = Callable[[], Awaitable[None]]


class Models:
    """`client` stays the caller's to close; `score` is what the built-in model ranks sentences with;
    `product` is part of every cache key."""

    def __init__(
        self, settings: Settings, client: httpx.AsyncClient, score: Scorer, outputs: Outputs, *, product: str
    ) -> None:
        self._settings = settings
        self._client = client
        self._score = score
        self._outputs = outputs
        self._product = product
        self._served: dict[str, Vllm] = {}
        self._built: dict[str, ChatModel] = {}

    def chain(self, release: Release) -> ChatModel:
        """The release's models in their order; outputs of the first are kept."""
        first, *others = (self._model(ref.name) for ref in release.body.models)
        kept = Cached(first, self._outputs, ttl=release.body.cache.ttl_seconds, product=self._product)
        return Fallback([kept, *others])

    def health(self) -> dict[str, Ping]:
        """A check for each server that a release named so far."""
        return {f"model:{name}": served.ping for name, served in self._served.items()}

    def _model(self, name: str) -> ChatModel:
        if name not in self._built:
            self._built[name] = self._build(name)
        return self._built[name]

    def _build(self, name: str) -> ChatModel:
        tracer = telemetry.tracer()
        if name == EXTRACTIVE:
            return TracedModel(Extractive(self._score), tracer, provider="plumbline")
        if self._settings.model_url is None:
            return Absent(name, "Set PLUMBLINE_MODEL_URL to a server that has it.")
        self._served[name] = served = Vllm(
            self._settings.model_url,
            name,
            key=_secret(self._settings.model_key),
            client=self._client,
            headers=telemetry.trace_headers,
        )
        return TracedModel(Breaker(served), tracer, provider="vllm")


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value else None
