"""How close sentences are to a text by an embedder, for the built-in model and for the check of answers.

Sentences of documents come again with every question about them, so their vectors are kept: at most `most`,
the longest unused out first. The key holds the tenant, so that nobody can tell by the time that an answer
takes whether another tenant has the same sentence; of the text it holds a digest only.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from retrieval.embedders.prefixed import fitted
from retrieval.types import Embedder, Matrix, Side, Vector

_MUCH = 16_384
"""Characters from which they are cut beside the event loop: a request may bring 4 million, whose tokens take
more than a second to find, and every other request would wait for it."""


class Similarity:
    """Cosines of a text to sentences of documents; `side` is what the text is. With 384 dimensions, 8 192
    vectors take 13 MB."""

    def __init__(self, embedder: Embedder, side: Side = "query", *, most: int = 8_192) -> None:
        self._embedder = embedder
        self._side = side
        self._kept: OrderedDict[bytes, Vector] = OrderedDict()
        self._most = most

    async def score(self, tenant: str, text: str, sentences: Sequence[str]) -> Sequence[float]:
        """The cosine of `text` to each sentence, in [-1, 1]. What exceeds the embedder's window is cut off.

        Raises `EmbedderUnavailable`."""
        keys = [_key(tenant, sentence) for sentence in sentences]
        missing = dict(zip(keys, sentences, strict=True))
        held = {key: vector for key in missing if (vector := self._kept.get(key)) is not None}
        wanted = [key for key in missing if key not in held]
        made = await self._embedded(text, [missing[key] for key in wanted])
        held.update(zip(wanted, made[1:], strict=True))
        self._keep(held)
        scores: list[float] = (np.array([held[key] for key in keys]) @ made[0]).tolist() if keys else []
        return scores

    async def _embedded(self, text: str, sentences: Sequence[str]) -> Matrix:
        """In one call, since each waits for its turn."""
        much = len(text) + sum(map(len, sentences)) >= _MUCH
        read = await asyncio.to_thread(self._read, text, sentences) if much else self._read(text, sentences)
        return await self._embedder.embed(read, None)

    def _read(self, text: str, sentences: Sequence[str]) -> list[str]:
        """What of each fits the embedder's window: enough to tell how close a long sentence is."""
        embedder = self._embedder
        asked = fitted(embedder, text, self._side)
        return [asked, *(fitted(embedder, sentence, "document") for sentence in sentences)]

    def _keep(self, used: dict[bytes, Vector]) -> None:
        for key, vector in used.items():
            # A row of a batch's matrix would keep the whole matrix alive.
            self._kept[key] = vector if vector.base is None else np.array(vector)
            self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)


def _key(tenant: str, text: str) -> bytes:
    return hashlib.blake2b(f"{tenant}\0{text}".encode(errors="replace"), digest_size=16).digest()
