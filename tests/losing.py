"""A way to a server whose first connection can be lost as when a machine is gone: nothing closes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast


@asynccontextmanager
async def losing(host: str, port: int) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """The way's address, and what loses the connection that was made first."""
    lost, ways = asyncio.Event(), list["asyncio.Task[Any]"]()

    async def relay(number: int, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while content := await source.read(2**16):
                if number or not lost.is_set():
                    target.write(content)
        target.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(ways)
        ways.append(cast("asyncio.Task[Any]", asyncio.current_task()))
        inner, outer = await asyncio.open_connection(host, port)
        try:
            await asyncio.gather(relay(number, reader, outer), relay(number, inner, writer))
        finally:
            outer.transport.abort()
            writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1")
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", lost
    finally:
        server.close()
        for one in ways:
            one.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
