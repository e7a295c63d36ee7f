"""The questions that every search and answer asks of the ledger, as few and as cheap as they can be.

They go to PostgreSQL on connections of their own, prepared once, with no transaction around them: through
SQLAlchemy each costs the service several times what it costs the database. Everything else about the ledger
is in `ledger`.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import asyncpg
import orjson

from ingestion.postgres import reaching_ledger
from retrieval.types import Filter, Look

T = TypeVar("T")

CONNECTIONS = 8
_GONE = (
    *(asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.OperatorInterventionError, OSError),
    # A table was changed under a prepared question.
    *(asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError),
)

_READABLE = """
    ($1::text[] IS NULL OR v.groups = '{}' OR v.groups && $1)
    AND ($2::text[] = '{}' OR v.collection = ANY($2)) AND ($3::text[] = '{}' OR v.document_id = ANY($3))
"""
# Each candidate is looked up by its revision, whatever PostgreSQL believes of a table that has grown since it
# was analysed: it would rather read all documents of the tenant.
_CANDIDATES = """
    unnest(string_to_array($6, ','), string_to_array($7, ',')::bigint[]) AS c(document_id, revision)
    CROSS JOIN LATERAL (
        SELECT tenant, document_id, generation, revision, collection, groups FROM visibility
        WHERE revision = c.revision OFFSET 0
    ) AS v
"""
_SEEN = f"v.tenant = $4 AND v.document_id = c.document_id AND v.generation = $5 AND {_READABLE}"
_VISIBLE = f"SELECT v.revision FROM {_CANDIDATES} WHERE {_SEEN}"  # noqa: S608  (constants only)
_THEIRS = "v.tenant = $4 AND v.generation = $5"
_OF_IDS = f"""
    (SELECT DISTINCT unnest($3::text[]) AS id) AS w CROSS JOIN LATERAL (
        SELECT * FROM visibility WHERE tenant = $4 AND generation = $5 AND document_id = w.id OFFSET 0) AS v
    WHERE {_READABLE}
"""  # noqa: S608  (constants only)
_OF_COLLECTIONS = f"""
    (SELECT DISTINCT unnest($2::text[]) AS name) AS w CROSS JOIN LATERAL (
        SELECT * FROM visibility AS v WHERE {_THEIRS} AND v.collection = w.name AND {_READABLE}
        ORDER BY document_id LIMIT $6) AS v
"""  # noqa: S608  (constants only)
_OF_ALL = f"visibility v WHERE {_THEIRS} AND {_READABLE}"


def _epochs(tenant: str) -> str:
    """Of the tenant's collections that are $2; all of them where that is empty."""
    return f"""
        ARRAY(SELECT name || ':' || epoch FROM collections
              WHERE collections.tenant = {tenant} AND ($2::text[] = '{{}}' OR name = ANY($2))
              ORDER BY name) AS epochs
    """  # noqa: S608  (constants only)


def _contents(source: str) -> str:
    return f"""
        SELECT v.document_id, v.revision, v.chunks FROM {source} ORDER BY v.document_id LIMIT $6
    """  # noqa: S608  (constants only)


def _all(source: str) -> str:
    return f"""
        SELECT {_epochs("$4")}, ARRAY(SELECT v.revision FROM {source} LIMIT $6) AS revisions
    """  # noqa: S608  (constants only)


_EPOCHS = f"SELECT {_epochs('$1')}"
# What names documents or collections finds them by these: a plan made once serves every question, and with
# one statement for all it would read whatever the tenant has.
_SOURCES = (_OF_IDS, _OF_COLLECTIONS, _OF_ALL)
_CONTENTS, _ALL = tuple(map(_contents, _SOURCES)), tuple(map(_all, _SOURCES))
# When a revision's rows were complete is when its flip began. Nobody asks unless there was one lately.
_LOOK = f"""
    SELECT seen.revisions, seen.ages, {_epochs("$4")}
    FROM (SELECT max(finished_at) > clock_timestamp() - interval '1 minute' AS flipped FROM jobs
          WHERE state = 'succeeded' AND generation IS NULL) AS lately
    CROSS JOIN LATERAL (
        SELECT array_agg(v.revision) AS revisions, CASE WHEN lately.flipped THEN array_agg((
            SELECT extract(epoch FROM clock_timestamp() - j.finished_at)::float8
            FROM revisions r JOIN jobs j ON j.id = r.job_id
            WHERE r.revision = v.revision AND j.state = 'succeeded')) END AS ages
        FROM {_CANDIDATES} WHERE {_SEEN}
    ) AS seen
"""  # noqa: S608  (constants only)


