"""What embedders behind a URL were when they were first asked: in the ledger's database, so that it is the
same for every process, and lives as long as the indexes that it decides on."""

from __future__ import annotations

import numpy as np
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from app.tables import embedders, transaction
from retrieval.embedders.http import Known


class Probes:
    """Implements `retrieval.embedders.http.Records`. Raises `LedgerUnavailable`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def get(self, name: str) -> Known | None:
        async with transaction(self._engine) as connection:
            found = (
                await connection.execute(select(embedders).where(embedders.c.name == name))
            ).one_or_none()
        if found is None:
            return None
        vectors = np.frombuffer(found.vectors, "<f4").reshape(-1, found.dimension)
        return Known(name=name, tokenizer=found.tokenizer, vectors=vectors)

    async def keep(self, known: Known) -> Known:
        row = {
            "name": known.name,
            "tokenizer": known.tokenizer,
            "dimension": known.vectors.shape[1],
            "vectors": known.vectors.astype("<f4").tobytes(),
        }
        async with transaction(self._engine) as connection:
            await connection.execute(insert(embedders).values(row).on_conflict_do_nothing())
        return await self.get(known.name) or known
