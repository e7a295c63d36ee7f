"""One passage with the text around it, as a reader who follows a citation wants it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.serving import Current
from ingestion.errors import NotFound
from retrieval.types import Chunk, Filter, Store

_CHUNK_ID = re.compile(r"([0-9]{1,18})-([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Passage:
    """`before` and `after` are its neighbours in the document, None at either end."""

    chunk: Chunk
    before: Chunk | None
    after: Chunk | None


class Passages:
    def __init__(self, current: Current, store: Store) -> None:
        self._current = current
        self._store = store

    async def read(self, where: Filter, document_id: str, chunk_id: str) -> Passage:
        """Raises `NotFound` for a passage of a version that was replaced or deleted since."""
        match = _CHUNK_ID.fullmatch(chunk_id)
        if match is None:
            raise NotFound("passage", chunk_id)
        revision, ordinal = int(match[1]), int(match[2])
        index = self._current().index
        seen = await index.visibility.visible(index.generation, where, [(document_id, revision)])
        if revision not in seen:
            raise NotFound("passage", chunk_id)
        ids = [f"{revision}-{n}" for n in range(max(0, ordinal - 1), ordinal + 2)]
        chunks = await self._store.read(index.generation, where.tenant, ids)
        around = {chunk.ordinal: chunk for chunk in chunks if chunk.document_id == document_id}
        if ordinal not in around:
            raise NotFound("passage", chunk_id)
        return Passage(around[ordinal], around.get(ordinal - 1), around.get(ordinal + 1))
