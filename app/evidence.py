"""How far a passage bears out a sentence, in measures that need no model.

The passage is read in windows of one or two of its sentences, each an exact slice of its text. Of the
sentence are asked: its words (stemmed, weighted by their rarity in the passage), its runs of words, its
numbers and names, whether it denies what the window says, and whether it turns "more" into "less".
`app.support` makes a verdict of these.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from llm.terms import terms, words
from retrieval.types import Span

ALIKE = 0.7
"""Share of a claim's words from which a sentence speaks of the same, so that a denial in one counts."""
_SENTENCE = re.compile(
    # One of more than 600 characters is cut at a space.
    r"\S(?:[^\n]{0,599}?)(?:(?<=[.!?…])[\"'”’)\]]*(?=\s+[^\sa-z])|(?<=[。！？])|(?=\s*(?:\n|\Z)))"
    r"|\S[^\n]{0,599}(?=\s)|\S[^\n]{0,599}"
)
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_TORN = re.compile(r"(?<=\d[.,])\s(?=\d)")
_NAME = re.compile(r"(?<![.!?:]\s)(?<!^)(?<![^\W_])[A-ZÄÖÜÉÈÀÇÑŁŚŽ][\w'’-]*\w")


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SPELT = (
    "zero/null one/eins/uno two/zwei/deux/dos three/drei/trois/tres four/vier/quatre/cuatro"
    " five/fünf/cinq/cinco six/sechs/seis seven/sieben/sept/siete eight/acht/huit/ocho nine/neun/neuf/nueve"
    " ten/zehn/dix/diez eleven/elf twelve/zwölf/douze/doce thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen twenty/zwanzig/vingt/veinte"
)
_NUMERALS = {word: str(value) for value, names in enumerate(_SPELT.split(" ")) for word in names.split("/")}
_DENIES = _set(
    "no not never none nobody nothing neither nor without cannot lack lacks lacking fail fails failed unable"
    " don doesn didn isn wasn aren weren wouldn couldn shouldn hasn haven hadn mustn needn"
    " nicht kein keine keinen keiner nie niemals ohne pas jamais sans aucun aucune nunca sin ningún ninguna"
)
_MORE = frozenset(
    terms(
        "increase higher raise elevated enhance greater promote activate stimulate induce improve gain grow"
        " larger rise faster longer upregulated better positive stronger earlier allow permit accept agree"
        " win support open benefit require always gained risen"
    )
) | _set("more up above all must after")
_LESS = frozenset(
    terms(
        "decrease lower reduce diminish impair suppress inhibit block prevent worsen loss lose smaller fall"
        " slower shorter downregulated worse negative weaker later forbid prohibit reject refuse deny oppose"
        " close harm fewer decline"
    )
) | _set("less down below none fewer before")


@dataclass(frozen=True)
class Statement:
    """A text as it is compared."""

    text: str

    @cached_property
    def terms(self) -> list[str]:
        return terms(self.text)

    @cached_property
    def words(self) -> list[str]:
        return words(self.text)

    @cached_property
    def known(self) -> frozenset[str]:
        return frozenset(self.terms)

    @cached_property
    def pairs(self) -> frozenset[tuple[str, ...]]:
        return frozenset(zip(self.words, self.words[1:], strict=False))

    @cached_property
    def triples(self) -> frozenset[tuple[str, ...]]:
        return frozenset(zip(self.words, self.words[1:], self.words[2:], strict=False))

    @cached_property
    def numbers(self) -> frozenset[str]:
        """Figures, also those that an extraction of text has torn apart, and small numbers spelt out."""
        apart = _NUMBER.findall(_THOUSANDS.sub("", _TORN.sub("", self.text)))
        spelt = (_NUMERALS[word] for word in self.words if word in _NUMERALS)
        return self.figures.union(apart, spelt)

    @cached_property
    def figures(self) -> frozenset[str]:
        """Without separators of thousands."""
        return frozenset(_NUMBER.findall(_THOUSANDS.sub("", self.text)))

    @cached_property
    def names(self) -> frozenset[str]:
        """Stems of capitalised words that do not begin a sentence."""
        return frozenset(stem for name in _NAME.findall(self.text) for stem in terms(name))

    @cached_property
    def stems(self) -> list[str]:
        """Of each of its words; of those without meaning, none."""
        return [next(iter(terms(word)), "") for word in self.words]

    def denies(self, about: frozenset[str]) -> bool:
        """Whether a word of denial stands among the words whose stems are these, or right before them."""
        places = [at for at, stem in enumerate(self.stems) if stem in about]
        if not places:
            return False
        return bool(_DENIES.intersection(self.words[max(0, places[0] - 1) : places[-1] + 1]))

    @cached_property
    def leaning(self) -> tuple[bool, bool]:
        """Whether it speaks of more, and of less."""
        said = self.known | frozenset(self.words)
        return bool(said & _MORE), bool(said & _LESS)


