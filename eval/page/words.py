"""Two texts side by side, with the words that went and the words that came marked."""

from __future__ import annotations

import difflib
import re

from eval.page.markup import Html, joined, tag

MOST_WORDS = 800
"""Of each text; the comparison takes time with the square of it."""

ALIKE = 0.3
"""Share of words in common below which two texts are two texts, and marking every word would say nothing."""


def compared(before: str, after: str) -> tuple[Html, Html]:
    """The first with its own words in `del`, the second with its own in `ins`. The rest of a longer text is
    cut, and said to be. Texts with little in common are left unmarked."""
    old, new = _words(before), _words(after)
    matcher = difflib.SequenceMatcher(None, old[:MOST_WORDS], new[:MOST_WORDS], autojunk=False)
    if matcher.ratio() < ALIKE:
        return joined("".join(old[:MOST_WORDS]), _rest(old)), joined("".join(new[:MOST_WORDS]), _rest(new))
    left: list[str | None] = []
    right: list[str | None] = []
    for kind, old_from, old_to, new_from, new_to in matcher.get_opcodes():
        gone, came = "".join(old[old_from:old_to]), "".join(new[new_from:new_to])
        left.append(gone if kind == "equal" or not gone else tag("del", gone))
        right.append(came if kind == "equal" or not came else tag("ins", came))
    return joined(*left, _rest(old)), joined(*right, _rest(new))


def _words(text: str) -> list[str]:
    """A word, or a citation marker, carries the space after it: no mark has a hole at its end."""
    return re.findall(r"\[\d+\]\s*|\w+\s*|[^\w\s]\s*|\s+", text)


def _rest(words: list[str]) -> Html | None:
    more = len(words) - MOST_WORDS
    return tag("span", f" … and {more} more words", class_="soft") if more > 0 else None
