"""The sentences of an answer, told apart while it streams, each with the sources that it names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from llm.sentences import abbreviated

LONGEST = 1_000
"""Characters after which a text without an end counts as a sentence."""
TAIL = 200
"""Characters before a gap among which the last word and the markers of its sentence are: looking at all of a
long sentence at every gap costs more than the rest of the stream."""
_GAP = re.compile(
    # After a character with which a sentence and the markers after it can end, or with a line's end in it.
    r"(?<=[.!?…。！？\"'”’)\]*_])\s+(?=\S)|[^\S\n]*\n\s*(?=\S)|(?<=[。！？\]])(?=[^\s\[])"
)
"""Where a sentence may end."""
_MARKER = re.compile(r"\s*\[(\d{1,4})\]")
_MARKERS_AT_END = re.compile(r"(?:\s*\[\d{1,4}\])+\Z")
_ENDS = re.compile(r"[.!?…。！？][\"'”’)\]*_]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One sentence. `start` and `end` are characters of the answer, its markers included; `text` is
    without them; `citations` are the numbers that they name."""

    number: int
    start: int
    end: int
    text: str
    citations: tuple[int, ...]


class Claims:
    """Fed with what leaves of an answer, markers complete. A sentence is known to have ended when the next
    one begins, since markers may follow its full stop."""

    def __init__(self) -> None:
        self._open = ""
        self._at = 0
        self._looked = 0
        self._count = 0

    @property
    def open(self) -> str:
        """What has been said of the sentence that has not ended."""
        return self._open

    def feed(self, text: str) -> list[Claim]:
        self._open += text
        found: list[Claim] = []
        while (end := self._end()) is not None:
            found += self._take(end)
        return found

    def finish(self) -> list[Claim]:
        return list(self._take(len(self._open)))

    def _end(self) -> int | None:
        """Where the open sentence ends, None while it has not."""
        for gap in _GAP.finditer(self._open, self._looked):
            if gap.end() + 1 == len(self._open) and self._open.endswith("["):
                return None  # it may become a marker of this sentence
            if _MARKER.match(self._open, gap.end()):
                continue
            self._looked = gap.end()
            if self._closes(gap):
                return gap.end()
        # A gap that is still to come begins behind the last word.
        self._looked = max(self._looked, len(self._open.rstrip()) - 1)
        return LONGEST if len(self._open) > LONGEST else None

    def _closes(self, gap: re.Match[str]) -> bool:
        if "\n" in gap.group():
            return True
        said = _MARKERS_AT_END.sub("", self._open[max(0, gap.start() - TAIL) : gap.start()])
        return bool(_ENDS.search(said)) and not self._open[gap.end()].islower() and not abbreviated(said)

    def _take(self, end: int) -> Iterator[Claim]:
        piece, self._open = self._open[:end], self._open[end:]
        start, self._at, self._looked = self._at, self._at + end, 0
        text = _MARKER.sub("", piece).strip()
        if not any(character.isalnum() for character in text):
            return
        self._count += 1
        yield Claim(
            number=self._count,
            start=start + len(piece) - len(piece.lstrip()),
            end=start + len(piece.rstrip()),
            text=text,
            citations=tuple(dict.fromkeys(int(number) for number in _MARKER.findall(piece))),
        )
