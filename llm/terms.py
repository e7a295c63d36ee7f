"""Words as the built-in model compares them: lower case, stemmed, without the words that carry no meaning.

It has its own, since the analyzer of an index is a release's choice and this model's behaviour is not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

import Stemmer

LONG = 5
"""Letters of a word that is long enough to be known again when one is wrong."""

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
    whose why will with would you your yours whats whos hows wheres
    der die das den dem des ein eine einen einem einer und oder ist sind war wie was wer wann wo warum welche
    welcher welches von zu zum zur im in auf für mit bei nach nicht es sie ich wir ihr hat haben wird werden
    wurde kann viele viel
    el la los las un una unos unas y o es son fue era de del al en por para con que qué quién cuándo cuál
    cómo dónde cuántos cuántas se su sus no lo le más
    le les des du et ou est sont qui quoi quand où comment combien pour avec dans sur par ne pas ce cette
"""
_STOP_WORDS = frozenset(_STOP_LIST.split())
# Forms that a stemmer does not bring together. Left out are those that are words of their own as well: left,
# found, felt, saw.
_IRREGULAR_FORMS = """
    become became; begin began begun; break broke broken; bring brought; build built; buy bought; catch
    caught; choose chose chosen; come came; draw drew drawn; drive drove driven; fight fought; forbid
    forbade forbidden; forget forgot forgotten; go went gone; grow grew grown; hide hid hidden; hold held;
    keep kept; know knew known; lend lent; lose lost; make made; mean meant; pay paid; run ran; seek
    sought; sell sold; send sent; speak spoke spoken; spend spent; steal stole stolen; take took taken;
    teach taught; tell told; think thought; throw threw thrown; understand understood; win won; withdraw
    withdrew withdrawn; write wrote written; child children; person people; foot feet; tooth teeth; mouse
    mice
"""
_IRREGULAR = {form: group.split()[0] for group in _IRREGULAR_FORMS.split(";") for form in group.split()[1:]}
_LONGEST_KEPT = 64
"""Characters of a word whose stem is remembered: longer ones are no words, and a text may be one."""


def words(text: str) -> list[str]:
    """The text's words in lower case, in order."""
    folded = unicodedata.normalize("NFKC", text).lower()
    return _WORD.findall(_THOUSANDS.sub("", _APOSTROPHE.sub("", folded)))


def terms(text: str) -> list[str]:
    """The text's stemmed words without stop words, in order, repeats included."""
    return [
        _stem(word) if len(word) <= _LONGEST_KEPT else _stemmed(word)
        for word in words(text)
        if word not in _STOP_WORDS
    ]


def respelled(text: str, others: Iterable[str]) -> str:
    """The text with the words of the other texts in the place of its slips: two letters that changed places,
    or one within that is missing or too many. Other letters, and other endings, rather make another word, and
    a name is left as it is."""
    known: frozenset[str] = frozenset()
    stems: frozenset[str] = frozenset()

    def right(match: re.Match[str]) -> str:
        nonlocal known, stems
        word = match.group().lower()
        named = match.start() > 0 and match.group()[0].isupper()
        if named or len(word) < LONG or not word.isalpha() or word in _STOP_WORDS:
            return match.group()
        if not known:
            known = frozenset(said for other in others for said in words(other))
            stems = frozenset(map(_stem, known))
        return match.group() if _stem(word) in stems else _nearest(word, known) or match.group()

    return _WORD.sub(right, text)


def _nearest(word: str, known: Iterable[str]) -> str | None:
    like = (other for other in known if other[0] == word[0] and abs(len(other) - len(word)) <= 1)
    return min((other for other in like if _slip(word, other)), default=None)


def _slip(one: str, other: str) -> bool:
    if len(one) == len(other):
        differ = [at for at in range(len(one)) if one[at] != other[at]]
        return (
            len(differ) == 2
            and [one[at] for at in differ] == [other[at] for at in reversed(differ)]
            and (differ[1] == differ[0] + 1)
        )
    short, long = sorted((one, other), key=len)
    return any(long[:at] + long[at + 1 :] == short for at in range(1, len(long) - 1))


@lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    return _stemmed(word)


def _stemmed(word: str) -> str:
    # A stemmer holds the word it works on, so threads cannot share one; making one costs a microsecond.
    return str(Stemmer.Stemmer("english").stemWord(_IRREGULAR.get(word, word)))
