"""Whether sentences that share a question's words also answer it, as far as small words tell.

A question may read as if a text answered it and differ from it in what it turns on: it denies what the text
says, asks for the least where the text gives the most, or wants a number, a date or a place that is not
there. What each sign weighs was fitted by logistic regression on questions of one half of SQuAD 2.0's
articles, and on answered questions to documentation, so that signs which mean little elsewhere weigh little;
`plumbline eval unanswerable` measures on the other half. English only: elsewhere nothing is held against an
answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from llm.terms import terms, words

LEAST = 0.36
"""Estimate in [0, 1] that an answer needs."""
WEIGHTS: Mapping[str, float] = {
    "bias": -1.71,
    "denial asked": -1.95,
    "denial said": -0.25,
    "turned": -1.03,
    "direction": -0.61,
    "number": -0.61,
    "date": -0.09,
    "place": -0.4,
    "nearest": 1.57,
    "close": 1.39,
    "long": 2.12,
}
_SLIGHT = frozenset({"denial said", "date"})
"""Signs that mean too little to doubt an answer for them alone: a rule often says what must not be done."""
UNKNOWN = 0.6
"""The similarity that is assumed where no embedder tells it."""
MANY = 12
"""Words with meaning of a question that is long: it is rarely said in full by one sentence."""


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DENIES = _set(
    "not never none nobody nothing neither nor without cannot unable fail fails failed lack lacks except"
    " unless isn didn doesn don wasn weren couldn wouldn"
)
_MORE = frozenset(
    terms(
        "increase higher raise elevated enhance greater promote activate stimulate induce improve gain grow"
        " larger rise faster longer better positive stronger earlier allow permit accept agree win support"
        " open benefit require always largest highest biggest first above maximum older before"
    )
)
_LESS = frozenset(
    terms(
        "decrease lower reduce diminish impair suppress inhibit block prevent worsen loss lose smaller fall"
        " slower shorter worse negative weaker later forbid prohibit reject refuse deny oppose close harm"
        " fewer decline least smallest lowest last below less minimum younger after"
    )
)
_ASKS_NUMBER = re.compile(
    r"\bhow (?:many|much|long|often|far|old|high|large|big|fast|tall|heavy|deep)\b"
    r"|\b(?:what|which) (?:percentage|percent|price|number|amount|share)\b",
    re.IGNORECASE,
)
_ASKS_DATE = re.compile(
    r"\bwhen\b|\b(?:what|which|in what) (?:date|year|time|day|month|century|decade)\b", re.IGNORECASE
)
_ASKS_PLACE = re.compile(
    r"\bwhere\b|\b(?:what|which) (?:city|country|state|place|region|location|town)\b", re.IGNORECASE
)
_NUMERALS = _set(
    "one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred"
    " thousand million billion half once twice dozen no none every unlimited daily weekly monthly yearly"
    " first second third"
)
_DATE = re.compile(
    r"\b(?:1\d{3}|20\d\d)s?\b|\b(?:january|february|march|april|may|june|july|august|september|october"
    r"|november|december|monday|tuesday|wednesday|thursday|friday|saturday|sunday)\b"
    r"|\b\d{1,2}(?:st|nd|rd|th) century\b|\b\d{1,2}[:.]\d\d\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_LASTS = re.compile(r"\bhow long\b(.*)\b(?:last|take)\b", re.IGNORECASE)
_ONLY_ASKS = re.compile(
    r"(?<=\bhow )(?:often|long|far|old|big|large|high|tall|deep|heavy|fast|soon)\b|\bper(?= \w)"
    r"|^\W*(?:what|which|list)\b.{0,9}\bsteps\b(?= (?:to|for|of|in)\b)"
    r"|(?<=\bwie )(?:oft|lange?|hoch|groß|alt|weit|schnell|teuer|schwer|tief)\b"
    r"|(?<=\bhoe )(?:vaak|lang|hoog|groot|oud|ver|snel|duur)\b|(?<=\bjak )(?:często|długo|daleko|szybko)\b"
    r"|(?<=\bhur )(?:ofta|länge|lång|hög|stor|gammal)\b|(?<=\bhvor )(?:ofte|længe|langt?|højt?|stort?)\b",
    re.IGNORECASE,
)
_NAME = re.compile(r"(?<![.!?:]\s)(?<!^)(?<![^\W_])[A-Z][\w'’-]*\w")


def telling(question: str) -> str:
    """The question without the words that only ask, as how long something lasts, how often it is done or in
    which steps: no text says them so."""
    return _ONLY_ASKS.sub("", _LASTS.sub(r"how\1", question))


def doubtful(question: str, said: str, above: str, nearest: float | None) -> bool:
    """Whether `said`, under the headings `above`, more likely speaks of something else than the question
    asks. `nearest` is an embedder's similarity of the question to the nearest sentence."""
    found = signs(question, said, above)
    if not any(shown for name, shown in found.items() if name not in _SLIGHT):
        return False
    weighed = measures(question, found, UNKNOWN if nearest is None else nearest)
    return 1 / (1 + math.exp(-sum(WEIGHTS[name] * value for name, value in weighed.items()))) < LEAST


def measures(question: str, found: Mapping[str, bool], nearest: float) -> dict[str, float]:
    """What is weighed, each about 0 to 1."""
    return {
        "bias": 1.0,
        **{name: float(sign) for name, sign in found.items()},
        "nearest": nearest,
        "close": max(0.0, nearest - 0.6),
        "long": min(MANY, len(set(terms(question)))) / MANY,
    }


def signs(question: str, said: str, above: str) -> dict[str, bool]:
    asked, told, around = frozenset(words(question)), frozenset(words(said)), frozenset(words(above))
    more, less = _leaning(telling(question))
    said_more, said_less = _leaning(said)
    new_numbers = _new_numbers(question, f"{above} {said}")
    new_dates = any(date.lower() not in question.lower() for date in _DATE.findall(said))
    return {
        "denial asked": bool(_DENIES & asked) and not _DENIES & (told | around),
        "denial said": bool(_DENIES & told) and not _DENIES & asked,
        "turned": more != less and (said_more, said_less) == (less, more),
        "direction": (more and not said_more) or (less and not said_less),
        "number": bool(_ASKS_NUMBER.search(question)) and not new_numbers,
        "date": bool(_ASKS_DATE.search(question)) and not new_dates and not new_numbers,
        "place": bool(_ASKS_PLACE.search(question)) and not _new_names(question, said),
    }


def _leaning(text: str) -> tuple[bool, bool]:
    """Whether it speaks of more, and of less."""
    found = frozenset(terms(text))
    return bool(found & _MORE), bool(found & _LESS)


def _new_numbers(question: str, text: str) -> bool:
    figures = set(_NUMBER.findall(text)) - set(_NUMBER.findall(question))
    return bool(figures or (_NUMERALS & set(words(text))) - set(words(question)))


def _new_names(question: str, text: str) -> bool:
    asked = set(terms(question))
    return any(not set(terms(name)) <= asked for name in _NAME.findall(text))