class Reads:
    """A `Visibility`. Connects when first asked, or ahead (`warm`); `dsn` is a PostgreSQL URL, `connect_args`
    what asyncpg is to open a connection with. One that was lost since its last use is replaced, and the
    question asked once more. Raises `LedgerUnavailable`.

    The driver's own pool makes a task for every connection that is given back; this one is a list."""

    def __init__(self, dsn: str, connect_args: Mapping[str, Any]) -> None:
        self._dsn = dsn
        # A plan made while a table was small stays: it must not read all of it when it is large.
        settings = {**connect_args.get("server_settings", {}), "enable_seqscan": "off"}
        self._connect_args = {**connect_args, "server_settings": settings}
        self._turn = asyncio.Semaphore(CONNECTIONS)
        self._free: list[_Open] = []

    async def warm(self) -> None:
        """Open all connections, with the questions of every search prepared on them: of many who come at once
        after a start each would wait for that. Raises `LedgerUnavailable`."""
        with reaching_ledger():
            self._free += await asyncio.gather(*(self._warmed() for _ in range(CONNECTIONS)))

    async def _warmed(self) -> _Open:
        opened = await self._opened()
        for query in (_LOOK, _EPOCHS):
            await _named(opened.prepare(query))
        return opened

    async def close(self) -> None:
        while self._free:
            self._free.pop().connection.terminate()

    async def visible(
        self, generation: str, where: Filter, candidates: Collection[tuple[str, int]]
    ) -> frozenset[int]:
        rows = await self._ask(_VISIBLE, *_reach(where, generation), *_pairs(candidates))
        return frozenset(row[0] for row in rows)

    async def epoch(self, where: Filter) -> str:
        ((epochs,),) = await self._ask(_EPOCHS, where.tenant, list(where.collections))
        return _digest(epochs)

    async def look(self, generation: str, where: Filter, candidates: Collection[tuple[str, int]]) -> Look:
        (row,) = await self._ask(_LOOK, *_reach(where, generation), *_pairs(candidates))
        revisions, ages, epochs = row
        return Look(epoch=_digest(epochs), ages=_ages(revisions or (), ages))

    async def all_visible(self, generation: str, where: Filter, limit: int) -> tuple[str, Sequence[int]]:
        ((epochs, revisions),) = await self._ask(_ALL[_source(where)], *_reach(where, generation), limit)
        return _digest(epochs), revisions

    async def contents(self, generation: str, where: Filter, limit: int) -> list[tuple[str, int, int]]:
        rows = await self._ask(_CONTENTS[_source(where)], *_reach(where, generation), limit)
        return [(row[0], row[1], row[2]) for row in rows]

    async def _ask(self, query: str, *values: Any) -> Sequence[asyncpg.Record]:
        with reaching_ledger():
            async with self._turn:
                try:
                    return await self._asked(self._kept() or await self._opened(), query, values)
                except _GONE:
                    return await self._asked(await self._opened(), query, values)

    async def _asked(self, at: _Open, query: str, values: Sequence[Any]) -> Sequence[asyncpg.Record]:
        try:
            rows = await _named(at.fetch(query, values))
        except BaseException:  # One whose answer was not waited for must not be asked again.
            at.connection.terminate()
            raise
        self._free.append(at)
        return rows

    def _kept(self) -> _Open | None:
        while self._free:
            at = self._free.pop()
            if not at.connection.is_closed():
                return at
        return None

    async def _opened(self) -> _Open:
        return _Open(await _named(asyncpg.connect(self._dsn, **self._connect_args)))


@dataclass(slots=True)
class _Open:
    """A connection with what was prepared on it. The driver's own cache costs a third of a question more."""

    connection: asyncpg.Connection
    prepared: dict[str, asyncpg.prepared_stmt.PreparedStatement] = field(default_factory=dict)

    async def prepare(self, query: str) -> asyncpg.prepared_stmt.PreparedStatement:
        statement = self.prepared.get(query)
        if statement is None:
            self.prepared[query] = statement = await self.connection.prepare(query)
        return statement

    async def fetch(self, query: str, values: Sequence[Any]) -> Sequence[asyncpg.Record]:
        # Most often it is there: another coroutine would cost more than looking.
        statement = self.prepared.get(query) or await self.prepare(query)
        rows: list[asyncpg.Record] = await statement.fetch(*values)
        return rows


async def _named(work: Awaitable[T]) -> T:
    """Name what the driver and the event loop raise on a connection that breaks under them; the loop's is a
    bare RuntimeError."""
    try:
        return await work
    except (RuntimeError, EOFError, asyncpg.InternalClientError) as error:
        raise ConnectionResetError(f"the connection broke: {error}") from error


def _reach(where: Filter, generation: str) -> tuple[Any, ...]:
    groups = None if where.groups is None else sorted(where.groups)
    return groups, list(where.collections), list(where.document_ids), where.tenant, generation


def _source(where: Filter) -> int:
    """The place of what is looked through in `_SOURCES`."""
    return 0 if where.document_ids else 1 if where.collections else 2


def _pairs(candidates: Collection[tuple[str, int]]) -> tuple[str, str]:
    """As two texts: the driver looks at each item of an array several times. No id holds a comma."""
    documents, revisions = zip(*candidates, strict=True) if candidates else ((), ())
    return ",".join(documents), ",".join(map(str, revisions))


def _ages(revisions: Sequence[int], ages: Sequence[float | None] | None) -> dict[int, float]:
    if ages is None:
        return dict.fromkeys(revisions, math.inf)
    known = zip(revisions, ages, strict=True)
    return {revision: math.inf if age is None else age for revision, age in known}


def _digest(epochs: Sequence[str]) -> str:
    return hashlib.sha256(orjson.dumps(epochs)).hexdigest()[:32]
