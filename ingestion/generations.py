"""SQL about index generations: which there are, which take traffic, which are written by whom.

A generation is `building` until a release that needs it is promoted, then `serving`; the one before it is
`rollback`; both are written by every job. One that no release may come back to is `retired` until the
sweeper has removed it. One that is nearly built may be `joining` for some seconds: every job writes it, so
that it catches up with updates that never cease. Whoever changes the set locks the table first, so that
every flip sees one set.
"""

# SQL is put together from this file's constants only; every value is bound.
# ruff: noqa: S608

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ingestion.errors import Conflict
from ingestion.types import Generation, GenerationState
from retrieval.types import IndexSpec

REINDEX_PRIORITY = 11
"""Behind whatever somebody waits for."""
KEPT = "!"
"""Stands for a generation with what readers saw of a document in one that is gone, while those that take
traffic lack it."""
TRAFFIC: frozenset[GenerationState] = frozenset({"serving", "rollback"})
WRITTEN_BY_ALL = TRAFFIC | {"joining"}
UNFINISHED: frozenset[GenerationState] = frozenset({"building", "joining"})

STATE = "CASE WHEN state = 'building' AND joined_until > now() THEN 'joining' ELSE state END AS state"
_ALL = text(f"SELECT id, spec, {STATE}, embedder FROM generations ORDER BY created_at, id")
_ONE = text(f"SELECT id, spec, {STATE}, embedder FROM generations WHERE id = :id")
_STATE = text(f"SELECT {STATE} FROM generations WHERE id = :id")
_STATES = text(f"SELECT id, {STATE} FROM generations WHERE state <> 'retired'")
_STATES_LOCKED = text(f"SELECT id, {STATE} FROM generations WHERE state <> 'retired' FOR KEY SHARE")
_JOIN = text(
    "UPDATE generations SET joined_until = now() + make_interval(secs => :seconds) "
    "WHERE id = :id AND state = 'building'"
)
# Waits for the flips under way and keeps others out: a row lock alone does not keep a new row out.
_CLOSE = text("LOCK TABLE generations IN EXCLUSIVE MODE")
_ADD = text(
    "INSERT INTO generations (id, spec, embedder, state) "
    "VALUES (:id, CAST(:spec AS jsonb), :embedder, :state) "
    "ON CONFLICT (id) DO UPDATE SET state = excluded.state, embedder = excluded.embedder"
)
_NAME = text("UPDATE generations SET embedder = :embedder WHERE id = :id AND embedder <> :embedder")
_SET = text("UPDATE generations SET state = :state WHERE id = :id")
_RETIRE_OTHERS = text("UPDATE generations SET state = 'retired' WHERE NOT id = ANY(CAST(:ids AS text[]))")
_RETIRE_LEFT_OVER = text(
    "UPDATE generations SET state = 'retired' "
    "WHERE state IN ('serving', 'rollback') AND NOT id = ANY(CAST(:ids AS text[]))"
)
_REINDEX = text(
    """
    INSERT INTO jobs (id, tenant, document_id, version, priority, size, media_type)
    SELECT gen_random_uuid(), d.tenant, d.id, d.newest_version, :priority, d.size, d.media_type
    FROM documents d
    WHERE NOT d.deleted
      AND NOT EXISTS (SELECT FROM visibility v WHERE v.tenant = d.tenant AND v.document_id = d.id
                      AND v.generation = :id)
      AND NOT EXISTS (SELECT FROM jobs j WHERE j.tenant = d.tenant AND j.document_id = d.id
                      AND j.version = d.newest_version AND j.generation IS NULL AND j.state <> 'succeeded')
    ORDER BY d.tenant, d.id
    """
)
_RAISE_ALL = text(
    "UPDATE collections SET epoch = epoch + 1 FROM "
    "(SELECT tenant, name FROM collections ORDER BY tenant, name FOR UPDATE) AS every "
    "WHERE collections.tenant = every.tenant AND collections.name = every.name"
)
_JOBS_LEFT = text("DELETE FROM jobs WHERE generation = :id AND state = 'queued'")
_FORGET_JOBS = text("DELETE FROM jobs WHERE generation = :id")
_FORGET = text("DELETE FROM generations WHERE id = :id AND state = 'retired'")
_HIDDEN = text(
    "SELECT state = 'retired' AND NOT EXISTS (SELECT FROM visibility v WHERE v.generation = generations.id) "
    "FROM generations WHERE id = :id"
)
_REUSED = text("SELECT sum(reused) FROM generations")
_CLAIM_REMOVAL = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:id, 7140558))")


async def ensure(connection: AsyncConnection, spec: IndexSpec, embedder: str) -> None:
    """See to it that the champion's generation takes traffic.

    One that did not, in a new installation or another version of the product, takes the place of all
    others; documents that are not in it get a job each. Raises `Conflict` while it is being removed.
    """
    if await connection.scalar(_STATE, {"id": spec.generation}) not in TRAFFIC:
        await connection.execute(_CLOSE)
    if await _named(connection, spec, embedder) in TRAFFIC:
        return
    await _add(connection, spec, embedder, "serving")
    await connection.execute(_RETIRE_OTHERS, {"ids": [spec.generation]})
    await connection.execute(_REINDEX, {"id": spec.generation, "priority": REINDEX_PRIORITY})
    await connection.execute(_RAISE_ALL)


