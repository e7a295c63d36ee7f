"""Which pieces of a text a summary leaves out: what is repeated on every page, references, links and names,
and, of a text that speaks in sentences, headings, captions, rows and other scraps.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from llm.sentences import Piece

REPEATED = 3
"""Times that a line stands in a text when it is one of every page."""
SPEAKS = 0.3
"""Share of its words that a text has in sentences when it speaks in sentences."""
FEW = 3
"""Words of a sentence, at least; of an item of a list one less."""
NAMES = 0.6
"""Share of words with capitals or figures from which a piece is a list of names or a reference."""

_NUMBER = re.compile(r"\d+")
_WORD = re.compile(r"[^\W_][\w'’-]*")
_SPACED = re.compile(r"[a-zà-ɏͰ-ϿЀ-ӿ]", re.IGNORECASE)
"""A letter of a script that puts spaces between words."""
_END = re.compile(r"[.!?…。！？][\"'”’»)\]]*(?:\s*\[[\w\s,]{1,12}\])*\Z")
_REFERENCE = re.compile(
    r"\^|(?:https?://|www\.)\S+\W*\Z"
    r"|(?:see also|main article|further information|jump to|skip to|for .{1,60}, see)\b"
    r"|.*(?:\bIS[BS]N\b|\bdoi\s*[:.]|\barXiv:|\bet al\.,? \(?\d{4}|\bpp?\. ?\d|©|\ball rights reserved\b"
    r"|\balle rechte vorbehalten\b|\btous droits réservés\b|\breservados\b|\bby using this site\b"
    r"|\bretrieved (?:on )?\w+ \w+,? \d{4}|\barchived from\b)",
    re.IGNORECASE,
)


def told(pieces: Sequence[Piece]) -> list[int]:
    """The places of the pieces that a summary may be made of, in order; of a text of nothing else, all."""
    lines = [_NUMBER.sub("0", piece.text.casefold()) for piece in pieces]
    seen = Counter(lines)
    kept = [at for at, piece in enumerate(pieces) if seen[lines[at]] < REPEATED and not _noise(piece.text)]
    speaking = [at for at in kept if _speaks(pieces[at])]
    if _words(pieces, speaking) >= SPEAKS * _words(pieces, kept):
        kept = speaking
    return kept or list(range(len(pieces)))


def _words(pieces: Sequence[Piece], places: Sequence[int]) -> int:
    return sum(len(pieces[at].text.split()) for at in places)


def _noise(text: str) -> bool:
    return bool(_REFERENCE.match(text)) or not any(map(str.isalpha, text))


def _speaks(piece: Piece) -> bool:
    """Whether it is a sentence or an item."""
    text = piece.text
    if not _SPACED.search(text):
        return bool(_END.search(text))
    words = _WORD.findall(text)
    named = sum(word[0].isupper() or word[0].isdigit() for word in words)
    if named > NAMES * len(words):
        return False
    return len(words) >= FEW - 1 if piece.item else len(words) >= FEW and bool(_END.search(text))
