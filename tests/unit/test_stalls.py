"""A loop that stands still is told while it does, with what holds it; how late it is, is counted."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator

import pytest

from app import stalls

PATIENCE = 60.0
STALL = 0.05
"""Seconds; longer than the loop is kept by anything but `_hold`."""


class _Ear(logging.Handler):
    """Hears the watch's lines, and says so to whoever waits in a thread."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.heard = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.heard.set()


@pytest.fixture
def ear() -> Iterator[_Ear]:
    heard = _Ear()
    stalls.log.addHandler(heard)
    yield heard
    stalls.log.removeHandler(heard)


def _hold(ear: _Ear) -> None:
    """Keeps the loop until that is told."""
    ear.heard.clear()
    assert ear.heard.wait(PATIENCE)


async def _until(ear: _Ear, lines: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(ear.lines) < lines:
            await asyncio.sleep(0.01)


async def test_what_holds_the_loop_is_named_while_it_does(ear: _Ear) -> None:
    with stalls.watched(STALL):
        await asyncio.sleep(0.01)
        _hold(ear)
        told = list(ear.lines)
        await _until(ear, len(told) + 1)
    [line] = [line for line in told if "test_stalls._hold:" in line]
    # From the inside to the outside.
    assert line.index("threading.Event.wait:") < line.index("test_stalls._hold:")
    assert line.index("test_stalls._hold:") < line.index("test_what_holds_the_loop_is_named_while_it_does:")
    assert "goes on after" in ear.lines[len(told)]


async def test_work_that_holds_the_loop_is_told_as_well_as_waiting(ear: _Ear) -> None:
    with stalls.watched(STALL):
        await asyncio.sleep(0.01)
        ear.heard.clear()
        end = time.monotonic() + PATIENCE
        while not ear.heard.is_set():
            assert time.monotonic() < end


@pytest.mark.parametrize(
    ("used", "delayed", "runnable", "seconds"),
    [
        (0.9, 0.0, True, 0.9),  # it computes
        (0.0, 0.0, True, 0.0),  # it could, if it had a processor
        (0.0, 0.0, False, 1.0),  # it waits for a disk or a lock
        (0.1, 0.8, False, 0.2),  # it had to wait for a processor before
    ],
)
def test_waiting_for_a_processor_is_no_stall(
    used: float, delayed: float, runnable: bool, seconds: float
) -> None:
    assert stalls.held(1.0, used, delayed, runnable=runnable) == pytest.approx(seconds)


async def test_a_stall_is_told_once_however_long_it_is(ear: _Ear) -> None:
    with stalls.watched(STALL):
        _hold(ear)
        ear.heard.clear()
        # The same stall goes on, and nothing more is said of it.
        assert not ear.heard.wait(10 * STALL)
        assert sum("stood still" in line for line in ear.lines) == 1


async def test_of_many_stalls_not_every_one_is_told(ear: _Ear) -> None:
    with stalls.watched(STALL):
        _hold(ear)
        await _until(ear, 2)
        ear.heard.clear()
        assert not ear.heard.wait(10 * STALL)


async def test_how_late_each_beat_was_is_counted() -> None:
    late: list[float] = []
    with stalls.watched(0, late.append, beat=0.001):
        async with asyncio.timeout(PATIENCE):
            while len(late) < 3:
                await asyncio.sleep(0.001)
    assert min(late) >= 0
    counted = len(late)
    await asyncio.sleep(0.01)
    assert len(late) == counted


async def test_with_the_block_the_thread_ends_and_without_a_limit_there_is_none() -> None:
    def watching() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one.name == "watch the event loop"]

    before = len(watching())
    with stalls.watched(STALL):
        assert len(watching()) == before + 1
    with stalls.watched(0):
        assert len(watching()) == before
