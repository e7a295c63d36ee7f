"""Connections to PostgreSQL: one pool per process, whose every wait has an end."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.settings import SettingsError

CONNECT_TIMEOUT = 3.0
COMMAND_TIMEOUT = 10.0
POOL_TIMEOUT = 5.0


def open_engine(
    database_url: str, *, pool_size: int = 10, command_timeout: float | None = COMMAND_TIMEOUT
) -> AsyncEngine:
    """A pool of connections. One found dead when it is taken is replaced, so that a restarted server is
    back without doing anything here. Close it with `await engine.dispose()`."""
    return create_async_engine(
        _url(database_url),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=POOL_TIMEOUT,
        pool_pre_ping=True,
        connect_args=connect_args(command_timeout),
    )


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
    return {"timeout": CONNECT_TIMEOUT, "command_timeout": command_timeout, "server_settings": settings}


def _url(database_url: str) -> URL:
    """The URL as people write it (`postgres://`, `sslmode=`), as the driver wants it."""
    try:
        url = make_url(database_url)
    except ArgumentError:
        raise SettingsError("DATABASE_URL is not a URL like postgresql://user:password@host/name.") from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise SettingsError(f"DATABASE_URL names {url.get_backend_name()}; the ledger needs PostgreSQL.")
    query = dict(url.query)
    if "sslmode" in query:
        query["ssl"] = query.pop("sslmode")
    return url.set(drivername="postgresql+asyncpg", query=query)
