"""A proxy in front of a model server that makes it slow, or lets it fail, while it runs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

COMPLETIONS = "/v1/chat/completions"
_HOP = {"host", "content-length", "transfer-encoding", "connection"}


@dataclass(frozen=True, slots=True)
class Fault:
    """Every piece of an answer comes `slow` times as late as it would, counted from the request's arrival;
    the share `errors` of the requests is answered with 500."""

    slow: float = 1.0
    errors: float = 0.0


NONE = Fault()


@dataclass(slots=True)
class Proxy:
    """Relays to `target`, a base URL without `/v1`. Completions meet the `fault` that is set when they
    arrive; everything else passes. `completions` and `failed` count."""

    target: str
    client: aiohttp.ClientSession
    url: str = ""
    fault: Fault = NONE
    completions: int = 0
    failed: int = 0
    _dice: random.Random = field(default_factory=lambda: random.Random(3))

    async def relay(self, request: web.Request) -> web.StreamResponse:
        fault = self.fault if request.path == COMPLETIONS else NONE
        self.completions += request.path == COMPLETIONS
        if self._dice.random() < fault.errors:
            self.failed += 1
            return web.json_response({"error": {"message": "As the fault wants it."}}, status=500)
        begin = asyncio.get_running_loop().time()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        async with self.client.request(
            request.method, self.target + request.path_qs, headers=headers, data=await request.read()
        ) as reply:
            kept = {name: value for name, value in reply.headers.items() if name.lower() not in _HOP}
            response = web.StreamResponse(status=reply.status, headers=kept)
            await _later(begin, fault.slow)
            await response.prepare(request)
            async for begun, piece in _stamped(reply, begin):
                await _later(begin, fault.slow, begun)
                await response.write(piece)
            await response.write_eof()
            return response


async def _stamped(reply: aiohttp.ClientResponse, begin: float) -> AsyncIterator[tuple[float, bytes]]:
    """The pieces with the seconds after which each came, read as they come, however late they leave."""
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    clock = asyncio.get_running_loop().time

    async def read() -> None:
        async for piece in reply.content.iter_any():
            pieces.put_nowait((clock() - begin, piece))
        pieces.put_nowait((clock() - begin, b""))

    reading = asyncio.create_task(read())
    try:
        while True:
            getting = asyncio.create_task(pieces.get())
            await asyncio.wait((getting, reading), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
            came, piece = await getting
            if not piece:
                return
            yield came, piece
    finally:
        reading.cancel()


async def _later(begin: float, slow: float, came: float | None = None) -> None:
    """Wait until `slow` times as long has passed since `begin` as had when it came, or has now."""
    now = asyncio.get_running_loop().time() - begin
    await asyncio.sleep(max(0.0, slow * (now if came is None else came) - now))


@asynccontextmanager
async def proxy(target: str) -> AsyncIterator[Proxy]:
    """On loopback in front of `target`, until the block ends."""
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=120), auto_decompress=False
    ) as client:
        found = Proxy(target, client)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", found.relay)
        # A caller that hangs up must be seen by the model too.
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield found
        finally:
            await runner.cleanup()
