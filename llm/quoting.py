"""Which pieces of the passages answer a question: the built-in model's judgement, without a model.

A piece is scored by the share of the question's meaning that it covers. Words count by their rarity in the
passages (BM25's idf), in full when the piece says them, less when they stand in its heading, the list's
introduction or a neighbouring piece. When an embedder is lent, its similarity is blended in. A question
about a number or a time wants one in the answer. Below `ENOUGH` nothing is said at all, nor where what would
be said denies or turns what was asked (`llm.mismatch`).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from llm import mismatch, wanted
from llm.followup import Reading
from llm.language import detect
from llm.sentences import Piece, split
from llm.superseded import asked_for, superseded
from llm.terms import respelled, terms
from llm.types import Passage

ENOUGH = 0.27
"""Score in [0, 1] that the best piece needs, without an embedder."""
ENOUGH_BLENDED = 0.43
"""The same with one,"""
SURE = 0.55
"""and what it needs on average with the nearest similarity, which counts half: a question that only borrows
words of a passage is not answered by it."""
FOREIGN = 0.25
"""Weight of an embedder's similarity to a question in another language than English, which embedders know
best; else it is half."""
ENOUGH_FOREIGN = 0.34
"""What the best piece needs then."""
SAMPLE = 12
"""Pieces whose language is taken for that of a question which tells none."""
MOST = 3
"""Pieces in an answer, at most; a list's introduction brings its items along."""
ITEMS = 8
LISTED = 0.4
"""The share of the question that stands above a list which answers it as a whole."""
NEAR = 0.92
"""A further piece must score this share of the best,"""
NEAR_ADDING, ADDING = 0.7, 0.25
"""or this share and add so much of the question that is not said yet."""
NEAR_TOPIC = 0.94
"""The same where all share the topic that a follow-up does not say."""
CANDIDATES = 10
"""Pieces that an embedder is asked about: those whose words cover most of the question,"""
BEHIND = 0.3
"""and no share of it that is so much smaller than the best one's: similarity hardly ever makes up for it."""
COMPOUNDING = frozenset({"de", "nl", "sv", "da"})
"""Languages that put words together to new ones;"""
FIRST, LAST = 4, 5
"""letters of one that is long enough to be known again at the beginning and at the end of another."""
TOPIC = 0.3
"""Share of a follow-up's score that this topic has."""
TOLD = 0.1
"""The share of its own words that an answer to it says,"""
ADDED = 0.05
"""or what these add to its similarity to the topic: else it speaks of the topic, not of the question."""

_IN_CONTEXT, _IN_TITLE, _BESIDE = 0.75, 0.6, 0.35
_OF_PASSAGE, _IN_ORDER = 0.6, 0.4
"""What it weighs against that how much of the question the whole passage holds, and how many of its words
side by side stand so in the quote."""
_CUE = 0.08
_WITHOUT_NAME = 0.9
"""What remains of a score for each name, number or code of the question that the passage does not hold."""
_UNSEEN = 0.25
"""What a score loses for words of the question that are in no passage, by their share."""
_NOWHERE = 0.6
"""What remains for each that is in none."""
_CUT = 0.85
"""What remains of the score of a piece that begins within a sentence, where its passage was cut."""
_CODE = re.compile(r"(?=\D*\d)(?=.*[^\W\d_]).*|\d+[.:]\d+(?:[.:]\d+)*|(?:19|20)\d\d")
_IDENTIFIER = re.compile(r"\b[^\W\d_]+-?\d[\w-]*")
_TOKEN = re.compile(r"\d+(?:[.,:]\d+)+|[^\W_]+")


@dataclass(frozen=True, slots=True)
class Quote:
    """A piece and the number of the passage it is from. `at` is its place among all pieces."""

    number: int
    at: int
    title: str
    piece: Piece

    @property
    def heading(self) -> str:
        """What stands right above the piece: the last heading and a list's introduction."""
        return f"{self.title.rpartition(' > ')[2] if ' > ' in self.title else ''} {self.piece.context}"

    @property
    def path(self) -> list[str]:
        """The document's title and the headings above the piece."""
        return [*self.title.split(" > "), self.piece.heading]

    @property
    def in_context(self) -> str:
        return f"{self.title}. {self.piece.context} {self.piece.text}"


def quotes(passages: Sequence[Passage]) -> list[Quote]:
    """Everything that can be quoted from the passages, in order."""
    found = [
        (passage, piece) for passage in passages for piece in split(passage.text, passage.title.split(" > "))
    ]
    return [Quote(passage.number, at, passage.title, piece) for at, (passage, piece) in enumerate(found)]


