"""The service's own tables in the ledger's database: keys, releases, the pointer to the champion, audit.

Nothing here holds a document's text or a key's secret. `transaction` is the one way in: it bounds the
wait and says `LedgerUnavailable` for every way in which PostgreSQL can be out of reach.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from sqlalchemy import Boolean, Column, DateTime, ForeignKey, Index, LargeBinary, MetaData, Table, Text, func
from sqlalchemy import exc as sql
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ingestion.errors import LedgerUnavailable

WAIT = 5.0
"""Seconds that a transaction on these tables may take, connecting included."""

metadata = MetaData()

tenants = Table(
    "tenants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("prefix", Text, nullable=False),
    Column("last4", Text, nullable=False),
    Column("groups", ARRAY(Text), nullable=True),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("revoked_at", DateTime(timezone=True), nullable=True),
)

releases = Table(
    "releases",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("fingerprint", Text, nullable=False, unique=True),
    Column("canonical", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("bootstrap", Boolean, nullable=False, server_default="false"),
    Column("evidence", JSONB, nullable=True),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("releases_name", "name"),
)

pointers = Table(
    "pointers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("release_id", Text, ForeignKey("releases.id"), nullable=False),
    Column("moved_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

audit = Table(
    "audit",
    metadata,
    Column("id", UUID(as_uuid=False), primary_key=True, server_default=func.gen_random_uuid()),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("who", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("evidence", JSONB, nullable=False, server_default="{}"),
    Index("audit_at", "at"),
)

# Our own mistakes, which no waiting mends.
_DEFECTS = (sql.DataError, sql.IntegrityError, sql.NotSupportedError, sql.ProgrammingError)
_OUT_OF_REACH = (
    sql.DBAPIError,
    sql.TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
)


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    try:
        async with asyncio.timeout(WAIT), engine.begin() as connection:
            yield connection
    except _DEFECTS as error:
        if not error.connection_invalidated:
            raise
        raise _unavailable() from error
    except _OUT_OF_REACH as error:
        raise _unavailable() from error


def _unavailable() -> LedgerUnavailable:
    return LedgerUnavailable("PostgreSQL cannot be reached or is too slow. Try again in a few seconds.")
