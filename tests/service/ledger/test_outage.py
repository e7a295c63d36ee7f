"""PostgreSQL away, slow or restarted: a typed error in time, and back without doing anything."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import embedded, migrate
from app.database import ASKED_AFTER, connect_args, dsn, open_engine
from app.settings import SettingsError
from ingestion import erasures
from ingestion.erasing import LOCK, Erasing
from ingestion.errors import LedgerUnavailable
from ingestion.ledger import Ledger
from ingestion.postgres import reaching_ledger
from ingestion.reads import Reads
from ingestion.transaction import session
from ingestion.types import Erasure, Job, JobQuery
from retrieval.types import Filter, IndexSpec

LONG_AGO = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))


@contextmanager
def _started(part: embedded.Part) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        part.command, user=part.user, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def _eventually(ask: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await ask()
            except LedgerUnavailable:
                await asyncio.sleep(0.1)
            else:
                return


async def test_a_postgresql_killed_and_started_again_is_used_again(
    parts_folder: Path, spec: IndexSpec
) -> None:
    sockets = parts_folder / "mortal"
    sockets.mkdir(mode=0o700)
    part = embedded.postgres(parts_folder / "mortal-data", sockets)
    engine = open_engine(part.url)
    ledger = Ledger(engine)
    with _started(part):
        await _eventually(ledger.ping)
        await migrate.upgrade(part.url)
        await ledger.ensure_generation(spec, "hashing")
        await asyncio.gather(*(ledger.serving() for _ in range(8)))
    for ask in (ledger.ping, ledger.serving, ledger.operation, lambda: ledger.lease("w", 30, 1)):
        with pytest.raises(LedgerUnavailable, match="PostgreSQL"):
            await ask()
    part = embedded.postgres(parts_folder / "mortal-data", sockets)
    with _started(part):
        await _eventually(ledger.ping)
        assert await asyncio.gather(*(ledger.serving() for _ in range(8))) == [{spec.generation}] * 8
        await engine.dispose()


async def test_a_ledger_that_hangs_is_said_to_be_away(
    ledger_url: str, engine: AsyncEngine, accept: Callable[..., Awaitable[Job]]
) -> None:
    await accept("handbook")
    hasty = open_engine(ledger_url, command_timeout=2.0)
    async with engine.begin() as blocker:
        await blocker.execute(text("LOCK TABLE documents, jobs IN ACCESS EXCLUSIVE MODE"))
        for ask in (
            lambda: Ledger(hasty).document("acme", None, "handbook"),
            lambda: Ledger(hasty).lease("w", 30, 1),
        ):
            with pytest.raises(LedgerUnavailable):
                await ask()
    assert (await Ledger(hasty).document("acme", None, "handbook")).id == "handbook"
    assert len(await Ledger(hasty).lease("w", 30, 1)) == 1
    await hasty.dispose()


async def test_a_value_that_postgresql_cannot_hold_is_no_outage(ledger_url: str, ledger: Ledger) -> None:
    """Waiting mends nothing: it is a defect of whoever let it through."""
    reads = Reads(dsn(ledger_url), connect_args())
    for ask in (
        lambda: ledger.rules("acme", "\0"),
        lambda: ledger.jobs("acme", JobQuery(since=LONG_AGO), limit=1),
        lambda: ledger.jobs("acme", JobQuery(collection="\0"), limit=1),
        lambda: reads.epoch(Filter(tenant="\0", groups=None)),
    ):
        with pytest.raises(Exception, match=r"invalid byte sequence|out of range|invalid input") as raised:
            await ask()
        assert not isinstance(raised.value, LedgerUnavailable)
    await ledger.ping()
    await reads.close()


async def test_an_idle_connection_that_leads_nowhere_is_replaced(ledger_url: str, tmp_path: Path) -> None:
    """A network that drops what passes through it closes nothing."""
    url = make_url(ledger_url)
    socket = f".s.PGSQL.{url.query.get('port', 5432)}"
    lost, relays = set[int](), list["asyncio.Task[None] | None"]()

    async def relay(number: int, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while content := await source.read(2**16):
            if number not in lost:
                target.write(content)
        target.close()
        await target.wait_closed()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(relays)
        relays.append(asyncio.current_task())
        inner, outer = await asyncio.open_unix_connection(f"{url.query['host']}/{socket}")
        await asyncio.gather(relay(number, reader, outer), relay(number, inner, writer))

    server = await asyncio.start_unix_server(connected, tmp_path / socket)
    engine = open_engine(
        url.update_query_dict({"host": str(tmp_path)}).render_as_string(hide_password=False),
        command_timeout=0.5,
    )
    ledger = Ledger(engine)
    await ledger.operation()
    assert len(relays) == 1
    lost.add(0)
    await asyncio.sleep(1.1 * ASKED_AFTER)
    await ledger.operation()
    await engine.dispose()
    server.close()
    await asyncio.gather(*(one for one in relays if one))


async def test_a_connection_whose_driver_has_lost_its_place_is_replaced(
    ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an answer that was cut off while PostgreSQL waited for its copy."""
    execute, asked = asyncpg.Connection.execute, list[str]()
    database = make_url(ledger_url).database

    async def lost(connection: asyncpg.Connection, query: str, *values: object) -> object:
        if connection._params.database != database:  # of whoever else is at work in this process
            return await execute(connection, query, *values)
        asked.append(query)
        if len(asked) == 1:
            raise asyncpg.InternalClientError(
                "cannot switch to state 15; another operation (2) is in progress"
            )
        return await execute(connection, query, *values)

    engine = open_engine(ledger_url)
    ledger = Ledger(engine)
    await ledger.ping()
    await asyncio.sleep(1.1 * ASKED_AFTER)
    monkeypatch.setattr(asyncpg.Connection, "execute", lost)
    await ledger.ping()
    assert asked == ["SELECT 1"]
    await engine.dispose()


