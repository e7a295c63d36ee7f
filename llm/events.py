"""Server-sent events out of a byte stream, in whatever pieces it comes.

The format: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream.
Only `data` is of interest here. An event that is not closed by a blank line is dropped, as it says there.
"""

from __future__ import annotations

import re

LONGEST = 1 << 18
"""Bytes of one unfinished event, at most; a server that sends more is not speaking this format."""

_LINE = re.compile(rb"\r\n|\n|\r(?!\Z)")


class EventTooLong(ValueError):
    """More than `LONGEST` bytes came without the end of an event."""


class Events:
    """Feed it bytes; it returns the data of every event that they complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[str]:
        given = self._rest + piece
        # A pattern looks at every byte, and every token of an answer comes through here.
        *lines, self._rest = _LINE.split(given) if b"\r" in given else given.split(b"\n")
        found = []
        for line in lines:
            if line:
                self._take(line)
            elif self._data:
                found.append(b"\n".join(self._data).decode("utf-8", errors="replace"))
                self._data = []
        if len(self._rest) + sum(map(len, self._data)) > LONGEST:
            raise EventTooLong(f"An event is longer than {LONGEST} bytes.")
        return found

    def _take(self, line: bytes) -> None:
        field, _, value = line.removeprefix(b"\xef\xbb\xbf").partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
