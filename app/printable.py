"""Text of others as a terminal or a log may get it. Documents and callers bring along characters that move
the cursor, turn the reading direction or begin another line."""

from __future__ import annotations

import re
import unicodedata

_STEERING = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]|\r(?!\n)"
)
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Controls, formats (those that join letters among them), halves of surrogate pairs, separators of lines."""


def readable(text: str) -> str:
    """A text of several lines, with what would steer a terminal or mislead its reader escaped as JSON escapes
    it. What joins letters stays: some scripts need it."""
    return _STEERING.sub(lambda found: _escaped(found[0]), text)


def printable(line: str) -> str:
    """A line that stays one, with all that cannot be seen escaped but tabs."""
    if line.isprintable():
        return line
    return "".join(
        _escaped(one) if one != "\t" and unicodedata.category(one) in _UNSEEN else one for one in line
    )


def _escaped(character: str) -> str:
    return f"\\u{ord(character):04x}"
