"""What a child process prints: kept in a file of bounded size, and shown where it matters."""

from __future__ import annotations

import json
import logging
import re
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

from app.printable import printable

FILE_BYTES = 8 * 2**20
OLD_FILES = 2
LONGEST_LINE = 16_384
REMEMBERED_LINES = 40

# How PostgreSQL, Redis, Python and uvicorn say that a thing matters.
_MATTERS = re.compile(r"\b(warn|warning|fatal|panic|critical|error|traceback)\b", re.IGNORECASE)
_LEVELS_THAT_MATTER = frozenset({"warning", "error", "critical"})


class _QuietOnFullDisk(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (the name it overrides)
        """A line that cannot be written is dropped: a full disk must not stop the part that wrote it. The
        file is opened anew for the next one: of a stream that failed nothing more may come."""
        failed, self.stream = self.stream, None
        with suppress(OSError, ValueError):
            if failed is not None:
                failed.close()


class PartLog:
    """The output of one part over all its restarts.

    `heard` says whether `awaited` was printed since the last `begin`. Lines that matter go to `show` while
    `shown` is set: what a part complains of while it starts or stops is in the file only. With `always`
    every line goes there, always.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        show: Callable[[str], None],
        *,
        always: bool,
        awaited: str | None = None,
    ) -> None:
        self.name = name
        self.path = folder / f"{name}.log"
        self.heard = False
        self.shown = False
        self._show = show
        self.always = always
        self._awaited = awaited
        self._rest = b""
        self._last: deque[str] = deque(maxlen=REMEMBERED_LINES)
        self._file = _QuietOnFullDisk(self.path, maxBytes=FILE_BYTES, backupCount=OLD_FILES, encoding="utf-8")

    def begin(self) -> None:
        """A new process starts to print."""
        self.flush()
        self.heard = self.shown = False

    def feed(self, data: bytes) -> None:
        """Take what was read, which may end in the middle of a line."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line)
        if len(self._rest) > LONGEST_LINE:
            self.flush()

    def flush(self) -> None:
        rest, self._rest = self._rest, b""
        if rest:
            self._line(rest)

    def tail(self) -> list[str]:
        """The last lines, oldest first."""
        return list(self._last)

    def close(self) -> None:
        self.flush()
        self._file.close()

    def _line(self, raw: bytes) -> None:
        line = raw.decode("utf-8", "replace").rstrip()
        self._last.append(printable(line))
        self.heard = self.heard or (self._awaited is not None and self._awaited in line)
        self._file.handle(
            logging.LogRecord(self.name, logging.INFO, "", 0, line.replace("%", "%%"), (), None)
        )
        matters, text = _read(line)
        if text and (self.always or (self.shown and matters)):
            self._show(f"{self.name} | {text}")


def _read(line: str) -> tuple[bool, str]:
    """Whether a line matters, and how a person reads it: our own processes write JSON lines.

    What is in it may be a caller's: a message is one line, and a stack trace's are set in.
    """
    if line.startswith("{"):
        try:
            said = json.loads(line)
            level, text = str(said["level"]), str(said["message"])
        except (ValueError, KeyError, TypeError):
            return bool(_MATTERS.search(line)), printable(line)
        shown = text if level == "info" else f"{level}: {text}"
        trace = str(said.get("exception", "")).splitlines()
        lines = (printable(shown), *(f"  {printable(one)}" for one in trace))
        return level in _LEVELS_THAT_MATTER, "\n".join(lines)
    return bool(_MATTERS.search(line)), printable(line)