async def test_a_driver_that_loses_its_place_in_an_answer_is_an_outage() -> None:
    with pytest.raises(LedgerUnavailable), reaching_ledger():
        raise asyncpg.InternalClientError("got result for unknown protocol state 3")


async def _begun(engine: AsyncEngine) -> None:
    which = Filter(tenant="acme", groups=None, document_ids=("gone",))
    erasing = Erasing(engine)
    await erasing.chosen(await erasing.begin(which, "tenant", "a test"))


async def test_an_erasure_whose_connection_breaks_is_an_outage(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anything else would end the worker."""
    await _begun(engine)
    following, asked = erasures.following, count()

    async def broken(connection: AsyncConnection) -> Erasure | None:
        if next(asked) == 1:
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return await following(connection)

    monkeypatch.setattr(erasures, "following", broken)
    with pytest.raises(LedgerUnavailable):
        async with Erasing(engine).next():
            pass
    async with Erasing(engine).next() as erasure:
        assert erasure is not None


async def test_an_erasure_is_one_processs_while_that_is_heard_from(engine: AsyncEngine) -> None:
    await _begun(engine)
    silence = 1.0

    async def mine() -> bool:
        async with Erasing(engine, silence).next() as erasure:
            return erasure is not None

    async with Erasing(engine, silence).next() as erasure:
        assert erasure is not None
        await asyncio.sleep(1.5 * silence)
        assert not await mine()
    assert await mine()
    async with session(engine, silence) as hanging:
        await hanging.execute(text(f"SELECT pg_advisory_lock({LOCK})"))
        assert not await mine()
        await asyncio.sleep(1.5 * silence)
        assert await mine()


async def test_more_calls_than_connections_wait_their_turn(ledger: Ledger) -> None:
    assert len(await asyncio.gather(*(ledger.operation() for _ in range(30)))) == 30


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mysql://root@localhost/db",
        "postgresql://u@one:5432,other:5432/db",
        "postgresql://u@/db?host=one&host=other",
    ],
)
async def test_an_address_that_is_none_of_a_postgresql_is_told_in_a_sentence(url: str) -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        open_engine(url)


async def test_the_usual_spellings_of_a_postgresql_url_are_understood() -> None:
    for url in (
        "postgres://u:p@h/db?sslmode=require",
        "postgresql://u:p@h/db",
        "postgresql+asyncpg://u:p@h/db",
    ):
        engine = open_engine(url)
        assert engine.url.drivername == "postgresql+asyncpg"
        assert "sslmode" not in engine.url.query
        await engine.dispose()