def in_language(wanted: str | None, found: Sequence[Quote]) -> list[Quote]:
    """The quotes in the language of this code, where the passages have some; else, and without a code, all
    of them. A piece is in the language of its passage."""
    if wanted is None:
        return list(found)
    said: dict[int, list[str]] = {}
    for quote in found:
        said.setdefault(quote.number, []).append(quote.piece.text)
    spoken_in = {number: detect(" ".join(texts)) for number, texts in said.items()}
    if set(spoken_in.values()) <= {None, wanted} or wanted not in spoken_in.values():
        return list(found)
    return _numbered(quote for quote in found if spoken_in[quote.number] in (None, wanted))


def in_force(question: str, found: Sequence[Quote]) -> list[Quote]:
    """The quotes without those of texts that say of themselves that they no longer hold, unless the question
    asks for these."""
    old = {quote.at for quote in found if superseded(quote.path)}
    titles = [" ".join(quote.path) for quote in found if quote.at not in old]
    if not old or asked_for(question, [t for quote in found if quote.at in old for t in quote.path], titles):
        return list(found)
    return _numbered(quote for quote in found if quote.at not in old)


def spelled(question: str, found: Sequence[Quote]) -> str:
    """The question as the quotes spell its words, where they have one only with another letter."""
    return respelled(
        question, (f"{' '.join(quote.path)} {quote.piece.text}" for quote in found), detect(question)
    )


def _numbered(found: Iterable[Quote]) -> list[Quote]:
    return [replace(quote, at=at) for at, quote in enumerate(found)]


