"""Embeddings that are asked for text by text and fetched many at a time, each text once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

Vector = Sequence[float]
Embed = Callable[[Sequence[str]], Awaitable[Sequence[Vector]]]
"""Embeddings of texts, in order."""

MOST = 64
"""Texts of one request: embedders work on batches, and a request should not take long."""
PIECE = 400
"""Characters embedded at once: within every common embedder's window, so that no text is refused."""


class Embeddings:
    """What is asked for in one turn of the event loop goes out together. Raises what `embed` does; what
    failed is asked for again the next time."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._known: dict[str, asyncio.Future[Vector]] = {}
        self._waiting: list[str] = []
        self._flight: asyncio.Task[None] | None = None

    async def of(self, text: str) -> list[float]:
        """The text's embedding; of a long text the mean of its pieces', weighted by length."""
        pieces = split(text)
        vectors = await asyncio.gather(*(asyncio.shield(self._future(piece)) for piece in pieces))
        return [
            sum(len(piece) * vector[axis] for piece, vector in zip(pieces, vectors, strict=True))
            for axis in range(len(vectors[0]))
        ]

    def _future(self, piece: str) -> asyncio.Future[Vector]:
        known = self._known.get(piece)
        if known is None:
            known = self._known[piece] = asyncio.get_running_loop().create_future()
            self._waiting.append(piece)
            if self._flight is None or self._flight.done():
                self._flight = asyncio.create_task(self._fetch())
        return known

    async def _fetch(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            try:
                vectors = await self._embed(batch)
                for piece, vector in zip(batch, vectors, strict=True):
                    self._known[piece].set_result(vector)
            except Exception as error:  # noqa: BLE001  whoever waits gets it, whatever it is
                for piece in batch:
                    self._fail(piece, error)

    def _fail(self, piece: str, error: Exception) -> None:
        future = self._known.pop(piece)
        if not future.done():
            future.set_exception(error)


def split(text: str) -> list[str]:
    """Pieces of at most `PIECE` characters, cut at white space where there is any."""
    pieces: list[str] = []
    rest = text.strip()
    while len(rest) > PIECE:
        cut = rest.rfind(" ", 1, PIECE + 1)
        cut = PIECE if cut < 0 else cut
        pieces.append(rest[:cut].strip())
        rest = rest[cut:].strip()
    return [*pieces, rest] if rest else pieces