async def build(connection: AsyncConnection, spec: IndexSpec, embedder: str) -> GenerationState:
    """Register a generation as building; its state, which stays what it is if it is known. Raises `Conflict`
    while it is being removed."""
    if await connection.scalar(_STATE, {"id": spec.generation}) not in TRAFFIC | UNFINISHED:
        await connection.execute(_CLOSE)
    state = await _named(connection, spec, embedder)
    if state is None:
        await _add(connection, spec, embedder, "building")
    return state or "building"


async def _named(connection: AsyncConnection, spec: IndexSpec, embedder: str) -> GenerationState | None:
    """The generation's state, None if it is new; the embedder goes by this name from now on. Whoever is to
    add it has closed the set before: of two who write to the table and then close it neither could."""
    known = {"id": spec.generation, "embedder": embedder}
    await connection.execute(_NAME, known)
    state: GenerationState | None = await connection.scalar(_STATE, known)
    if state == "retired":
        raise Conflict(
            f"The index generation {spec.generation} is being removed. Try again in a minute, with a worker "
            "running."
        )
    return state


async def _add(connection: AsyncConnection, spec: IndexSpec, embedder: str, state: GenerationState) -> None:
    values = {"id": spec.generation, "spec": json.dumps(spec.fields), "embedder": embedder, "state": state}
    await connection.execute(_ADD, values)


async def discard(connection: AsyncConnection, generation: str) -> None:
    """Give up building a generation. Raises `Conflict` if it takes traffic or may be rolled back to."""
    await connection.execute(_CLOSE)
    state = await connection.scalar(_STATE, {"id": generation})
    if state in TRAFFIC:
        raise Conflict(f"The index generation {generation} is {state}; only one being built can be dropped.")
    await connection.execute(_SET, {"id": generation, "state": "retired"})


async def join(connection: AsyncConnection, generation: str, seconds: float) -> None:
    """Have every job write a generation that is being built, for so long; 0 ends it."""
    await connection.execute(_CLOSE)
    await connection.execute(_JOIN, {"id": generation, "seconds": seconds})


async def close(connection: AsyncConnection) -> None:
    """Keep every flip out, and the set of generations as it is, until the transaction ends."""
    await connection.execute(_CLOSE)


async def switch(connection: AsyncConnection, new: str, old: str) -> None:
    """Let `new` take traffic, with `old` to roll back to; whichever else did is retired. The caller has
    closed the set and seen that nothing is missing in `new`."""
    await connection.execute(_SET, {"id": old, "state": "rollback"})
    await connection.execute(_SET, {"id": new, "state": "serving"})
    await connection.execute(_RETIRE_LEFT_OVER, {"ids": [new, old]})
    await connection.execute(_JOBS_LEFT, {"id": new})


async def admit(connection: AsyncConnection, new: str) -> None:
    """Let `new` take traffic beside those that do. The caller has closed the set and seen that nothing is
    missing in `new`."""
    await connection.execute(_SET, {"id": new, "state": "serving"})
    await connection.execute(_JOBS_LEFT, {"id": new})


async def retire(connection: AsyncConnection, generation: str) -> None:
    """Let nothing write or search a generation any more; the sweeper removes it."""
    await connection.execute(_CLOSE)
    await connection.execute(_SET, {"id": generation, "state": "retired"})


async def listed(connection: AsyncConnection) -> list[Generation]:
    return [_generation(row) for row in await connection.execute(_ALL)]


async def one(connection: AsyncConnection, generation: str) -> Generation | None:
    row = (await connection.execute(_ONE, {"id": generation})).one_or_none()
    return _generation(row) if row else None


async def states(connection: AsyncConnection) -> dict[str, GenerationState]:
    """Every generation that is not retired."""
    return {row.id: row.state for row in await connection.execute(_STATES)}


async def lock_states(connection: AsyncConnection) -> dict[str, GenerationState]:
    """The same, kept as they are until the transaction ends."""
    return {row.id: row.state for row in await connection.execute(_STATES_LOCKED)}


def written_by_all(states: Mapping[str, GenerationState]) -> frozenset[str]:
    return frozenset(generation for generation, state in states.items() if state in WRITTEN_BY_ALL)


def being_built(states: Mapping[str, GenerationState]) -> list[str]:
    return sorted(generation for generation, state in states.items() if state in UNFINISHED)


async def reused(connection: AsyncConnection) -> int:
    """Vectors that were at hand, in all generations."""
    return int(await connection.scalar(_REUSED) or 0)


async def claim_removal(connection: AsyncConnection, generation: str) -> bool:
    """Whether this transaction alone may remove a retired generation, in which nothing is seen any more,
    from the store."""
    claimed = await connection.scalar(_CLAIM_REMOVAL, {"id": generation})
    return bool(claimed and await connection.scalar(_HIDDEN, {"id": generation}))


async def forget(connection: AsyncConnection, generation: str) -> None:
    """Take a retired generation, whose rows are gone, off the list."""
    await connection.execute(_FORGET_JOBS, {"id": generation})
    await connection.execute(_FORGET, {"id": generation})


def _generation(row: Row[Any]) -> Generation:
    spec: dict[str, Any] = json.loads(row.spec) if isinstance(row.spec, str) else row.spec
    return Generation(row.id, IndexSpec(**spec), row.state, row.embedder)
