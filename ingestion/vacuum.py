"""What PostgreSQL keeps of rows that are gone: dead rows, statistics of columns, its log of changes.

A deleted row stays in its table's file until it is overwritten, in the statistics until the table is analyzed
anew, and in the log (WAL) until its segment is removed or used again. On a server whose files are ours all of
that is done here; on another one, the tables are rewritten and the log is up to whoever runs it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ingestion.errors import ErasureStalled
from ingestion.tables import metadata
from ingestion.transaction import reading
from ingestion.types import Erasure, Outcome

PATIENCE = 20.0
"""Seconds to wait for transactions that still see what is gone."""
LOCK_PATIENCE = "2s"
"""How long whoever reads a table may be kept waiting by one that wants to rewrite it."""
LOCK_ATTEMPTS = 10
MOST_SEGMENTS = 64

_NOW = text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::numeric % 4294967296")
_OLDER = text(
    """
    SELECT count(*) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND datname = current_database()
      AND (backend_xmin IS NOT NULL AND age(backend_xmin) > age(CAST(CAST(:now AS text) AS xid))
           OR backend_xid IS NOT NULL AND age(backend_xid) > age(CAST(CAST(:now AS text) AS xid)))
    """
)
_RULED = text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
_PLACE = text("SHOW data_directory")
_FORGET_STATISTICS = text(
    "DELETE FROM pg_statistic WHERE starelid IN (SELECT c.oid FROM pg_class c "
    "WHERE c.relname = ANY(CAST(:names AS text[])) AND c.relnamespace = current_schema()::regnamespace)"
)
_SEGMENTS = text("SELECT name FROM pg_ls_waldir() WHERE length(name) = 24")
# A segment in which nothing was written is not left.
_NEW_SEGMENT = text(
    "SELECT pg_switch_wal() FROM pg_logical_emit_message(false, 'plumbline', 'a new segment') AS m"
)


@dataclass(frozen=True, slots=True)
class DatabaseStep:
    """`engine` must let a command take its time. `data` is the folder of the instance: a server with its
    files in there is ours."""

    engine: AsyncEngine
    data: Path

    @property
    def store(self) -> str:
        return "database"

    async def run(self, erasure: Erasure) -> Outcome:
        async with reading(self.engine) as connection:
            await _wait_for_readers(connection)
            ruled = bool(await connection.scalar(_RULED))
            await connection.execute(text(f"SET lock_timeout = '{LOCK_PATIENCE}'"))
            try:
                await _rewrite(connection, ruled)
            finally:
                await connection.execute(text("RESET lock_timeout"))
            if not (ruled and _within(str(await connection.scalar(_PLACE)), self.data)):
                told = "tables rewritten; log, replicas and backups of this server are not ours"
                return Outcome("pending", len(metadata.tables), told)
            segments = await _clear_log(connection)
        return Outcome("done", segments, "tables and statistics rewritten, segments of the log removed")


async def _rewrite(connection: AsyncConnection, ruled: bool) -> None:
    """The tables, and the statistics of their columns, which hold values, where that is for us to do."""
    names = sorted(metadata.tables)
    if ruled:  # Of a table in which nothing is left, analyzing would leave the old ones.
        await connection.execute(_FORGET_STATISTICS, {"names": names})
    for name in names:
        await _persist(connection, f'VACUUM (FULL, ANALYZE) "{name}"')
    if ruled:
        await _persist(connection, "VACUUM FULL pg_catalog.pg_statistic")


def _within(place: str, folder: Path) -> bool:
    return Path(place).resolve().is_relative_to(folder.resolve())


async def _wait_for_readers(connection: AsyncConnection) -> None:
    """Until no transaction is left that began before now: a rewrite keeps what one of them may see."""
    now = str(await connection.scalar(_NOW))
    for _ in range(int(PATIENCE / 0.1)):
        if not await connection.scalar(_OLDER, {"now": now}):
            return
        await asyncio.sleep(0.1)
    raise ErasureStalled("a transaction in PostgreSQL still sees what is gone")


async def _persist(connection: AsyncConnection, statement: str) -> None:
    """Run what needs a lock that others may hold; they go first."""
    for attempt in range(LOCK_ATTEMPTS):
        try:
            await connection.execute(text(statement))
            return
        except DBAPIError as error:
            if "lock timeout" not in str(error) or attempt == LOCK_ATTEMPTS - 1:
                raise
        await asyncio.sleep(0.2 * (attempt + 1))


async def _clear_log(connection: AsyncConnection) -> int:
    """Begin new segments until every one that is there now is gone; how many that were."""
    before = set(await connection.scalars(_SEGMENTS))
    await connection.execute(text("ALTER SYSTEM SET wal_recycle = off"))
    await connection.execute(text("SELECT pg_reload_conf()"))
    try:
        await asyncio.sleep(0.2)  # The process that removes them must have read it.
        for _ in range(MOST_SEGMENTS):
            await connection.execute(_NEW_SEGMENT)
            await connection.execute(text("CHECKPOINT"))
            if not before & set(await connection.scalars(_SEGMENTS)):
                return len(before)
        raise ErasureStalled("PostgreSQL keeps old segments of its log; is there a replication slot?")
    finally:
        await connection.execute(text("ALTER SYSTEM RESET wal_recycle"))
        await connection.execute(text("SELECT pg_reload_conf()"))
