"""Brings a database to this version's schema. Safe when several processes start at once: one migrates,
the others wait for it and find nothing left to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from asyncpg import PostgresError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from app.database import open_engine
from ingestion.errors import LedgerUnavailable

MIGRATIONS = Path(__file__).with_name("migrations")
LOCK = 5_118_446_012


async def upgrade(database_url: str, revision: str = "head") -> None:
    """Apply every migration up to `revision` in one transaction."""
    await _run(database_url, lambda config: command.upgrade(config, revision))


async def downgrade(database_url: str, revision: str) -> None:
    """Take back every migration after `revision` (`base`: all of them, and all data)."""
    await _run(database_url, lambda config: command.downgrade(config, revision))


async def _run(database_url: str, act: Callable[[Config], None]) -> None:
    def migrate(connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        act(_config(connection))

    engine = open_engine(database_url, command_timeout=None)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(migrate)
    except (OSError, TimeoutError) as error:
        where = f"{engine.url.host or 'its socket'}:{engine.url.port or 5432}"
        why = str(error) or "no answer"
        raise LedgerUnavailable(f"PostgreSQL cannot be reached at {where} (DATABASE_URL): {why}") from error
    except (DBAPIError, PostgresError) as error:
        raise LedgerUnavailable(f"The database could not be migrated: {error}") from error
    finally:
        await engine.dispose()


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
