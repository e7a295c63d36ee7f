"""Rerankers by the name that releases give them, each built once, and how long one may take."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence

import httpx

from app import deadline as time_left
from app import telemetry
from app.ladder import Rung
from app.release import Release, RerankPart
from app.settings import Settings
from retrieval.crossencoder import CrossEncoderReranker
from retrieval.errors import RerankerUnavailable
from retrieval.rerank import Guarded, HttpReranker
from retrieval.types import Reranker

LOCAL = "cross-encoder/"
"""The beginning of names (that of the organisation that publishes them) that are loaded in this process."""

_log = logging.getLogger(__name__)


class Rerankers:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = httpx.AsyncClient(limits=httpx.Limits(max_connections=None))
        self._built: dict[str, Reranker] = {}
        self._building: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def get(self, part: RerankPart | None) -> Reranker | None:
        """The one a release names, if it names one. One that cannot be had here is there all the same and
        never answers, so that searches go on without it and say so."""
        if part is None:
            return None
        async with self._building[part.model]:
            if part.model not in self._built:
                self._built[part.model] = await self._build(part.model)
        return self._built[part.model]

    async def _build(self, name: str) -> Reranker:
        settings = self._settings
        if settings.rerank_url is not None:
            key = settings.rerank_key.get_secret_value() if settings.rerank_key else None
            headers = telemetry.trace_headers
            return Guarded(HttpReranker(settings.rerank_url, name, self._client, key=key, headers=headers))
        if not name.startswith(LOCAL):
            return _absent(name, f"Set PLUMBLINE_RERANK_URL to a server that has {name!r}.")
        try:
            return Guarded(await asyncio.to_thread(CrossEncoderReranker.load, name))
        except RerankerUnavailable as error:
            return _absent(name, str(error))


class Absent:
    """A reranker that is named and cannot be had; `reason` says what to do about it."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self._reason = reason

    async def rerank(self, query: str, texts: Sequence[str], seconds: float) -> Sequence[float]:
        raise RerankerUnavailable(self._reason)


def rerank_seconds(release: Release, deadline: float, rung: Rung = Rung.FULL) -> float:
    """The reranker's share of what is left of the request's time; none under load."""
    part = release.body.rerank
    if part is None or rung >= Rung.NO_RERANK:
        return 0.0
    return part.share * time_left.left(deadline)


def _absent(name: str, reason: str) -> Absent:
    _log.warning("Searches go without reranking: %s", reason)
    return Absent(name, reason)
