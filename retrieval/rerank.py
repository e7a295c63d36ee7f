"""Rerankers behind a `/v1/rerank` URL, and the guard that spares searches from waiting for a dead one.

The shape is Jina's and Cohere's: query and documents in; index and relevance score out. vLLM speaks it, and
Text Embeddings Inference with other names for the same things.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from retrieval.errors import RerankerUnavailable
from retrieval.types import Reranker


class HttpReranker:
    """`url` ends in `/v1`, or is the whole address of the endpoint, ending in `/rerank`. The client stays the
    caller's to close."""

    def __init__(
        self,
        url: str,
        model: str,
        client: httpx.AsyncClient,
        *,
        key: str | None = None,
        headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        base = url.rstrip("/")
        self._url = base if base.endswith("/rerank") else f"{base}/rerank"
        self._model = model
        self._client = client
        self._key = key
        self._headers = headers

    def __repr__(self) -> str:
        return f"HttpReranker({self._url!r}, {self._model!r})"

    @property
    def name(self) -> str:
        return self._model

    async def rerank(self, query: str, texts: Sequence[str], seconds: float) -> Sequence[float]:
        # TEI calls documents `texts`; it and the others ignore what they do not know.
        asked = list(texts)
        body = {"model": self._model, "query": query, "documents": asked, "texts": asked, "top_n": len(asked)}
        headers = dict(self._headers())
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        try:
            async with asyncio.timeout(seconds):
                response = await self._client.post(self._url, json=body, headers=headers, timeout=seconds)
        except (httpx.HTTPError, TimeoutError) as error:
            raise RerankerUnavailable(f"Reranker {self._model!r}: {type(error).__name__}.") from error
        if response.status_code != 200:
            raise RerankerUnavailable(f"Reranker {self._model!r} answered {response.status_code}.")
        return squashed(self._scores(response, len(asked)))

    def _scores(self, response: httpx.Response, count: int) -> list[float]:
        try:
            body = response.json()
            results = body["results"] if isinstance(body, dict) else body
            found = {int(result["index"]): _score(result) for result in results}
            scores = [found[index] for index in range(count)]
        except (ValueError, TypeError, KeyError) as error:
            raise RerankerUnavailable(f"Reranker {self._model!r} sent no score for every text.") from error
        if not all(map(math.isfinite, scores)):
            raise RerankerUnavailable(f"Reranker {self._model!r} sent a score that is no number.")
        return scores


class Guarded:
    """A reranker that is left alone for `pause` seconds after it failed.

    One that was given less than `patience` seconds and did not answer in them is not to blame: a caller with
    little time must not take it away from the others.
    """

    def __init__(
        self,
        reranker: Reranker,
        *,
        pause: float = 10.0,
        patience: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reranker = reranker
        self._pause = pause
        self._patience = patience
        self._clock = clock
        self._until = -math.inf

    @property
    def name(self) -> str:
        return self._reranker.name

    async def rerank(self, query: str, texts: Sequence[str], seconds: float) -> Sequence[float]:
        begin = self._clock()
        if begin < self._until:
            raise RerankerUnavailable(f"Reranker {self.name!r} failed a moment ago and is being left alone.")
        try:
            async with asyncio.timeout(seconds):
                return await self._reranker.rerank(query, texts, seconds)
        except TimeoutError as error:
            self._blame(begin, seconds)
            raise RerankerUnavailable(f"Reranker {self.name!r} did not answer in time.") from error
        except RerankerUnavailable:
            self._blame(begin, seconds)
            raise

    def _blame(self, begin: float, seconds: float) -> None:
        ran_out = self._clock() - begin >= 0.9 * seconds
        if not ran_out or seconds >= self._patience:
            self._until = self._clock() + self._pause


def squashed(scores: Sequence[float]) -> list[float]:
    """The scores as they are when all lie in [0, 1], else through the logistic function: some servers send a
    cross-encoder's logits. The order stays."""
    if all(0 <= score <= 1 for score in scores):
        return list(scores)
    return [(1 + math.tanh(score / 2)) / 2 for score in scores]


def _score(result: Mapping[str, Any]) -> float:
    return float(result["relevance_score"] if "relevance_score" in result else result["score"])