@dataclass(frozen=True, slots=True)
class Window:
    """One sentence of a passage, or two; `span` is in the passage's text."""

    span: Span
    statement: Statement
    single: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """A passage, read. `whole` is all of it under its headings; `weights` are the rarities of its terms, and
    `unseen` is that of any other."""

    windows: tuple[Window, ...]
    whole: Statement
    weights: dict[str, float]
    unseen: float

    def shares(self, claim: Statement, among: Iterable[Statement]) -> list[float]:
        """The weighted share of the claim's terms that each of these has."""
        weights = {term: self.weights.get(term, self.unseen) for term in claim.known}
        total = sum(weights.values())
        if not total:
            return [0.0 for _ in among]
        known = claim.known
        return [sum([weights[term] for term in known & one.known]) / total for one in among]

    def share(self, claim: Statement) -> float:
        """That share of the whole passage."""
        (share,) = self.shares(claim, [self.whole])
        return share


@dataclass(frozen=True, slots=True)
class Agreement:
    """What comparing a sentence with its sources gave. Shares are in [0, 1].

    `source` is the place of the best source and `window` the best match in it; `anywhere` is the weighted
    share of the sentence's terms that are in a source, `runs` that of its pairs of words. `quoted` says that
    a source has every run of three words of it. `numbers` are its figures that no source has, `names` the
    share of its names. `denied` and `turned` say that it denies what an otherwise like sentence says, or
    says less where that says more."""

    source: int
    window: Window
    anywhere: float
    runs: float
    quoted: bool
    numbers: frozenset[str]
    names: float
    denied: bool
    turned: bool


def sentence_spans(text: str) -> list[Span]:
    """The sentences of a passage and its lines, as exact slices."""
    return [Span(match.start(), match.end()) for match in _SENTENCE.finditer(text)]


def read(text: str, above: str = "") -> Evidence:
    """`above` is what stands over the passage: its title and headings."""
    spans = sentence_spans(text) or [Span(0, len(text))]
    singles = [Window(span, Statement(text[span.start : span.end]), True) for span in spans]
    pairs = [
        Window(Span(a.start, b.end), Statement(text[a.start : b.end]), False) for a, b in pairwise(spans)
    ]
    seen = Counter(term for window in singles for term in window.statement.known)
    total = len(singles)
    return Evidence(
        windows=(*singles, *pairs),
        whole=Statement(f"{above}\n{text}"),
        weights={term: _rarity(total, count) for term, count in seen.items()},
        unseen=_rarity(total, 0),
    )


def compare(claim: Statement, sources: Sequence[Evidence]) -> Agreement:
    """The claim against at least one source."""
    best = (-1.0, 0, sources[0].windows[0], 0.0)
    for at, source in enumerate(sources):
        shares = source.shares(claim, [window.statement for window in source.windows])
        for share, window in zip(shares, source.windows, strict=True):
            # Of windows that say the same, the shorter one is the place to show.
            score = share if window.single else share - 0.04
            if score > best[0]:
                best = (score, at, window, share)
    _, at, window, alike = best
    beside = window.statement
    shared = claim.known & beside.known
    known = frozenset[str]().union(*(source.whole.known for source in sources))
    numbers = frozenset[str]().union(*(source.whole.numbers for source in sources))
    return Agreement(
        source=at,
        window=window,
        anywhere=max(source.share(claim) for source in sources),
        runs=max(_held(claim.pairs, source.whole.pairs, claim, source) for source in sources),
        quoted=any(_held(claim.triples, source.whole.triples, claim, source) > 0.999 for source in sources),
        numbers=claim.figures - numbers,
        names=len(claim.names - known) / max(1, len(claim.names)),
        denied=window.single and alike >= ALIKE and claim.denies(shared) != beside.denies(shared),
        turned=alike >= ALIKE / 2 and _turned(claim, beside),
    )


def nearest(claim: Statement, source: Evidence, most: int) -> list[Window]:
    """The sentences of the source that share most with the claim: those worth an embedder's time."""
    singles = [window for window in source.windows if window.single]
    shares = source.shares(claim, [window.statement for window in singles])
    ranked = sorted(range(len(singles)), key=lambda at: -shares[at])
    return [singles[at] for at in ranked[:most]]


def _held(
    runs: frozenset[tuple[str, ...]],
    there: frozenset[tuple[str, ...]],
    claim: Statement,
    source: Evidence,
) -> float:
    """The share of the claim's runs of words that are there; of a claim too short for any, of its terms."""
    return len(runs & there) / len(runs) if runs else source.share(claim)


def _turned(claim: Statement, beside: Statement) -> bool:
    """One speaks of more only, the other of less only."""
    return claim.leaning in ((True, False), (False, True)) and beside.leaning == claim.leaning[::-1]


def _rarity(total: int, count: int) -> float:
    return math.log(1 + (total - count + 0.5) / (count + 0.5))
