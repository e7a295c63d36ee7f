"""Of several PostgreSQL, the one that takes writes is used, and one that only follows is not asked."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import make_url, text

from app import embedded
from app.child import Child
from app.database import connect_args, dsn, open_engine
from app.partlog import PartLog
from ingestion.errors import LedgerUnavailable
from ingestion.reads import Reads
from ingestion.transaction import reading

ASKED = text("SELECT pg_is_in_recovery()")


@pytest.fixture(scope="module")
async def standby() -> AsyncIterator[str]:
    """The folder of its socket."""
    folder = Path(tempfile.mkdtemp(prefix="plt-"))
    (folder / "sockets").mkdir(mode=0o700)
    part = embedded.postgres(folder / "postgres", folder / "sockets")
    (folder / "postgres" / "standby.signal").touch()
    child = Child(part, PartLog("postgres", folder, print, always=False), print)
    await child.start(60)
    yield str(folder / "sockets")
    await child.stop(asyncio.Event())
    shutil.rmtree(folder, ignore_errors=True)


async def test_a_server_that_only_follows_is_not_asked(standby: str) -> None:
    """What it shows may be old: of a document that was deleted since, say."""
    url = f"postgresql://postgres@/postgres?host={standby}"
    engine, reads = open_engine(url), Reads(dsn(url), connect_args())
    with pytest.raises(LedgerUnavailable):
        async with reading(engine) as connection:
            await connection.execute(ASKED)
    with pytest.raises(LedgerUnavailable):
        await reads.warm()
    await engine.dispose()


async def test_among_several_servers_the_one_that_takes_writes_is_found(
    standby: str, postgres_url: str
) -> None:
    primary = make_url(postgres_url).query["host"]
    url = f"postgresql://postgres@/postgres?host={standby},{primary}&port=5432,5432"
    engine = open_engine(url)
    async with reading(engine) as connection:
        assert (await connection.execute(ASKED)).scalar_one() is False
    await engine.dispose()
    connected = await asyncpg.connect(dsn(url), **connect_args())
    assert await connected.fetchval(ASKED.text) is False
    await connected.close()
