"""How the ledger's SQL is run: in one transaction, or read by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ingestion.postgres import reaching_ledger

_SILENT_FOR = text("SELECT set_config('idle_session_timeout', :milliseconds, false)")


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction that commits at the end of the block and rolls back when it raises."""
    with reaching_ledger():
        async with engine.begin() as connection:
            yield connection


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection whose statements each see the newest committed state; nothing may be written."""
    with reaching_ledger():
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            yield connection


@asynccontextmanager
async def session(engine: AsyncEngine, silence: float) -> AsyncIterator[AsyncConnection]:
    """A connection whose statements are each by themselves, to hold locks of a session on: these end with the
    block, or once nothing was asked for `silence` seconds. A process that hangs, or whose machine is gone,
    would keep them for good."""
    with reaching_ledger():
        async with engine.connect() as connection:
            one = await connection.execution_options(isolation_level="AUTOCOMMIT")
            try:
                await one.execute(_SILENT_FOR, {"milliseconds": f"{silence * 1_000:.0f}"})
                yield one
            finally:
                # One that broke could not be asked to let go of anything.
                await one.invalidate()
