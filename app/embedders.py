"""Embedders by the names that releases give them, each loaded once: releases with different ones serve side
by side, and one is loaded before a release that needs it serves."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path

from opentelemetry.trace import Tracer

from app.settings import Settings
from app.tracing import TracedEmbedder
from retrieval.embedders.checkpoint import INT8
from retrieval.embedders.openvino import OpenVinoEmbedder, find_model
from retrieval.types import Embedder

_CONFIG = "config.json"


class Embedders:
    """`instead`, where given, stands in for every one of them."""

    def __init__(self, settings: Settings, tracer: Tracer, instead: Embedder | None = None) -> None:
        self._settings = settings
        self._tracer = tracer
        self._instead = TracedEmbedder(instead, tracer) if instead else None
        self._loaded: dict[str, Embedder] = {}
        self._loading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def get(self, name: str) -> Embedder:
        """Raises `EmbedderUnavailable` when it is not here; the next call looks again."""
        if self._instead:
            return self._instead
        async with self._loading[name]:
            if name not in self._loaded:
                loaded = await asyncio.to_thread(self._load, name)
                self._loaded[name] = TracedEmbedder(loaded, self._tracer)
            return self._loaded[name]

    def _load(self, name: str) -> OpenVinoEmbedder:
        cache = self._settings.data.resolve() / "cache" / "embedders"
        return OpenVinoEmbedder.load(find_embedder(name, self._settings), cache, name)


def find_embedder(name: str, settings: Settings) -> Path:
    """The model's folder: the one of its name in `embedder_path`, or that path itself if it holds a model,
    else an installed package's. Raises `EmbedderUnavailable`."""
    path, name = settings.embedder_path, name.removesuffix(INT8)
    if path is None or (path / name / _CONFIG).is_file():
        return find_model(name, path / name if path else None)
    several = path.is_dir() and not (path / _CONFIG).is_file()
    return find_model(name, None if several else path)