class Relevance:
    """How far each quote covers a question: about 0 to 1."""

    def __init__(self, reading: Reading, found: Sequence[Quote]) -> None:
        self._question = question = reading.question
        self._language = detect(question) or detect(" ".join(quote.piece.text for quote in found[:SAMPLE]))
        self._topic = self._terms(" ".join(reading.topic)) - self._terms(question)
        self.quotes = found
        said = [terms(quote.piece.text, self._language) for quote in found]
        self._said = [frozenset(one) for one in said]
        self._around = [self._terms(quote.heading) for quote in found]
        self._titled = [self._terms(quote.title) for quote in found]
        self._put_together(self._terms(f"{question} {reading.new}"))
        self._known = self._seen()
        self.weights = self._weigh()
        identified = self._terms(" ".join(_IDENTIFIER.findall(question)))
        self._identified = frozenset(term for term in identified if any(map(str.isdigit, term)))
        self._named = self._by_passage(_names(question, self._language))
        self._new = self._terms(reading.new)
        self._unseen = self._share(self.weights.keys() - self._known)
        self.own = self._cover(said)
        self.lexical = self._with_topic(self.own)

    def _terms(self, text: str) -> frozenset[str]:
        return frozenset(terms(text, self._language))

    def _put_together(self, asked: frozenset[str]) -> None:
        """Words of the question with which one of a quote's begins or ends, or the other way
        round, stand near what it says: Urlaub in Urlaubstage."""
        if self._language in COMPOUNDING:
            for at, said in enumerate(self._said):
                self._around[at] |= {term for term in asked if any(_compound(term, word) for word in said)}

    def _with_topic(self, covered: list[float]) -> list[float]:
        """A passage is about the topic wherever in it the topic's words stand; which of its pieces answers
        is for the question's own words to tell."""
        if not self._topic:
            return covered
        held: dict[int, frozenset[str]] = {}
        for at, quote in enumerate(self.quotes):
            said = self._said[at] | self._around[at] | self._titled[at]
            held[quote.number] = held.get(quote.number, frozenset()) | said
        share = {number: len(self._topic & text) / len(self._topic) for number, text in held.items()}
        weight = TOPIC if self.weights else 1.0
        return [
            (1 - weight) * own + weight * share[quote.number]
            for own, quote in zip(covered, self.quotes, strict=True)
        ]

    def candidates(self, most: int = CANDIDATES, behind: float = BEHIND) -> list[int]:
        """The quotes worth an embedder's time, best first."""
        order = sorted(range(len(self.quotes)), key=lambda at: -self.lexical[at])[:most]
        return [at for at in order if self.lexical[at] >= self.lexical[order[0]] - behind]

    def blended(self, similarities: dict[int, float]) -> list[float]:
        """Scores with an embedder's similarities mixed in; those it was not asked about are out."""
        return [
            self._cued(at, lexical, _scaled(similarities[at])) if at in similarities else 0.0
            for at, lexical in enumerate(self.lexical)
        ]

    def plain(self) -> list[float]:
        return [self._cued(at, lexical, None) for at, lexical in enumerate(self.lexical)]

    @property
    def leans(self) -> bool:
        """Whether the question is about something that it does not say."""
        return bool(self._topic)

    def tells(self, at: int) -> bool:
        """Whether a quote has to do with a leaning question's own words, and not only with its topic."""
        if self.weights:
            return self.own[at] >= TOLD
        return any(wanted.fits(self._question, self.quotes[at].piece.text, self._language))

    def ranked(self, scores: Sequence[float]) -> dict[int, float]:
        """The quotes that score at all, best first, with what each is worth to this question."""
        worth = {
            at: score + wanted.preferred(self._question, self.quotes[at].piece.text, self._language)
            for at, score in enumerate(scores)
            if score > 0
        }
        return dict(sorted(worth.items(), key=lambda one: -one[1]))

    @property
    def _foreign(self) -> bool:
        return self._language not in (None, "en")

    def enough(self, given: Scores) -> bool:
        """Whether the best quote is about the question."""
        if self._new and self._new.isdisjoint(self._known):
            return False
        near = given.nearest is None or self._foreign or (given.best + given.nearest / 2) / 1.5 >= SURE
        return near and given.best >= self._needed(given)

    def touched(self, given: Scores) -> bool:
        """Whether any quote has to do with it at all."""
        return given.best >= self._needed(given) / 2

    def _needed(self, given: Scores) -> float:
        if given.nearest is None:
            return ENOUGH
        return ENOUGH_FOREIGN if self._foreign else ENOUGH_BLENDED

    def answered(self, chosen: Sequence[int], nearest: float | None) -> bool:
        """Whether the chosen quotes answer what was asked, and not only speak of it."""
        if self._foreign:
            return True
        said = " ".join(self.quotes[at].piece.text for at in chosen)
        above = " ".join(f"{self.quotes[at].title} {self.quotes[at].piece.context}" for at in chosen)
        return not mismatch.doubtful(self._question, said, above, nearest)

    def wants_all(self, at: int) -> bool:
        """Whether a quote is an item of a list that has what the question asks for above it."""
        if not self.quotes[at].piece.item or not wanted.several(self._question):
            return False
        return self._share(self._around[at] & self.weights.keys()) >= LISTED

    def new_words(self, at: int, chosen: Sequence[int]) -> float:
        """The share of the question that this quote says and none of the chosen does."""
        said = frozenset().union(*(self._said[other] for other in chosen))
        return self._share((self._said[at] - said) & self.weights.keys())

    def of_another(self, at: int, best: int) -> bool:
        """Whether a quote lacks the code of a thing in the question that the best one says, as the next row
        of a table does. A year or an amount tells nothing: the sentence beside it may leave it out."""
        said = self._said[at] | self._around[at] | self._titled[at]
        return not (self._identified & self._said[best]) <= said

    def _share(self, some: Iterable[str]) -> float:
        return sum(self.weights[term] for term in some) / (sum(self.weights.values()) or 1.0)

    def _seen(self) -> frozenset[str]:
        return frozenset().union(*self._said, *self._around, *self._titled)

    def _by_passage(self, names: list[str]) -> dict[int, float]:
        """What remains of the score of each passage's quotes for the names that it lacks."""
        texts: dict[int, str] = {}
        for quote in self.quotes:
            before = texts.get(quote.number) or f" {' '.join(terms(quote.title, self._language))} "
            said = terms(f"{quote.piece.context} {quote.piece.text}", self._language)
            texts[quote.number] = f"{before}{' '.join(said)} "
        nowhere = sum(not any(f" {name} " in text for text in texts.values()) for name in names)
        return {
            number: _NOWHERE**nowhere * _WITHOUT_NAME ** sum(f" {name} " not in text for name in names)
            for number, text in texts.items()
        }

    def _weigh(self) -> dict[str, float]:
        """A word of the title is no news in any of the document's pieces."""
        held = zip(self._said, self._around, self._titled, strict=True)
        count = Counter(term for said, around, titled in held for term in said | around | titled)
        total = len(self.quotes)
        asked = terms(mismatch.telling(self._question), self._language)
        if self._translates(asked):
            asked = [term for term in asked if term in self._known]
        return {term: math.log(1 + (total - count[term] + 0.5) / (count[term] + 0.5)) for term in asked}

    def _translates(self, asked: Sequence[str]) -> bool:
        """Whether the texts are in another language than the question and have a code or a number of it: then
        its other words are not to be found there."""
        spoken = detect(" ".join(quote.piece.text for quote in self.quotes[:SAMPLE]))
        shared = any(term in self._known and _CODE.fullmatch(term) for term in asked)
        return shared and spoken not in (None, self._language)

    def _cover(self, said: Sequence[Sequence[str]]) -> list[float]:
        """How much of the question each quote covers, its passage does, and it says in the same order."""
        held: dict[int, frozenset[str]] = {}
        for at, quote in enumerate(self.quotes):
            near = self._said[at] | self._around[at] | self._titled[at]
            held[quote.number] = held.get(quote.number, frozenset()) | near
        passage = {number: self._share(self.weights.keys() & near) for number, near in held.items()}
        asked = frozenset(pairwise(self.weights))
        order = _IN_ORDER if asked else 0.0
        return [
            (
                self._covered(at)
                + _OF_PASSAGE * passage[quote.number]
                + (order * len(asked.intersection(pairwise(said[at]))) / len(asked) if asked else 0.0)
            )
            / (1 + _OF_PASSAGE + order)
            for at, quote in enumerate(self.quotes)
        ]

    def _covered(self, at: int) -> float:
        beside = self._beside(at)
        score = 0.0
        for term, weight in self.weights.items():
            if term in self._said[at]:
                score += weight
            elif term in self._around[at]:
                score += weight * _IN_CONTEXT
            elif term in self._titled[at]:
                score += weight * _IN_TITLE
            elif term in beside:
                score += weight * _BESIDE
        return score / (sum(self.weights.values()) or 1.0)

    def _beside(self, at: int) -> frozenset[str]:
        near = [
            other
            for other in (at - 1, at + 1)
            if 0 <= other < len(self.quotes) and self.quotes[other].number == self.quotes[at].number
        ]
        return frozenset().union(*(self._said[other] for other in near))

    def _cued(self, at: int, lexical: float, similarity: float | None) -> float:
        weight = 0.0 if similarity is None else FOREIGN if self._foreign else 0.5
        score = (1 - weight) * lexical + weight * (similarity or 0.0)
        score *= self._named[self.quotes[at].number]
        # The same thing said in other words: then it does not matter that the words are nowhere.
        score -= _UNSEEN * self._unseen * (1 - (similarity or 0.0))
        text = self.quotes[at].piece.text
        if wanted.given(self._question, text) or (self.quotes[at].piece.asks and not _items(self.quotes, at)):
            return 0.0
        score += sum(_CUE if fits else -_CUE for fits in wanted.fits(self._question, text, self._language))
        score *= _CUT if cut_off(self.quotes, at) else 1.0
        return max(0.0, score)


