"""A PostgreSQL database whose clock is the simulation's: the product's SQL runs in it unchanged.

The search path puts a schema before PostgreSQL's own, and in it functions of the same names that read the
time from a file: so telling PostgreSQL the time costs nothing.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import asyncpg
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from app import migrate
from app.database import connect_args, dsn
from ingestion import tables
from ingestion.reads import Reads
from tests.faults.clock import VirtualLoop
from tests.faults.direct import Direct, Row
from tests.faults.history import Accepted

EPOCH = datetime(2030, 1, 1, tzinfo=UTC).timestamp()
FRESH = 200
"""Schedules after which tables are made anew: deleted rows that nobody cleans up make every query slow."""

_CLOCK = """
    CREATE SCHEMA sim;
    CREATE FUNCTION sim.now() RETURNS timestamptz LANGUAGE sql STABLE AS
      $$ SELECT pg_catalog.to_timestamp(pg_catalog.pg_read_file('{name}')::float8) $$;
    CREATE FUNCTION sim.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT sim.now() $$;
"""
_KEPT = frozenset({"generations"})
_OPEN = "SELECT EXISTS (SELECT FROM jobs WHERE state IN ('queued', 'running'))"
_NEXT = """
    SELECT min(CASE state WHEN 'queued' THEN run_after ELSE lease_until END) FROM jobs
    WHERE state IN ('queued', 'running')
"""


@dataclass(slots=True)
class Database:
    """A `loop`'s database: `engine` is the ledger's, on the connection `own`, `reads` the searches'; `side`
    asks beside them. `clock` is the descriptor of the file that PostgreSQL reads the time from."""

    loop: VirtualLoop
    own: asyncpg.Connection
    engine: AsyncEngine
    reads: Reads
    side: asyncpg.Connection
    clock: int
    resets: int = 0

    @classmethod
    def create(cls, loop: VirtualLoop, postgres_url: str, name: str) -> Database:
        """A new database of this name on the server."""
        url = make_url(postgres_url)
        sockets = str(url.query["host"])

        async def create() -> tuple[Path, asyncpg.Connection]:
            admin = await asyncpg.connect(host=sockets, user="postgres", database="postgres")
            await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            await admin.execute(f"CREATE DATABASE {name}")
            await admin.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
            await admin.execute(f"ALTER DATABASE {name} SET jit = off")
            await admin.close()
            side = await asyncpg.connect(host=sockets, user="postgres", database=name)
            clock = Path(await side.fetchval("SHOW data_directory"), f"{name}.clock")
            clock.write_text(f"{EPOCH:020.6f}")
            clock.chmod(0o644)
            await side.execute(_CLOCK.format(name=clock.name))
            await side.execute(f"ALTER DATABASE {name} SET search_path = sim, pg_catalog, public")
            await side.close()
            return clock, await asyncpg.connect(host=sockets, user="postgres", database=name)

        clock, side = loop.outside(create())
        loop.outside(migrate.upgrade(postgres_url.replace("@/postgres?", f"@/{name}?")))

        async def opened() -> asyncpg.Connection:
            own = await asyncpg.connect(host=sockets, user="postgres", database=name, record_class=Row)
            await own.execute("BEGIN")
            return own

        own = loop.outside(opened())
        reads = Reads(dsn(postgres_url.replace("@/postgres?", f"@/{name}?")), connect_args())
        engine = cast(AsyncEngine, Direct(own))
        return cls(loop, own, engine, reads, side, os.open(clock, os.O_WRONLY))

    def drop(self) -> None:
        os.close(self.clock)

        async def drop() -> None:
            await self.own.close()
            await self.reads.close()
            await self.side.close()

        self.loop.outside(drop())

    def reset(self) -> None:
        """Nothing was accepted yet; which generations there are stays."""
        names = [name for name in tables.metadata.tables if name not in _KEPT]
        self.resets += 1
        if self.resets % FRESH:
            emptied = "; ".join(f"DELETE FROM {name}" for name in names)
        else:
            emptied = f"TRUNCATE {', '.join(names)}"
        again = "; ".join(
            f"SELECT setval('{name}', 1, false)" for name in ("version_numbers", "revision_numbers")
        )
        self.loop.outside(self.own.execute(f"COMMIT; {emptied}; {again}; COMMIT; BEGIN"))

    def tick(self) -> None:
        """Let PostgreSQL know what time it is."""
        os.pwrite(self.clock, f"{EPOCH + self.loop.now:020.6f}".encode(), 0)

    def working(self) -> bool:
        """Whether any job is queued or running."""
        return bool(self.loop.outside(self.side.fetchval(_OPEN)))

    def next_work(self) -> float:
        """When the next job may be leased, if nothing happens before."""
        at: datetime | None = self.loop.outside(self.side.fetchval(_NEXT))
        return at.timestamp() - EPOCH if at else math.inf

    def accepted(self, contents: dict[str, str]) -> list[Accepted]:
        """Every version that the ledger holds; `contents` gives each text's name by its hash."""
        rows = self.loop.outside(self.side.fetch("SELECT * FROM versions ORDER BY version"))
        return [
            Accepted(
                document=row["document_id"],
                version=row["version"],
                content=None if row["deleted"] else contents.get(row["content_hash"], "unknown"),
            )
            for row in rows
        ]

    def shown(self) -> set[int]:
        """The revisions that readers may see."""
        rows = self.loop.outside(self.side.fetch("SELECT revision FROM visibility"))
        return {row["revision"] for row in rows}

    def retired(self) -> dict[int, float]:
        """When each revision that nobody may see any more was given up, in the simulation's seconds."""
        rows = self.loop.outside(self.side.fetch("SELECT revision, retired_at FROM revisions"))
        return {
            row["revision"]: row["retired_at"].timestamp() - EPOCH
            for row in rows
            if row["retired_at"] is not None
        }

    def losses(self) -> int:
        """How often a lease ran out."""
        return int(self.loop.outside(self.side.fetchval("SELECT coalesce(sum(losses), 0) FROM jobs")))
