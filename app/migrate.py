"""Brings a database to this version's schema. Safe when several processes start at once: one migrates,
the others wait for it and find nothing left to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from asyncpg import PostgresError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from app.database import open_engine
from app.errors import RevisionUnknown, SchemaNewer
from ingestion.errors import LedgerUnavailable

MIGRATIONS = Path(__file__).with_name("migrations")
LOCK = 5_118_446_012


async def upgrade(database_url: str, revision: str = "head") -> None:
    """Apply every migration up to `revision` in one transaction. Raises `SchemaNewer` where a migration was
    applied that this version does not know."""

    def act(config: Config) -> None:
        _require_known(config)
        command.upgrade(config, revision)

    await _run(database_url, act)


async def downgrade(database_url: str, revision: str) -> None:
    """Take back every migration after `revision` (`base`: all of them, and all data), with all that is in
    what they made. Raises `RevisionUnknown`, and `SchemaNewer` as `upgrade` does."""

    def act(config: Config) -> None:
        _require_known(config)
        if revision != "base" and revision not in _revisions(config):
            raise RevisionUnknown(
                f"There is no schema {revision!r}; known are {', '.join(_revisions(config))}."
            )
        command.downgrade(config, revision)

    await _run(database_url, act)


async def applied(database_url: str) -> str:
    """The newest migration that the database has, empty if none."""
    found: list[str] = []
    await _run(database_url, lambda config: found.extend(_applied(config)))
    return ", ".join(found)


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


def _require_known(config: Config) -> None:
    known = _revisions(config)
    newer = set(_applied(config)) - set(known)
    if newer:
        raise SchemaNewer(
            f"The database has the schema {', '.join(sorted(newer))} of a newer version of Plumbline. Run "
            "that one; or go back: stop every process, and run its `plumbline migrate --to "
            f"{known[-1]}` first."
        )


def _applied(config: Config) -> tuple[str, ...]:
    return MigrationContext.configure(config.attributes["connection"]).get_current_heads()


def _revisions(config: Config) -> list[str]:
    """Every one that this version knows, the oldest first."""
    return [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][::-1]


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
