"""Whether the event loop gets round, and what holds it when it does not.

All that a process answers shares one thread: a piece of work that keeps it keeps every request waiting, and
no request's own times tell by whom. So the loop is asked at short intervals how late it is, and when it
stands still a thread looks at what it is doing.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from traceback import walk_stack
from types import FrameType

log = logging.getLogger(__name__)

BEAT = 0.05
LOOKS = 4
"""How often, within the time that counts as a stall, the thread looks: a stall is told at most a fourth of it
late."""
QUIET = 10.0
"""Seconds after a stall was told in which others are only counted: on a machine that is too busy there is one
after the other."""
FRAMES = 12
"""Calls that are named, the innermost first."""


def _unheard(seconds: float) -> None:
    """Nobody counts."""


@contextmanager
def watched(stall: float, late: Callable[[float], None] = _unheard, beat: float = BEAT) -> Iterator[None]:
    """Watch the loop that runs until the block ends. `late` hears at every beat by how many seconds the loop
    missed it. One that stands still for longer than `stall` seconds is logged while it does, with the calls
    that it is in, and once more when it goes on, but not for every of many stalls; 0 logs none. The time for
    which it waits for a processor is the machine's: it is no stall."""
    pulse = _Pulse(asyncio.get_running_loop(), late, beat, stall)
    ended = threading.Event()
    looking = threading.Thread(target=_look, args=(pulse, ended), name="watch the event loop", daemon=True)
    if stall:
        looking.start()
    try:
        yield
    finally:
        pulse.stop()
        ended.set()
        if stall:
            looking.join()


class _Pulse:
    """Beats on the loop. The thread only reads `due`, when the next beat is, and tells by `told` which of
    them it has logged."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, late: Callable[[float], None], beat: float, stall: float
    ) -> None:
        self.stall = stall
        self.thread = threading.get_ident()
        self._task = Path(f"/proc/self/task/{threading.get_native_id()}")
        self.told: float | None = None
        self._loop = loop
        self._late = late
        self._beat = beat
        # Tells work from waiting: a loop that waits for a disk or a lock uses none.
        self._clock = time.pthread_getcpuclockid(self.thread)
        self._next()

    def used(self) -> float:
        """Seconds of processor time since the last beat."""
        return time.clock_gettime(self._clock) - self._used

    def held(self, late: float) -> float:
        """Of so many seconds since the last beat those in which the loop did not wait for a processor."""
        try:
            state = (self._task / "stat").read_text().rpartition(")")[2].split()[0]
            return held(late, self.used(), self._delayed() - self._delay, runnable=state == "R")
        except (OSError, IndexError):  # Only Linux tells.
            return late

    def _delayed(self) -> float:
        """Seconds for which the loop's thread has waited for a processor, up to when it last got one."""
        return int((self._task / "schedstat").read_text().split()[1]) / 1e9

    def stop(self) -> None:
        self._handle.cancel()

    def _next(self) -> None:
        self._used = time.clock_gettime(self._clock)
        with suppress(OSError, IndexError):
            self._delay = self._delayed()
        self.due = time.monotonic() + self._beat
        self._handle = self._loop.call_later(self._beat, self._beats)

    def _beats(self) -> None:
        late = max(0.0, time.monotonic() - self.due)
        self._late(late)
        if self.told == self.due:
            log.warning("the event loop goes on after %.2f s (%.2f s of processor time)", late, self.used())
        self._next()


def _look(pulse: _Pulse, ended: threading.Event) -> None:
    quiet = 0.0
    while not ended.wait(pulse.stall / LOOKS):
        due, now = pulse.due, time.monotonic()
        late = now - due
        if late < pulse.stall or pulse.told == due or now < quiet or pulse.held(late) < pulse.stall:
            continue
        frame = sys._current_frames().get(pulse.thread)
        used, calls = pulse.used(), _calls(frame)
        if pulse.due == due:  # Else it has gone on in the meantime, and is in something else.
            pulse.told, quiet = due, now + QUIET
            log.warning(
                "the event loop has stood still for %.2f s (%.2f s of processor time) in %s",
                *(late, used, calls),
            )


def held(late: float, used: float, delayed: float, *, runnable: bool) -> float:
    """Of a time that a thread was late, the part in which it had a processor or asked for none. `delayed` is
    for how long it waited for one, as far as that is over: one that could run and has not, waits still."""
    return used if runnable else late - delayed


def _calls(frame: FrameType | None) -> str:
    """The innermost calls, with their lines."""
    named = [f"{_place(each)}:{line}" for each, line in walk_stack(frame)]
    return " < ".join(named[:FRAMES])


def _place(frame: FrameType) -> str:
    return f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}"
