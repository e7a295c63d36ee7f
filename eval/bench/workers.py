"""Several worker processes on one ledger: how fast they are together, and whether any work was done twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg

from app import instance
from app.database import dsn
from eval.bench.bulk import documents
from eval.bench.ingest import load
from eval.instance import Started, started
from eval.types import InstanceFailed, SourceDocument

_TAKEN = """
    SELECT count(*) AS jobs, count(*) FILTER (WHERE fence > 1) AS taken_again,
           count(*) FILTER (WHERE state <> 'succeeded') AS unfinished
    FROM jobs
"""
_WRITTEN = "SELECT count(*) AS revisions FROM revisions"
_SHOWN = "SELECT count(*) AS shown, count(DISTINCT document_id) AS documents FROM visibility"


async def workers(
    folder: Path, counts: Sequence[int], most: int | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """The same documents, handed in to a new instance with each of these numbers of workers."""
    found = documents(folder)[:most]
    told = {}
    for count in counts:
        say(f"{len(found)} documents, workers: {count}")
        told[f"{count} workers" if count > 1 else "1 worker"] = await _one(found, count, say)
    return {"bench": "workers", "documents": len(found), **told}


async def _one(found: Sequence[SourceDocument], count: int, say: Callable[[str], None]) -> dict[str, Any]:
    async with started(None, environment={"PLUMBLINE_WORKERS": str(count)}) as one:
        took = await load(one, found, say)
        chunks = await one.target.chunks()
        ledger = await _ledger(one)
    lost = [document.id for document in found if not chunks.get(document.id)]
    if lost:
        raise InstanceFailed(f"{len(lost)} documents cannot be found, {lost[0]} among them.")
    return {
        "seconds": round(took, 2),
        "documents_per_second": round(len(found) / took, 1),
        "chunks_per_second": round(sum(chunks.values()) / took, 1),
        **ledger,
    }


async def _ledger(one: Started) -> dict[str, int]:
    """A job that is taken again has a higher fence; a document that is written again, another revision."""
    running = instance.running(one.data)
    if running is None:
        raise InstanceFailed("The instance does not say where its ledger is.")
    connection = await asyncpg.connect(dsn(running.database_url))
    try:
        rows = [await connection.fetchrow(query) for query in (_TAKEN, _WRITTEN, _SHOWN)]
    finally:
        await connection.close()
    return {name: int(value) for row in rows for name, value in row.items()}
