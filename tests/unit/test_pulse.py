"""Whether a process that listens nowhere is stuck, can be seen from outside."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path

import pytest

from app.pulse import beating

BEAT = 0.02


def _age(file: Path) -> None:
    os.utime(file, (1, 1))


async def _beaten(file: Path) -> None:
    async with asyncio.timeout(20):
        while not file.exists() or file.stat().st_mtime < 2:
            await asyncio.sleep(BEAT)


async def test_a_loop_that_gets_round_shows_it_and_one_that_is_stuck_does_not(tmp_path: Path) -> None:
    file = tmp_path / "pulse"
    async with beating(file, BEAT):
        await _beaten(file)
        _age(file)
        await _beaten(file)
        _age(file)
        time.sleep(5 * BEAT)
        assert file.stat().st_mtime == 1
        await _beaten(file)
    assert not file.exists()


async def test_a_place_that_cannot_be_written_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with beating(tmp_path / "nowhere" / "pulse", BEAT):
            await asyncio.sleep(2 * BEAT)
    assert "The pulse cannot be shown" in caplog.text
    async with beating(None):
        pass
