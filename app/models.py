"""Models by name, and the chains of them that releases name: servers, breakers, output cache and fallback.

Models are kept over releases, so that a breaker remembers what it saw.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import SecretStr

from app import telemetry
from app.release import EXTRACTIVE, Release
from app.settings import Settings
from app.tracing import TracedModel
from llm.absent import Absent
from llm.breaker import Breaker
from llm.cache import Cached
from llm.errors import ModelUnavailable
from llm.extractive import Extractive
from llm.fallback import Fallback
from llm.replicas import Replica, Replicas
from llm.tokens import Fitted, Tokens
from llm.types import ChatModel, Load, Outputs, Scorer
from llm.vllm import Vllm, new_client

Ping = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Served:
    """A model behind one or several servers."""

    servers: tuple[Vllm, ...]
    replicas: Replicas
    tokens: Tokens
    watching: asyncio.Task[None]

    async def ping(self) -> None:
        """Raises `ModelUnavailable` when none of the servers answers."""
        found = await asyncio.gather(*(server.ping() for server in self.servers), return_exceptions=True)
        if all(isinstance(one, ModelUnavailable) for one in found):
            raise ModelUnavailable(f"No server of model {self.replicas.name!r} answers.")


class Models:
    """Make it in a running loop and close it. `score` is what the built-in model ranks sentences with;
    `product` is part of every cache key; `build`, where given, makes each model in our place."""

    def __init__(
        self,
        settings: Settings,
        score: Scorer,
        outputs: Outputs,
        *,
        product: str,
        build: Callable[[str], ChatModel] | None = None,
    ) -> None:
        self._settings = settings
        self._client = new_client()
        self._score = score
        self._outputs = outputs
        self._product = product
        self._make = build or self._build
        self._served: dict[str, _Served] = {}
        self._built: dict[str, ChatModel] = {}

    async def aclose(self) -> None:
        watching = [served.watching for served in self._served.values()]
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        await self._client.close()

    def chain(self, release: Release) -> ChatModel:
        """The release's models in their order; outputs of the first are kept."""
        first, *others = (self._model(ref.name) for ref in release.body.models)
        kept = Cached(first, self._outputs, ttl=release.body.cache.ttl_seconds, product=self._product)
        return Fallback([kept, *others])

    def health(self, release: Release) -> dict[str, Ping]:
        """A check for each model of a release that has a server."""
        named = [(ref.name, self._served.get(ref.name)) for ref in release.body.models]
        return {f"model:{name}": served.ping for name, served in named if served}

    def load(self) -> Load | None:
        """What all model servers have to do together; None when none of them tells."""
        told = [load for served in self._served.values() if (load := served.replicas.load())]
        if not told:
            return None
        return Load(
            running=sum(load.running for load in told),
            waiting=sum(load.waiting for load in told),
            at=max(load.at for load in told),
        )

    def tokens(self, release: Release) -> Tokens | None:
        """The token budget of the release's first model; None for one that has no server."""
        served = self._served.get(release.body.models[0].name)
        return served.tokens if served else None

    def _model(self, name: str) -> ChatModel:
        if name not in self._built:
            self._built[name] = self._make(name)
        return self._built[name]

    def _build(self, name: str) -> ChatModel:
        tracer = telemetry.tracer()
        if name == EXTRACTIVE:
            return TracedModel(Extractive(self._score), tracer, provider="plumbline")
        urls = self._settings.model_urls(name)
        if not urls:
            return Absent(name, "Set PLUMBLINE_MODEL_URL to a server that has it.")
        self._served[name] = served = self._serve(name, urls)
        return TracedModel(Fitted(served.replicas, served.tokens), tracer, provider="vllm")

    def _serve(self, name: str, urls: tuple[str, ...]) -> _Served:
        key = _secret(self._settings.model_key)
        servers = tuple(
            Vllm(url, name, key=key, client=self._client, headers=telemetry.trace_headers) for url in urls
        )
        replicas = Replicas([Replica(server.url, Breaker(server), server.load) for server in servers])
        watching = asyncio.get_running_loop().create_task(replicas.watch(), name=f"load of {name}")
        return _Served(servers, replicas, Tokens(servers), watching)


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value else None
