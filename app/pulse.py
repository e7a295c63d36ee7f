"""Shows to those outside that the event loop gets round: what listens nowhere can be asked nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

log = logging.getLogger(__name__)

BEAT = 5.0
"""Seconds. What computes for long does so in threads and processes of its own, so that a busy process is on
time."""


@asynccontextmanager
async def beating(file: Path | None, beat: float = BEAT) -> AsyncIterator[None]:
    """Touch the file, if there is to be one, at every beat until the block ends, and remove it then."""
    if file is None:
        yield
        return
    beats = asyncio.create_task(_beat(file, beat), name="pulse")
    try:
        yield
    finally:
        beats.cancel()
        await asyncio.gather(beats, return_exceptions=True)
        _forget(file)


async def _beat(file: Path, beat: float) -> None:
    while True:
        _show(file)
        await asyncio.sleep(beat)


def _show(file: Path) -> None:
    try:
        file.touch()
    except OSError as error:
        log.warning("The pulse cannot be shown in %s: %s", file, error.strerror)


def _forget(file: Path) -> None:
    with suppress(OSError):
        file.unlink()
