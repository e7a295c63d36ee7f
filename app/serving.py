"""A release made ready to serve: its index and its models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from app.release import Release
from llm.types import ChatModel
from retrieval.search import Index

KEPT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """`model` is the whole chain (fallbacks, breakers and output cache inside)."""

    release: Release
    index: Index
    model: ChatModel

    @property
    def first_model(self) -> str:
        return self.release.body.models[0].name

    def other_model(self, name: str) -> tuple[str, ...]:
        """What is told in `degraded` of the model that answered: nothing of the release's first."""
        return () if name == self.first_model else (f"model:{name}",)


Current = Callable[[], Serving]
"""The release that serves now; asked once at the start of every request."""


@dataclass(slots=True)
class Stages:
    """Seconds spent in each named stage of one request."""

    seconds: dict[str, float] = field(default_factory=dict)

    def measure(self, stage: str) -> _Measured:
        return _Measured(self, stage)

    def add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + seconds, 6)


class _Measured:
    """A block whose time counts as a stage's. Every question passes seven: a generator would cost double."""

    __slots__ = ("_begin", "_stage", "_stages")

    def __init__(self, stages: Stages, stage: str) -> None:
        self._stages = stages
        self._stage = stage

    def __enter__(self) -> None:
        self._begin = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._stages.add(self._stage, time.perf_counter() - self._begin)


class Servings:
    """Releases made ready to serve, and which of them serves: the champion, as soon as it is ready.

    `build` may load an embedder; the last few are kept, so that rolling back takes no time.
    """

    def __init__(
        self, champion: Callable[[], Release], build: Callable[[Release], Awaitable[Serving]]
    ) -> None:
        self._champion = champion
        self._build = build
        self._ready: dict[str, Serving] = {}
        self._building = asyncio.Lock()
        self._current: tuple[Release, Serving] | None = None

    async def prepare(self, release: Release) -> None:
        """Make it ready; raises what keeps it from serving."""
        name = release.fingerprint
        async with self._building:
            if name not in self._ready:
                self._ready[name] = await self._build(release)
            self._ready[name] = self._ready.pop(name)
            for oldest in list(self._ready)[:-KEPT]:
                del self._ready[oldest]

    def ready(self, release: Release) -> Serving | None:
        """The release ready to serve; None when it is not, or no longer."""
        return self._ready.get(release.fingerprint)

    def current(self) -> Serving:
        """The champion's, which was prepared before it became champion."""
        release = self._champion()
        if self._current is None or self._current[0] is not release:
            self._current = (release, self._ready[release.fingerprint])
        return self._current[1]


def degraded(*parts: tuple[str, ...]) -> tuple[str, ...]:
    """What several stages had to do without, each named once, in order."""
    return tuple(dict.fromkeys(name for part in parts for name in part))
