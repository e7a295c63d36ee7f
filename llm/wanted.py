"""What kind of answer a question wants, and whether a text gives it: a number, a time, how long something
lasted, how many of what.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain, pairwise, takewhile

from llm.kinds import (
    ASKS_NUMBER,
    ASKS_SEVERAL,
    ASKS_STEPS,
    ASKS_TIME,
    ASKS_WHAT_IS,
    IS,
    IS_A,
    NUMBER,
    TIME,
)
from llm.terms import terms, words

COUNTED = 0.08
"""What a text is worth more than others where a number in it counts what the question wants counted,"""
PHRASE = 0.1
"""and where it says the question's words side by side as the question does."""
DEFINED = 0.2
"""What one is worth more that says what a thing is, where this was asked."""

_ASKS_SPAN = re.compile(r"\bhow long (?:did|do|does|will|was|is)\b.*\b(?:last|take)\b", re.IGNORECASE)
_SPAN = re.compile(
    r"(?:\d|\b(?:an?|one|two|three|four|five|six|seven|eight|nine|ten|twelve|half|several|few)\b)[\s-]*"
    r"(?:and a half )?(?:second|minute|hour|day|night|week|month|year|decade|centur)",
    re.IGNORECASE,
)
_FIELD = re.compile(r"(?:[^\s:;]+ ){0,3}[^\s:;]+: ([^:;]+)")
_COUNTED = re.compile(
    r"\b(?:how many|wie ?viele?|combien d[e'’]|cuánt[oa]s|quant[oa]s|quant[ei]|hoeveel|il[eu]|hur många"
    r"|hvor mange)((?:\s?[^\W\d_]+){1,3})",
    re.IGNORECASE,
)


def fits(question: str, text: str, language: str | None) -> list[bool]:
    """Of each kind of answer that the question wants, whether the text can be one."""
    spoken = language or "en"
    kinds = ((ASKS_NUMBER, NUMBER[spoken]), (ASKS_TIME, TIME[spoken]), (_ASKS_SPAN, _SPAN))
    return [bool(gives.search(text)) for asks, gives in kinds if asks.search(question)]


def given(question: str, text: str) -> bool:
    """Whether the text is a field whose value the question names itself, as `Invoice: INV-7` is when asked
    what INV-7 costs."""
    field = _FIELD.fullmatch(text)
    return field is not None and set(terms(field.group(1))) <= set(terms(question))


def several(question: str) -> bool:
    """Whether the question is answered by steps or by a list rather than by one of them."""
    return bool(ASKS_STEPS.match(question) or ASKS_SEVERAL.match(question))


def preferred(question: str, text: str, language: str | None) -> float:
    """What a text is worth more than others that say as many of the question's words."""
    return _counting(question, text, language) + _defining(question, text)


def _counting(question: str, text: str, language: str | None) -> float:
    """To a question that wants something counted."""
    things = _things(question, language)
    if not things or not _counts(text, things, language):
        return 0.0
    pairs = _pairs(terms(question, language))
    return COUNTED + PHRASE * len(pairs & _pairs(terms(text, language))) / (len(pairs) or 1)


def _defining(question: str, text: str) -> float:
    """To a question what something is: the text says so at its beginning, or puts the name behind what it
    names."""
    asked = ASKS_WHAT_IS.fullmatch(question)
    if asked is None:
        return 0.0
    name = re.escape(asked.group(1).strip().rstrip("s"))
    begins = rf"(?:\w+:\s)?(?:\w+['’\s]\s*){{0,2}}\W?{name}s?"
    if re.match(rf"{begins}{IS_A}|.*(?:called|named|known as|\()\s*\W?{name}\b", text, re.IGNORECASE):
        return DEFINED
    return DEFINED / 2 if re.match(rf"{begins}{IS}", text, re.IGNORECASE) else 0.0


def _things(question: str, language: str | None) -> frozenset[str]:
    """The words between "how many" and the next small word."""
    found = _COUNTED.search(question)
    named = takewhile(bool, (terms(word, language) for word in words(found.group(1)))) if found else ()
    return frozenset(chain.from_iterable(named))


def _counts(text: str, things: frozenset[str], language: str | None) -> bool:
    """Whether a number stands at most two words before one of the things."""
    said, number = words(text), NUMBER[language or "en"]
    return any(
        number.match(word) and not things.isdisjoint(terms(" ".join(said[at + 1 : at + 4]), language))
        for at, word in enumerate(said)
    )


def _pairs(said: Sequence[str]) -> frozenset[tuple[str, str]]:
    return frozenset(pairwise(said))