@dataclass(frozen=True, slots=True)
class Scores:
    """Of each quote, in [0, 1]. `nearest` is the best of an embedder's similarities, None without one."""

    each: Sequence[float]
    nearest: float | None = None

    @property
    def best(self) -> float:
        return min(1.0, max(self.each, default=0.0))


def choose(relevance: Relevance, given: Scores) -> list[int]:
    """The places of the quotes that make the answer, best first; none when they are not good enough."""
    if not relevance.enough(given):
        return []
    chosen = _best(relevance, given.each)
    spoken_of = list(dict.fromkeys(member for at in chosen for member in (at, *_belonging(relevance, at))))
    return spoken_of if relevance.answered(spoken_of, given.nearest) else []


def _belonging(relevance: Relevance, at: int) -> list[int]:
    """The quotes that a chosen one is little without: the items that it introduces, or the whole list that it
    is in, where the question wants that."""
    if relevance.wants_all(at):
        return _list_around(relevance.quotes, at)
    return _items(relevance.quotes, at)


def _best(relevance: Relevance, scores: Sequence[float]) -> list[int]:
    """The best quotes, none of which says again what a better one says: the same page may be filed twice."""
    worth = relevance.ranked(scores)
    said: dict[tuple[str, str], int] = {}
    for at in worth:
        piece = relevance.quotes[at].piece
        said.setdefault((piece.intro, " ".join(piece.text.casefold().split())), at)
    chosen = list(said.values())[:1]
    near = NEAR_TOPIC if relevance.leans else NEAR
    for at in list(said.values())[1:]:
        share = worth[at] / worth[chosen[0]]
        adds = share >= NEAR_ADDING and relevance.new_words(at, chosen) >= ADDING
        alike = share >= near and not relevance.of_another(at, chosen[0])
        if len(chosen) < MOST and (alike or adds):
            chosen.append(at)
    return chosen


