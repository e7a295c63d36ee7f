"""How the ledger's SQL is run: in one transaction, or read by itself; and what an outage is called."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from asyncpg import InterfaceError, PostgresError
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ingestion.errors import LedgerUnavailable

# Our own mistakes, which no waiting mends.
_BUGS = (DataError, IntegrityError, NotSupportedError, ProgrammingError)


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


@contextmanager
def reaching_ledger() -> Iterator[None]:
    """Turn every way in which PostgreSQL can be away or too slow into `LedgerUnavailable`."""
    try:
        yield
    except _BUGS as error:
        if error.connection_invalidated:
            raise _unavailable(error) from error
        raise
    except (DBAPIError, PoolTimeoutError, PostgresError, InterfaceError, OSError, TimeoutError) as error:
        raise _unavailable(error) from error


def _unavailable(error: BaseException) -> LedgerUnavailable:
    reason = str(getattr(error, "orig", None) or error).splitlines()[:1] or [type(error).__name__]
    return LedgerUnavailable(
        f"The ledger (PostgreSQL) cannot be reached or is too slow: {reason[0]}. Nothing was changed; "
        "try again in a few seconds."
    )
