"""The ledger's database for commands that need no running service: the one that the settings name, that of
the instance that runs on the data folder, or that folder's own, started for the moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from app import embedded, instance, migrate
from app.child import Child
from app.database import open_engine
from app.partlog import PartLog
from app.settings import Settings
from app.supervisor import Supervisor


@asynccontextmanager
async def open_ledger(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """A migrated ledger, for as long as the block lasts."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(open_database(settings))
        await migrate.upgrade(url)
        engine = open_engine(url, pool_size=2)
        stack.push_async_callback(engine.dispose)
        yield engine


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[str]:
    """The address of its database as it is, for as long as the block lasts."""
    running = instance.running(settings.data)
    if settings.database_url:
        yield settings.database_url.get_secret_value()
    elif running:
        yield running.database_url
    else:
        async with _own(settings) as url:
            yield url


@asynccontextmanager
async def _own(settings: Settings) -> AsyncIterator[str]:
    data = settings.data.resolve()
    if not (data / "postgres" / "PG_VERSION").is_file():
        raise instance.InstanceError(
            f"There is no instance in {data}: name its folder with --data, its database in DATABASE_URL, or "
            f"make a new one with `plumbline up --data {settings.data}`."
        )
    supervisor = Supervisor(lambda line: None)
    with instance.hold(data, "no address: a command uses its database"), instance.sockets_folder() as sockets:
        (data / "logs").mkdir(exist_ok=True)
        part = await asyncio.to_thread(embedded.postgres, data / "postgres", sockets)
        log = PartLog("postgres", data / "logs", lambda line: None, always=False)
        try:
            await supervisor.start([Child(part, log, lambda line: None)])
            yield part.url
        finally:
            await supervisor.stop()
