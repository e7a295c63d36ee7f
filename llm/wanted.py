"""What kind of answer a question wants, and whether a text gives it: a number, a time, how long something
lasted, how many of what.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain, pairwise, takewhile

from llm.terms import terms, words

COUNTED = 0.08
"""What a text is worth more than others where a number in it counts what the question wants counted,"""
PHRASE = 0.1
"""and where it says the question's words side by side as the question does."""
DEFINED = 0.2
"""What one is worth more that says what a thing is, where this was asked."""

_ASKS_NUMBER = re.compile(
    r"\bhow (?:many|much|long|often|far|old|high|large|big|fast|quickly|soon|late|early|heavy|deep)\b"
    r"|\bwhat (?:percentage|price|number|amount|share|does .* cost)\b|\bwie(?:viele?| viele?| lange| oft)\b",
    re.IGNORECASE,
)
_ASKS_TIME = re.compile(
    r"\b(?:when|since when|by when|until when|wann)\b|\b(?:what|which) (?:date|year|time|day|month)\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|fifty|hundred"
    r"|thousand|million|half|once|twice|daily|weekly|monthly|yearly|no|none|every|unlimited)\b",
    re.IGNORECASE,
)
_TIME = re.compile(
    r"\d|\b(?:january|february|march|april|may|june|july|august|september|october|november|december|monday"
    r"|tuesday|wednesday|thursday|friday|saturday|sunday|day|week|month|year|hour|minute|first|last|after"
    r"|before|until|within|once|soon|immediately)s?\b",
    re.IGNORECASE,
)
_ASKS_SPAN = re.compile(r"\bhow long (?:did|do|does|will|was|is)\b.*\b(?:last|take)\b", re.IGNORECASE)
_SPAN = re.compile(
    r"(?:\d|\b(?:an?|one|two|three|four|five|six|seven|eight|nine|ten|twelve|half|several|few)\b)[\s-]*"
    r"(?:and a half )?(?:second|minute|hour|day|night|week|month|year|decade|centur)",
    re.IGNORECASE,
)
_DEFINES = re.compile(
    r"\s*(?:what(?: is|'s|’s| are| does)|define|explain)\s+(?:an?|the)?\s*((?:[\w.-]+\s*){1,3}?)"
    r"\s*(?:mean|stand for)?[\s?.!]*",
    re.IGNORECASE,
)
_IS = r"\W{0,3}(?:\([^()]{1,60}\)\W{0,2})?\s*(?:is|are|means?|refers? to|stands? for|denotes?|describes?)\b"
_KINDS = ((_ASKS_NUMBER, _NUMBER), (_ASKS_TIME, _TIME), (_ASKS_SPAN, _SPAN))
"""How a question asks for it, and what then has to be in an answer."""
_FIELD = re.compile(r"(?:[^\s:;]+ ){0,3}[^\s:;]+: ([^:;]+)")
_COUNTED = re.compile(r"\b(?:how many|wie ?viele?)((?: [^\W\d_]+){1,3})", re.IGNORECASE)


def fits(question: str, text: str) -> list[bool]:
    """Of each kind of answer that the question wants, whether the text can be one."""
    return [bool(gives.search(text)) for asks, gives in _KINDS if asks.search(question)]


def given(question: str, text: str) -> bool:
    """Whether the text is a field whose value the question names itself, as `Invoice: INV-7` is when asked
    what INV-7 costs."""
    field = _FIELD.fullmatch(text)
    return field is not None and set(terms(field.group(1))) <= set(terms(question))


def preferred(question: str, text: str) -> float:
    """What a text is worth more than others that say as many of the question's words."""
    return _counting(question, text) + _defining(question, text)


def _counting(question: str, text: str) -> float:
    """To a question that wants something counted."""
    things = _things(question)
    if not things or not _counts(text, things):
        return 0.0
    pairs = _pairs(terms(question))
    return COUNTED + PHRASE * len(pairs & _pairs(terms(text))) / (len(pairs) or 1)


def _defining(question: str, text: str) -> float:
    """To a question what something is: the text says so at its beginning, or puts the name behind what it
    names."""
    asked = _DEFINES.fullmatch(question)
    if asked is None:
        return 0.0
    name = re.escape(asked.group(1).strip().rstrip("s"))
    says = rf"(?:an?|the)?\s*(?:\w+\s)?\W?{name}s?{_IS}|.*(?:called|named|known as|\()\s*\W?{name}\b"
    return DEFINED if re.match(says, text, re.IGNORECASE) else 0.0


def _things(question: str) -> frozenset[str]:
    """The words between "how many" and the next small word."""
    found = _COUNTED.search(question)
    named = takewhile(bool, map(terms, words(found.group(1)))) if found else ()
    return frozenset(chain.from_iterable(named))


def _counts(text: str, things: frozenset[str]) -> bool:
    """Whether a number stands at most two words before one of the things."""
    said = words(text)
    return any(
        _NUMBER.match(word) and not things.isdisjoint(terms(" ".join(said[at + 1 : at + 4])))
        for at, word in enumerate(said)
    )


def _pairs(said: Sequence[str]) -> frozenset[tuple[str, str]]:
    return frozenset(pairwise(said))
