"""How the ledger's SQL is run: in one transaction, or read by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ingestion.postgres import reaching_ledger


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
