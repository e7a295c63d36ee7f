"""Words as the built-in model compares them: lower case, stemmed, without the words that carry no meaning.

It has its own, since the analyzer of an index is a release's choice and this model's behaviour is not.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import Stemmer

# A version or a decimal number is one word: 6.0 is not a 6 and a 0.
_WORD = re.compile(r"\d+(?:[.,:]\d+)+|[^\W_]+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_APOSTROPHE = re.compile(r"['’](?:s|t|re|ve|ll|d|m)\b")
_STOP_LIST = """
    a about all also am an and any are as at be because been being but by can cannot could did do does doing
    done for from get gets give given gives got had has have having he her hers him his how i if in into is
    it its just let may me might mine much many more most must my no nor not of off on once one ones only or
    other our ours please s shall she should so some such t tell than that the their theirs them then there
    these they this those to too up upon us very was we were what when where whether which while who whom
    whose why will with would you your yours
    der die das den dem des ein eine einen einem einer und oder ist sind war wie was wer wann wo warum welche
    welcher welches von zu zum zur im in auf für mit bei nach nicht es sie ich wir ihr hat haben wird werden
    wurde kann viele viel
    el la los las un una unos unas y o es son fue era de del al en por para con que qué quién cuándo cuál
    cómo dónde cuántos cuántas se su sus no lo le más
    le les des du et ou est sont qui quoi quand où comment combien pour avec dans sur par ne pas ce cette
"""
_STOP_WORDS = frozenset(_STOP_LIST.split())


def words(text: str) -> list[str]:
    """The text's words in lower case, in order."""
    folded = unicodedata.normalize("NFKC", text).lower()
    return _WORD.findall(_THOUSANDS.sub("", _APOSTROPHE.sub("", folded)))


def terms(text: str) -> list[str]:
    """The text's stemmed words without stop words, in order, repeats included."""
    return [_stem(word) for word in words(text) if word not in _STOP_WORDS]


@lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    # A stemmer holds the word it works on, so threads cannot share one; making one costs a microsecond.
    return str(Stemmer.Stemmer("english").stemWord(word))
