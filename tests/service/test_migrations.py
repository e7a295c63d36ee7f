"""The migrations lead to the schema that the code is written for, and back."""

from __future__ import annotations

import asyncio
import importlib.util

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, text

from app import migrate
from app.database import open_engine
from ingestion import tables
from ingestion.errors import LedgerUnavailable

CATALOGUE = """
SELECT 'column ' || table_name || '.' || column_name || ' ' || udt_name || ' ' || is_nullable || ' '
       || coalesce(column_default, '') || ' ' || is_identity || ' ' || coalesce(collation_name, '')
FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'
UNION ALL
SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'
UNION ALL
SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'
UNION ALL
SELECT 'sequence ' || sequencename || ' ' || data_type FROM pg_sequences WHERE schemaname = 'public'
ORDER BY 1
"""


def declared() -> list[MetaData]:
    """Every folder's tables: the ledger's, and the service's own where they exist."""
    found = [tables.metadata]
    if importlib.util.find_spec("app.tables") is not None:
        found.append(importlib.import_module("app.tables").metadata)
    return found


async def test_migrations_applied_equal_the_declared_tables(database_url: str) -> None:
    await migrate.upgrade(database_url)

    def differences(connection: Connection) -> list[object]:
        together = MetaData()
        for table in (table for metadata in declared() for table in metadata.tables.values()):
            table.to_metadata(together)
        return list(compare_metadata(MigrationContext.configure(connection), together))

    engine = open_engine(database_url)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


async def test_migrations_applied_equal_a_fresh_schema(database_url: str) -> None:
    await migrate.upgrade(database_url)
    engine = open_engine(database_url)
    async with engine.begin() as connection:
        migrated = (await connection.scalars(text(CATALOGUE))).all()
        await connection.execute(text("DROP SCHEMA public CASCADE"))
        await connection.execute(text("CREATE SCHEMA public"))
        for metadata in declared():
            await connection.run_sync(metadata.create_all)
        assert (await connection.scalars(text(CATALOGUE))).all() == migrated
    await engine.dispose()


async def test_a_downgrade_leaves_nothing_behind(database_url: str) -> None:
    await migrate.upgrade(database_url)
    await migrate.downgrade(database_url, "base")
    engine = open_engine(database_url)
    async with engine.connect() as connection:
        assert (await connection.scalars(text(CATALOGUE))).all() == []
    await engine.dispose()


async def test_processes_that_start_together_migrate_once(database_url: str) -> None:
    await asyncio.gather(*(migrate.upgrade(database_url) for _ in range(4)))
    await migrate.upgrade(database_url)


async def test_a_database_that_cannot_be_reached_is_named(database_url: str) -> None:
    with pytest.raises(LedgerUnavailable, match=r"cannot be reached at 127\.0\.0\.1:1"):
        await migrate.upgrade("postgres://nobody@127.0.0.1:1/none")
