"""SQLAlchemy's engine, as far as the ledger uses one, on a bare connection of its driver.

The statements are compiled by SQLAlchemy and sent by asyncpg as ever. What SQLAlchemy does around each is
left out: it is most of what a simulated ledger call would cost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql import asyncpg as dialects

_DIALECT = dialects.dialect()  # type: ignore[no-untyped-call]


class Refused(Exception):
    """PostgreSQL would not do it: in a simulation, where nobody else is connected, a mistake of ours."""


class Row(asyncpg.Record):  # type: ignore[misc]
    """A record whose columns are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Rows(list[Any]):
    def all(self) -> list[Any]:
        return self

    def first(self) -> Any:
        return self[0] if self else None

    def one(self) -> Any:
        (row,) = self
        return row

    def one_or_none(self) -> Any:
        return self.one() if self else None


class Direct:
    """An engine of one connection, which is in a transaction. Nothing is done side by side.

    The next transaction begins in the message that ends the last one, and what is read outside of one is read
    in it: the ledger's statements see what was committed when they begin, and the simulation's `now()` is no
    transaction's either.
    """

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._compiled: dict[str, tuple[str, Sequence[str]]] = {}

    def execution_options(self, *, isolation_level: str) -> Direct:
        if isolation_level != "AUTOCOMMIT":
            raise NotImplementedError(isolation_level)
        return self

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Direct]:
        try:
            yield self
        except BaseException:
            await self._connection.execute("ROLLBACK; BEGIN")
            raise
        await self._connection.execute("COMMIT; BEGIN")

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Direct]:
        yield self

    async def execute(
        self, statement: TextClause, values: Mapping[str, Any] | Sequence[Mapping[str, Any]] = ()
    ) -> Rows:
        if not isinstance(values, Mapping) and values:
            return Rows([row for one in values for row in await self.execute(statement, one)])
        named = values if isinstance(values, Mapping) else {}
        query, names = self._compiled.get(statement.text) or self._compile(statement)
        try:
            return Rows(await self._connection.fetch(query, *[named[name] for name in names]))
        except asyncpg.PostgresError as error:
            raise Refused(f"{error}: {query}") from error

    async def scalars(self, statement: TextClause, values: Mapping[str, Any] | None = None) -> Rows:
        return Rows([row[0] for row in await self.execute(statement, values or {})])

    async def scalar(self, statement: TextClause, values: Mapping[str, Any] | None = None) -> Any:
        row = (await self.execute(statement, values or {})).first()
        return row[0] if row is not None else None

    def _compile(self, statement: TextClause) -> tuple[str, Sequence[str]]:
        compiled = statement.compile(dialect=_DIALECT)
        found = compiled.string, tuple(compiled.positiontup or ())
        self._compiled[statement.text] = found
        return found
