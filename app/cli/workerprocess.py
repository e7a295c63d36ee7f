"""The life of a worker process: open what it stands on, work until told to stop, close."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

from app import stalls, telemetry
from app.launcher import yield_to_others
from app.pulse import beating
from app.settings import Settings
from app.standalone import WORKER_READY
from app.supervisor import signals
from app.wiring import open_worker

log = logging.getLogger(__name__)


async def run(settings: Settings, nice: int = 0) -> None:
    """Work until SIGINT or SIGTERM; jobs in hand go back to the queue. A second signal does not wait. `nice`
    is for the work, not for getting ready: somebody waits for that."""
    telemetry.log_to_stderr(settings.log_level)
    flush = telemetry.start("plumbline-worker", os.environ)
    stop, hurry = asyncio.Event(), asyncio.Event()
    try:
        with signals(stop, hurry):
            async with beating(settings.pulse), open_worker(settings) as work:
                if nice:
                    yield_to_others(nice)
                log.info(WORKER_READY)
                with stalls.watched(settings.stall):
                    await _until(hurry, asyncio.ensure_future(work(stop)))
    finally:
        await asyncio.to_thread(flush)


async def _until(hurry: asyncio.Event, working: asyncio.Future[None]) -> None:
    hurried = asyncio.ensure_future(hurry.wait())
    both: set[asyncio.Future[Any]] = {working, hurried}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if not working.done():
        working.cancel()
        await asyncio.wait({working})
    else:
        await working
