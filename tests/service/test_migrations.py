"""The migrations lead to the schema that the code is written for, and back."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from itertools import pairwise

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


REVISIONS = [path.name[:4] for path in sorted(migrate.MIGRATIONS.glob("versions/0*.py"))]
PROMISED = "0003"
"""The first schema after which a migration only adds."""
BEFORE, HEAD = REVISIONS[-2:]
COLUMNS = """
SELECT table_name, column_name, udt_name,
       is_nullable = 'YES' OR column_default IS NOT NULL OR is_identity = 'YES' AS optional
FROM information_schema.columns WHERE table_schema = 'public'
"""


async def _columns(database_url: str) -> dict[tuple[str, str], tuple[str, bool]]:
    """The type of each column, and whether an insert may leave it out."""
    engine = open_engine(database_url)
    async with engine.connect() as connection:
        found = {(row[0], row[1]): (row[2], row[3]) for row in await connection.execute(text(COLUMNS))}
    await engine.dispose()
    return found


async def _execute(database_url: str, statement: str) -> None:
    engine = open_engine(database_url)
    async with engine.begin() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


async def _command(settings: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PLUMBLINE_", "OTEL_"))} | settings
    command = [sys.executable, "-m", "app.cli", *arguments]
    return await asyncio.to_thread(
        subprocess.run, command, env=environ, capture_output=True, text=True, check=False, timeout=120
    )


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


async def test_an_upgrade_takes_nothing_from_keys_that_operated_the_instance(database_url: str) -> None:
    await migrate.upgrade(database_url, "0009")
    engine = open_engine(database_url)
    scopes = {"owner": ["read", "admin"], "reader": ["read", "write"], "early": ["admin", "operate"]}
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO tenants (id) VALUES ('acme')"))
        await connection.execute(
            text(
                "INSERT INTO keys (id, tenant, name, hash, prefix, last4, scopes) "
                "VALUES (:name, 'acme', :name, convert_to(:name, 'UTF8'), 'pl-', 'last', :scopes)"
            ),
            [{"name": name, "scopes": its} for name, its in scopes.items()],
        )
    await migrate.upgrade(database_url)
    async with engine.begin() as connection:
        after = {row.id: row.scopes for row in await connection.execute(text("SELECT id, scopes FROM keys"))}
    await engine.dispose()
    assert after == {**scopes, "owner": ["read", "admin", "operate"]}


async def test_processes_that_start_together_migrate_once(database_url: str) -> None:
    await asyncio.gather(*(migrate.upgrade(database_url) for _ in range(4)))
    await migrate.upgrade(database_url)


async def test_an_older_program_refuses_a_newer_schema_and_leaves_it(database_url: str) -> None:
    await migrate.upgrade(database_url)
    newer = "UPDATE alembic_version SET version_num = '9999'"
    await _execute(database_url, newer)
    settings = {
        "DATABASE_URL": database_url,
        "REDIS_URL": "redis://127.0.0.1:1",
        "MILVUS_URI": "http://127.0.0.1:1",
    }
    for command in ("serve", "worker", "controller", "migrate"):
        done = await _command(settings, command)
        assert done.returncode == (1 if command == "migrate" else 3), done.stderr
        assert "Traceback" not in done.stderr
        told = done.stderr.splitlines()[-1]
        assert told.startswith("The database has the schema 9999 of a newer version of Plumbline.")
        assert f"`plumbline migrate --to {HEAD}`" in told
    assert await migrate.applied(database_url) == "9999"


async def test_the_way_back_is_one_command(database_url: str) -> None:
    await migrate.upgrade(database_url)
    back = await _command({"DATABASE_URL": database_url}, "migrate", "--to", BEFORE, "--yes", "--json")
    assert json.loads(back.stdout) == {"schema": BEFORE}
    there = await _command({"DATABASE_URL": database_url}, "migrate", "--json")
    assert json.loads(there.stdout) == {"schema": HEAD}
    unknown = await _command({"DATABASE_URL": database_url}, "migrate", "--to", "1234", "--yes")
    assert (unknown.returncode, "no schema '1234'" in unknown.stderr) == (1, True)


@pytest.mark.parametrize(("before", "after"), list(pairwise(REVISIONS[REVISIONS.index(PROMISED) :])))
async def test_a_process_of_the_version_before_goes_on_beside_a_newer_schema(
    database_url: str, before: str, after: str
) -> None:
    """A migration only adds: tables, and columns that an insert need not name."""
    await migrate.upgrade(database_url, before)
    old = await _columns(database_url)
    await migrate.upgrade(database_url, after)
    new = await _columns(database_url)
    assert {name: new.get(name) for name in old} == old
    tables = {table for table, _ in old}
    needed = [name for name, (_, optional) in new.items() if name[0] in tables and not optional]
    assert set(needed) <= set(old)


async def test_a_database_that_cannot_be_reached_is_named(database_url: str) -> None:
    with pytest.raises(LedgerUnavailable, match=r"cannot be reached at 127\.0\.0\.1:1"):
        await migrate.upgrade("postgres://nobody@127.0.0.1:1/none")
