"""A cross-encoder in this process, by sentence-transformers (the `torch` extra).

The only module that imports sentence-transformers, and only when one is built: nothing else needs torch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from retrieval.errors import RerankerUnavailable
from retrieval.rerank import squashed

_BATCH = 16


class CrossEncoderReranker:
    """Reads query and text together. One thread runs it, because torch uses every core for one batch; a
    caller who gives up frees it after the batch that is running."""

    def __init__(self, name: str, model: Any) -> None:
        self._name = name
        self._model = model
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reranker")

    @classmethod
    def load(cls, name: str) -> CrossEncoderReranker:
        """The model of that name, or in that folder. Blocks for seconds. Raises `RerankerUnavailable`."""
        try:
            from sentence_transformers import CrossEncoder
        except ImportError:
            raise RerankerUnavailable(
                f"{name!r} needs sentence-transformers: pip install 'plumbline[torch]'."
            ) from None
        try:
            return cls(name, CrossEncoder(name))
        except (OSError, ValueError, RuntimeError) as error:
            raise RerankerUnavailable(f"The cross-encoder {name!r} cannot be loaded: {error}") from error

    @property
    def name(self) -> str:
        return self._name

    async def rerank(self, query: str, texts: Sequence[str], seconds: float) -> Sequence[float]:
        loop = asyncio.get_running_loop()
        scores: list[float] = []
        try:
            async with asyncio.timeout(seconds):
                for start in range(0, len(texts), _BATCH):
                    batch = [(query, text) for text in texts[start : start + _BATCH]]
                    scores += await loop.run_in_executor(self._thread, self._predict, batch)
        except TimeoutError as error:
            raise RerankerUnavailable(f"The cross-encoder {self._name!r} was too slow.") from error
        return squashed(scores)

    def _predict(self, pairs: list[tuple[str, str]]) -> list[float]:
        try:
            return [float(score) for score in self._model.predict(pairs, show_progress_bar=False)]
        except RuntimeError as error:
            raise RerankerUnavailable(f"The cross-encoder {self._name!r} failed: {error}") from error