def spoken(found: Sequence[Quote], chosen: Sequence[int]) -> list[tuple[int, str]]:
    """(passage number, text) of what the chosen quotes say: the first of them first, then passages in the
    order in which they were chosen, each in its own. An introduction takes the items of its list along, an
    item its introduction; items side by side share it."""
    passages = list(dict.fromkeys(found[at].number for at in chosen))
    lead = _lead(found, chosen)
    places = sorted(
        {member for at in chosen for member in (at, *_items(found, at))},
        key=lambda at: (passages.index(found[at].number), at not in lead, at),
    )
    said: list[tuple[int, str]] = []
    last: Quote | None = None
    for at in places:
        quote = found[at]
        text = f"… {quote.piece.text}" if cut_off(found, at) else quote.piece.text
        if quote.piece.item and quote.piece.intro:
            if last and (last.number, last.piece.intro) == (quote.number, quote.piece.intro):
                said[-1] = (quote.number, f"{said[-1][1].rstrip('.;, ')}; {text}")
            else:
                said.append((quote.number, f"{quote.piece.intro} {text}"))
            last = quote
        elif not (quote.piece.opens and at + 1 in places and found[at + 1].piece.item):
            said.append((quote.number, text))
            last = None
    return said


def _lead(found: Sequence[Quote], chosen: Sequence[int]) -> frozenset[int]:
    """The first of the chosen with the items or the list that belong to it."""
    if not chosen:
        return frozenset()
    first = chosen[0]
    listed = (at for at in chosen if found[first].piece.item and _same_list(found[at], found[first]))
    return frozenset([first, *_items(found, first), *listed])


def cut_off(found: Sequence[Quote], at: int) -> bool:
    """Whether the beginning of its sentence stands in the passage before: a passage of a long text may begin
    anywhere."""
    if found[at].piece.item or (at and found[at - 1].number == found[at].number):
        return False
    return found[at].piece.text.partition(" ")[0].islower()


def _items(found: Sequence[Quote], at: int) -> list[int]:
    if not found[at].piece.opens:
        return []
    members = []
    for other in range(at + 1, min(len(found), at + 1 + ITEMS)):
        if found[other].number != found[at].number or not found[other].piece.item:
            break
        members.append(other)
    return members


def _compound(one: str, other: str) -> bool:
    part, whole = sorted((one, other), key=len)
    if len(part) < FIRST or part == whole:
        return False
    return whole.startswith(part) or (len(part) >= LAST and whole.endswith(part))


def _list_around(found: Sequence[Quote], at: int) -> list[int]:
    """The list of which the quote is an item, from its beginning on; of a long one the part around it."""
    first = last = at
    while first > 0 and _same_list(found[first - 1], found[at]):
        first -= 1
    while last + 1 < len(found) and _same_list(found[last + 1], found[at]):
        last += 1
    first = max(first, min(at - ITEMS // 2, last + 1 - ITEMS)) if last - first >= ITEMS else first
    return list(range(first, min(last + 1, first + ITEMS)))


def _same_list(one: Quote, other: Quote) -> bool:
    same = (one.number, one.piece.heading, one.piece.intro) == (
        other.number,
        other.piece.heading,
        other.piece.intro,
    )
    return same and one.piece.item


def _names(question: str, language: str | None) -> list[str]:
    """Phrases of terms that a passage must hold to be about the question: capitalised words but for the
    first, codes, versions, years, and numbers after a capitalised word (Skylark 320; not EUR 320). A
    question with more capitals than not tells nothing by them, nor does one in German, which capitalises its
    nouns."""
    asked = _TOKEN.findall(question)
    capitals = [word for word in asked[1:] if word[:1].isupper()]
    found = capitals if len(capitals) * 2 <= len(asked) and language != "de" else []
    for before, word in zip(["", *asked], asked, strict=False):
        if _CODE.fullmatch(word):
            found.append(word)
        elif word.isdigit() and before[:1].isupper() and not before.isupper():
            found.append(f"{before} {word}")
    return [name for name in dict.fromkeys(" ".join(terms(word, language)) for word in found) if name]


def _scaled(similarity: float) -> float:
    """Sentence embedders put unrelated text near 0.1 and a paraphrase near 0.7."""
    return max(0.0, min(1.0, (similarity - 0.1) / 0.6))
