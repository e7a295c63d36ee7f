"""Citation markers in streamed text: `[2]` or `[1, 3]`.

A marker is held back until it is complete, at most 16 characters, and leaves only if it names a source.
On the way, syntax that a renderer would turn into a link or an image is made harmless: text from a
document or a model must not be able to load or link anything.
"""

from __future__ import annotations

import re

HELD = 16
_MARKER = re.compile(r"\[\s*\d{1,4}(?:\s*,\s*\d{1,4})*\s*\]")
_BEGUN = re.compile(r"\[[\s\d,]*")
_LIVE = re.compile(
    r"(?<=!)(?=\[)|(?<=\])(?=[(:])|(?<=<)(?=[A-Za-z/!?])|(?<=[A-Za-z]:)(?=/)|(?<=[Ww]{3})(?=\.)"
)
"""Places between two characters that together begin a link, an image, its definition, a tag, or an address
that renderers make a link of (which stays readable: `https: //`)."""
_LOOK_BEHIND = 3


class Markers:
    """Filters one stream of text. `known` is the number of sources; `cited` collects those named."""

    def __init__(self, known: int) -> None:
        self._known = known
        self._held = ""
        self._last = ""
        self.cited: list[int] = []

    def feed(self, text: str) -> str:
        """Take a piece of the stream; return what may leave now."""
        self._held += text
        ready: list[str] = []
        while self._held:
            piece = self._take(self._held)
            if piece is None:
                break
            ready.append(piece)
        return self._harmless("".join(ready))

    def finish(self) -> str:
        """The stream has ended: return what was held back, unless it is a marker cut off in the middle."""
        rest, self._held = self._held, ""
        return "" if any(character.isdigit() for character in rest) else self._harmless(rest)

    def _take(self, held: str) -> str | None:
        """Remove the next piece that is decided from what is held; None while it may become a marker."""
        start = held.find("[")
        if start:
            return self._cut(len(held) if start < 0 else start)
        match = _MARKER.match(held)
        if match:
            self._cut(match.end())
            return self._resolve(match.group())
        if len(held) < HELD and _BEGUN.fullmatch(held):
            return None
        return self._cut(1)

    def _resolve(self, marker: str) -> str:
        known = [n for n in map(int, re.findall(r"\d+", marker)) if 1 <= n <= self._known]
        for number in known:
            if number not in self.cited:
                self.cited.append(number)
        return "".join(f"[{number}]" for number in dict.fromkeys(known))

    def _harmless(self, text: str) -> str:
        safe = _LIVE.sub(" ", self._last + text)[len(self._last) :]
        self._last = (self._last + safe)[-_LOOK_BEHIND:]
        return safe

    def _cut(self, length: int) -> str:
        piece, self._held = self._held[:length], self._held[length:]
        return piece
