"""SQL about index generations: which there are, and which every job must write."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from ingestion.types import Generation
from retrieval.types import IndexSpec

REINDEX_PRIORITY = 1

_ALL = text("SELECT spec, state FROM generations ORDER BY created_at, id")
_STATE = text("SELECT state FROM generations WHERE id = :id")
_SERVING = text("SELECT id FROM generations WHERE state IN ('serving', 'rollback')")
_SERVING_LOCKED = text("SELECT id FROM generations WHERE state IN ('serving', 'rollback') FOR SHARE")
# Waits for the flips under way and keeps others out: FOR SHARE alone does not keep a new row out.
_CLOSE = text("LOCK TABLE generations IN EXCLUSIVE MODE")
_ADD = text(
    "INSERT INTO generations (id, spec, state) VALUES (:id, CAST(:spec AS jsonb), 'serving') "
    "ON CONFLICT (id) DO UPDATE SET state = 'serving'"
)
_FOLLOW = text(
    """
    INSERT INTO jobs (id, tenant, document_id, version, priority)
    SELECT gen_random_uuid(), d.tenant, d.id, d.newest_version, :priority FROM documents d
    WHERE NOT d.deleted
      AND NOT EXISTS (SELECT FROM visibility v WHERE v.tenant = d.tenant AND v.document_id = d.id
                      AND v.generation = :id)
      AND NOT EXISTS (SELECT FROM jobs j WHERE j.tenant = d.tenant AND j.document_id = d.id
                      AND j.version = d.newest_version AND j.state <> 'succeeded')
    ORDER BY d.tenant, d.id
    """
)
_RETIRE = text("UPDATE generations SET state = 'retired' WHERE id = :id AND state <> 'retired'")
_HIDE = text("DELETE FROM visibility WHERE generation = :id")
_RAISE_ALL = text(
    "UPDATE collections SET epoch = epoch + 1 FROM "
    "(SELECT tenant, name FROM collections ORDER BY tenant, name FOR UPDATE) AS every "
    "WHERE collections.tenant = every.tenant AND collections.name = every.name"
)


async def ensure(connection: AsyncConnection, spec: IndexSpec) -> None:
    """Register the generation as serving; documents that are not in it yet get a job each."""
    known = {"id": spec.generation}
    if await connection.scalar(_STATE, known) == "serving":
        return
    await connection.execute(_CLOSE)
    await connection.execute(_ADD, {**known, "spec": json.dumps(asdict(spec))})
    await connection.execute(_FOLLOW, {**known, "priority": REINDEX_PRIORITY})


async def retire(connection: AsyncConnection, generation: str) -> None:
    """Stop writing the generation and hide all that is in it."""
    await connection.execute(_CLOSE)
    await connection.execute(_RETIRE, {"id": generation})
    await connection.execute(_HIDE, {"id": generation})
    await connection.execute(_RAISE_ALL)


async def listed(connection: AsyncConnection) -> list[Generation]:
    rows = await connection.execute(_ALL)
    return [Generation(IndexSpec(**_loads(row.spec)), row.state) for row in rows]


async def serving(connection: AsyncConnection) -> frozenset[str]:
    """The generations that take traffic or are the rollback target."""
    return frozenset(await connection.scalars(_SERVING))


async def lock_serving(connection: AsyncConnection) -> frozenset[str]:
    """The same, kept as they are until the transaction ends."""
    return frozenset(await connection.scalars(_SERVING_LOCKED))


def _loads(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(value) if isinstance(value, str) else value
    return found
