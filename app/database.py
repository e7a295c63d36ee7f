"""Connections to PostgreSQL: one pool per process, whose every wait has an end."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import URL, event, make_url
from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.exc import ArgumentError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.settings import SettingsError

CONNECT_TIMEOUT = 3.0
COMMAND_TIMEOUT = 10.0
POOL_TIMEOUT = 5.0
ASKED_AFTER = 1.0
"""Seconds without use after which a connection is asked whether its server is there, before it is used."""
_USED = "used_at"


def open_engine(
    database_url: str, *, pool_size: int = 10, command_timeout: float | None = COMMAND_TIMEOUT
) -> AsyncEngine:
    """A pool of connections. One found dead when it is taken is replaced, so that a restarted server is
    back without doing anything here. Close it with `await engine.dispose()`."""
    engine = create_async_engine(
        _url(database_url),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=POOL_TIMEOUT,
        # The one used last has its statements prepared, and was just seen to live.
        pool_use_lifo=True,
        connect_args=connect_args(command_timeout),
    )
    event.listen(engine.sync_engine, "checkin", _used)
    event.listen(engine.sync_engine, "checkout", _alive)
    return engine


def _used(connection: Any, record: Any) -> None:
    record.info[_USED] = time.monotonic()


def _alive(connection: AdaptedConnection, record: Any, proxy: Any) -> None:
    """SQLAlchemy's own ping costs three round trips each time; here only those idle for a while are asked. A
    server that goes away closes its connections, which the driver notices by itself."""
    used = record.info.get(_USED, time.monotonic())
    closed: bool = connection.driver_connection.is_closed()
    if not closed and time.monotonic() - used > ASKED_AFTER:
        try:
            connection.run_async(lambda driver: driver.execute("SELECT 1"))
        except Exception:  # noqa: BLE001 - whatever it fails with, and the driver has many ways, it is of no use
            closed = True
    if closed:
        raise InvalidatePoolError


def dsn(database_url: str) -> str:
    """The URL as the driver itself takes it."""
    return _url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)


def connect_args(command_timeout: float | None = COMMAND_TIMEOUT) -> dict[str, Any]:
    """What every connection is opened with, whoever opens it."""
    # A client that stalls inside a transaction must not keep its locks for good.
    settings = {
        "application_name": "plumbline",
        "idle_in_transaction_session_timeout": "30s",
        "jit": "off",
    }
    return {
        "timeout": CONNECT_TIMEOUT,
        "command_timeout": command_timeout,
        # Where an address leads while another server takes over, one may be met that only follows: it shows
        # what has been deleted since, takes no write, and would be kept for good.
        "target_session_attrs": "primary",
        "server_settings": settings,
    }


def _url(database_url: str) -> URL:
    """The URL as people write it (`postgres://`, `sslmode=`), as the driver wants it. Several servers are
    named by `?host=one:5432&host=other:5432`: the one that takes writes is used."""
    try:
        url = make_url(database_url)
    except (ArgumentError, ValueError):
        raise SettingsError("DATABASE_URL is not a URL like postgresql://user:password@host/name.") from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise SettingsError(f"DATABASE_URL names {url.get_backend_name()}; the ledger needs PostgreSQL.")
    query = dict(url.query)
    if "sslmode" in query:
        query["ssl"] = query.pop("sslmode")
    made = url.set(drivername="postgresql+asyncpg", query=query)
    try:
        made.get_dialect()().create_connect_args(made)
    except ArgumentError as error:
        raise SettingsError(f"DATABASE_URL: {error}.") from None
    return made
