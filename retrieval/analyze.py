"""Text to index terms, the same for documents and questions and the same for every store.

A store is given terms, not text, so that keyword search agrees between stores whose own analyzers differ.
Terms are letters and digits only and in lower case: a store's standard tokenizer leaves them as they are.

What an analyzer returns for a text never changes under the same name, because index generations are named
after it: another behaviour is another analyzer.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

import Stemmer

from retrieval.languages import ENGLISH, FUNCTION_WORDS, language, possible
from retrieval.types import Analyzer

# Letters and digits, in parts that one mark joins: E-1042, state-of-the-art, v2.1, config/app_1.
_WORD = re.compile(r"[^\W_]+(?:[-._/][^\W_]+)*")
_PART = re.compile(r"[^\W_]+")
# Ideographs and kana are not spaced into words, so each is a term of its own.
_SOLID = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_SOLID_TERM = re.compile(rf"[{_SOLID}]|[^\W_{_SOLID}]+")
_CODE = re.compile(r"(?=.*\d)(?=.*[^\W\d_])")
_POSSESSIVE = re.compile(r"(?<=\w)['’]s\b")
_APOSTROPHE = re.compile(r"(?<=\w)['’](?=\w)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_LAST_LATIN = "\u024f"
_LONGEST_CODE = 32
_LONGEST_TERM = 64
_REMEMBERED = 1 << 16

# The Snowball project's English stop words, without apostrophes.
_STOP_LIST = """
    a about above after again against all am an and any are arent as at be because been before being below
    between both but by can cannot cant could couldnt did didnt do does doesnt doing dont down during each
    few for from further had hadnt has hasnt have havent having he hed her here heres hers herself hes
    him himself his how hows i if im in into is isnt it its itself ive lets me more most mustnt my myself no
    nor not of off on once only or other ought our ours ourselves out over own same shant she
    shes should shouldnt so some such than that thats the their theirs them themselves then there theres
    these they theyd theyll theyre theyve this those through to too under until up very was wasnt we were
    werent weve what whats when whens where wheres which while who whom whos why whys with wont would
    wouldnt you youd youll your youre yours yourself yourselves youve
"""
_STOP_WORDS = frozenset(_STOP_LIST.split())


def analyzer(name: str) -> Analyzer:
    """The analyzer of this name: `snowball`, `snowball-english`, or `plain` for text in any language.

    Raises `ValueError` for an unknown name."""
    try:
        return ANALYZERS[name]()
    except KeyError:
        raise ValueError(f"There is no analyzer {name!r}; there are {', '.join(ANALYZERS)}.") from None


class SnowballEnglish:
    """Stems of English words, without the words that carry no meaning of their own. A text of nothing but
    those keeps them."""

    name = "snowball-english"

    def __init__(self) -> None:
        stem = _stemmer(ENGLISH)
        self._every = _remembering(lambda word: " ".join(map(stem, _parts(word))))
        self._telling = _remembering(
            lambda word: " ".join(stem(part) for part in _parts(word) if part not in _STOP_WORDS)
        )

    def terms(self, text: str) -> str:
        words = _words(text)
        return _joined(map(self._telling, words)) or _joined(map(self._every, words))

    def question(self, text: str) -> str:
        return self.terms(text)


class Snowball:
    """Stems by the text's own language, as its function words tell it, without those words.

    A question is short: where it may be in several languages it is stemmed by each, so that it shares a term
    with a text in any of them.
    """

    name = "snowball"

    def __init__(self) -> None:
        self._stems = {name: _remembering(_stemmer(name)) for name in FUNCTION_WORDS}

    def terms(self, text: str) -> str:
        parts = [part for word in _words(text) for part in _parts(word)]
        spoken = language(parts)
        stem = self._stems[spoken]
        return _joined(map(stem, _without(parts, _SILENT[spoken])))

    def question(self, text: str) -> str:
        parts, spoken = _heard(text)
        telling = _without(parts, _silent_in(spoken))
        return _joined(
            term for part in telling for term in dict.fromkeys(self._stems[name](part) for name in spoken)
        )


class Plain:
    """The words as they are, in lower case and without accents."""

    name = "plain"

    def terms(self, text: str) -> str:
        return _joined(" ".join(_parts(word)) for word in _WORD.findall(_folded(text)))

    def question(self, text: str) -> str:
        return self.terms(text)


def languages(question: str) -> frozenset[str]:
    """The languages that a question may be in, as far as Snowball knows them: none of those when it is
    written in another script than Latin, all when nothing tells."""
    if not question.isascii():
        letters = [char for char in question if char.isalpha()]
        foreign = sum(char > _LAST_LATIN for char in letters)
        if 2 * foreign > len(letters):
            return frozenset()
    return frozenset(_heard(question)[1])


ANALYZERS: Mapping[str, Callable[[], Analyzer]] = {
    Snowball.name: Snowball,
    SnowballEnglish.name: SnowballEnglish,
    Plain.name: Plain,
}
_SILENT = {**FUNCTION_WORDS, ENGLISH: _STOP_WORDS}
"""The words that each language's texts are indexed without."""


@lru_cache(maxsize=64)
def _silent_in(languages: tuple[str, ...]) -> frozenset[str]:
    return frozenset().union(*(_SILENT[name] for name in languages))


@lru_cache(maxsize=256)
def _heard(question: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Its words and the languages it may be in: asked for its terms, and for how to weigh them."""
    parts = tuple(part for word in _words(question) for part in _parts(word))
    return parts, tuple(possible(parts))


def _words(text: str) -> list[str]:
    text = _POSSESSIVE.sub("", _folded(text))
    return _WORD.findall(_THOUSANDS.sub("", _APOSTROPHE.sub("", text)))


def _without(parts: Sequence[str], silent: frozenset[str]) -> Sequence[str]:
    """The parts that say something; all of them when none does."""
    return [part for part in parts if part not in silent] or parts


def _folded(text: str) -> str:
    """Lower case, compatibility forms (full-width letters, ligatures) and accents folded into plain ones."""
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFKD", text.lower())
    bare = "".join(char for char in apart if unicodedata.category(char) != "Mn")
    return unicodedata.normalize("NFKC", bare).lower()


def _parts(word: str) -> Iterator[str]:
    """The parts of a word; a code of letters and digits also in one piece, so that E-1042 is found as
    `E-1042`, `E 1042` and `E1042`."""
    if word.isascii() and word.isalpha():  # Most words are, and have one part.
        yield word[:_LONGEST_TERM]
        return
    parts = _PART.findall(word)
    for part in parts:
        for term in [part] if part.isascii() else _SOLID_TERM.findall(part):
            yield term[:_LONGEST_TERM]
    if len(parts) > 1 and len(word) <= _LONGEST_CODE and _CODE.match(word):
        yield "".join(parts)


def _joined(terms: Iterable[str]) -> str:
    return " ".join(filter(None, terms))


def _remembering(work: Callable[[str], str]) -> Callable[[str], str]:
    """Most words of a text were seen before, and working them out is slow."""
    return lru_cache(maxsize=_REMEMBERED)(work)


def _stemmer(name: str) -> Callable[[str], str]:
    """Snowball's stemmers have state; this may be called from several threads."""
    stemmer = Stemmer.Stemmer(name)
    lock = threading.Lock()

    def stem(word: str) -> str:
        with lock:
            return str(stemmer.stemWord(word))

    return stem
