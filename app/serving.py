"""A release made ready to serve: its index and its models."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from app.release import Release
from llm.types import ChatModel
from retrieval.search import Index


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """`model` is the whole chain (fallbacks, breakers and output cache inside)."""

    release: Release
    index: Index
    model: ChatModel

    @property
    def first_model(self) -> str:
        return self.release.body.models[0].name


Current = Callable[[], Serving]
"""The release that serves now; asked once at the start of every request."""


@dataclass(slots=True)
class Stages:
    """Seconds spent in each named stage of one request."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - begin)

    def add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + seconds, 6)


class Servings:
    """Follows the champion: its `Serving` is built when it is first asked for, and kept until it changes.

    Building is cheap: embedders are loaded before a release may become champion, clients connect late.
    """

    def __init__(self, champion: Callable[[], Release], build: Callable[[Release], Serving]) -> None:
        self._champion = champion
        self._build = build
        self._serving = build(champion())

    def current(self) -> Serving:
        release = self._champion()
        if release.fingerprint != self._serving.release.fingerprint:
            self._serving = self._build(release)
        return self._serving


def degraded(*parts: tuple[str, ...]) -> tuple[str, ...]:
    """What several stages had to do without, each named once, in order."""
    return tuple(dict.fromkeys(name for part in parts for name in part))
