"""When a child that reads a file is given up: told from its work, so that a busy machine harms no good file.

What counts is the processor time that the child took, and the time for which it asked for none: a reader has
nothing to wait for. The time for which it waited for a processor is the machine's, not the file's.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

SECONDS, SECONDS_PER_MIB = 15.0, 2.0
"""For one part of any file, and for each MiB of the file more: what takes longer is a trap, not work."""
PATIENCE = 10.0
"""Wall time for all of a file, in its seconds of work: a machine that is busier than that reads nothing."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Limits:
    """`part` is how long a reader may stay at one part of a file, `whole` how long it may take for all."""

    part: float
    whole: float

    @staticmethod
    def of(size: int, whole: float) -> Limits:
        """For a file of so many bytes."""
        return Limits(min(whole, SECONDS + SECONDS_PER_MIB * size / 2**20), whole)

    def stuck(self, part: str | None) -> str:
        took = "makes no progress: a part of it takes" if part else "takes"
        return f"Reading the document {took} over {self.part:.0f} seconds, which is the limit for its size."

    def too_long(self) -> str:
        return (
            f"Reading the document takes over {self.whole:.0f} seconds, which is the limit for any. "
            "Split it, or raise PLUMBLINE_PARSE_TIMEOUT."
        )


class Pace:
    """Follows one process through one file; looked at often."""

    def __init__(self, process: int, limits: Limits) -> None:
        self._stat = Path(f"/proc/{process}/stat")
        self._limits = limits
        self._begun = self._looked = time.monotonic()
        self._processor, _ = self._used()
        self._whole = self._part = 0.0
        self._at: str | None = None

    def over(self, part: str | None) -> str | None:
        """Whether a limit is reached, now that this part is read: the sentence that says which."""
        self._count()
        if part != self._at:
            self._at, self._part = part, 0.0
        if self._part > self._limits.part:
            return self._limits.stuck(part)
        if self._whole > self._limits.whole or self._looked - self._begun > PATIENCE * self._limits.whole:
            return self._limits.too_long()
        return None

    def _count(self) -> None:
        now = time.monotonic()
        processor, runs = self._used()
        spent = max(0.0, processor - self._processor)
        if not runs:
            spent = max(spent, now - self._looked)
        self._processor, self._looked = processor, now
        self._part += spent
        self._whole += spent

    def _used(self) -> tuple[float, bool]:
        """Seconds of processor time, and whether it runs or waits for a processor. Where the kernel does not
        say, all time counts."""
        try:
            _, _, told = self._stat.read_text().rpartition(") ")
        except OSError:
            return 0.0, False
        state, *numbers = told.split()
        return (int(numbers[10]) + int(numbers[11])) / _TICKS, state == "R"
