"""What a follow-up question is about, told from the conversation before it, without a model.

A question that leans on what came before says so by a pronoun, by being short, or by going on where the last
one ended ("And after ten years?"). It gets the words that matter from the user's own turns, the latest
first; any other question is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llm.terms import terms, words

TURNS = 6
"""Messages of a conversation that are looked at."""
MOST = 8
"""Words that are added."""
SHORT = 3
"""Meaningful words of a question that stands on its own."""

_PRONOUNS = "it its they them their this that these those there then he she him her his one ones same"
_LEANS = frozenset(_PRONOUNS.split())
_ASKING = (
    "who whom whose what which when where why how is are was were do does did has have had can could may"
    " might must shall should will would tell show list give name explain describe"
    " wer wen wem was welche welcher welches wann wo warum wie wieso ist sind war gibt kann muss darf"
    " qui que quoi quel quelle quels quelles quand où pourquoi comment combien est sont"
    " qué quién quiénes cuál cuáles cuándo dónde cómo cuánto cuántos cuántas es son hay"
    " chi cosa quale quali quando dove perché come quanto quanti è sono"
    " wie wat welke wanneer waar waarom hoe hoeveel zijn"
)
_ASKS = frozenset(_ASKING.split())
_GOES_ON = re.compile(
    r"\s*(?:(?:what|how) about|and|or|but|so|und|oder|aber|et|ou|mais|y|o|pero|e|ma|en|maar)\b[\s,]*",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w[\w.-]*\w|\w")
_TURN = re.compile(r"^(user|assistant): ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Reading:
    """A way to understand a question. `question` are the words that decide, `topic` those that it is about
    and does not say. `new` is what it asks an earlier question about, which has to be in the passages."""

    question: str
    topic: tuple[str, ...] = ()
    new: str = ""

    @property
    def whole(self) -> str:
        return " ".join([*self.question.split(), *self.topic])


def readings(turns: Sequence[str], question: str) -> list[Reading]:
    """The ways to understand a question after these turns of the user, the likeliest first."""
    said = _understood(turns, question)
    if said.question == question and said.topic and not _refers(question):
        return [Reading(question), said]
    return [said]


def joined(history: str, question: str) -> str:
    """The question, with the words of the history where it needs them. One line."""
    return _understood(_turns(history), question).whole


def _understood(turns: Sequence[str], question: str) -> Reading:
    """With what it leaves unsaid because an earlier turn said it."""
    if not turns:
        return Reading(question)
    if rest := _goes_on(question):
        *before, last = turns
        return Reading(_continued(_understood(before, last).whole, rest), new=rest)
    if len(set(terms(question))) >= SHORT and not _refers(question):
        return Reading(question)
    return Reading(question, _topic(turns, question))


def _goes_on(question: str) -> str:
    """What the last question should be asked about now, where it only names that."""
    begins = _GOES_ON.match(question)
    rest = question[begins.end() :] if begins else question
    short = begins is not None or len(set(terms(question))) < SHORT
    asks = _ASKS & set(words(rest)[:3]) or not 0 < len(set(terms(rest))) <= MOST
    return rest.strip(" \t\n?!.") if short and not asks else ""


def _continued(last: str, rest: str) -> str:
    """The last question about something else: in the place of what it named where that can be told, so that
    after "in Paris?" "And in London?" asks of London only; else at its end."""
    asked, new = last.rstrip(" ?!.").split(), rest.split()
    for at in range(len(asked) - len(new) + 1):
        window = asked[at : at + len(new)]
        other = [(one, two) for one, two in zip(window, new, strict=True) if one.lower() != two.lower()]
        if len(other) == 1 and _alike(*other[0]):
            return " ".join([*asked[:at], *new, *asked[at + len(new) :]]) + "?"
    return " ".join([*asked, rest]) + "?"


def _alike(one: str, other: str) -> bool:
    """Numbers or codes of one form, or two names."""
    if _forms(one) or _forms(other):
        return _forms(one) == _forms(other)
    return one[:1].isupper() and other[:1].isupper()


def _refers(question: str) -> bool:
    return not _LEANS.isdisjoint(words(question))


def _topic(turns: Sequence[str], question: str) -> tuple[str, ...]:
    """The words of the turns that matter, the latest turn first. A number leaves out earlier ones of its
    form."""
    meant, forms = set(terms(question)), _forms(question)
    added: dict[str, str] = {}
    for turn in reversed(turns):
        for word in _WORD.findall(turn):
            stems = terms(word)
            if stems and not meant & set(stems) and not forms & _forms(word):
                added.setdefault(stems[0], word)
        forms |= _forms(turn)
    return tuple(added.values())[:MOST]


def _forms(text: str) -> set[str]:
    """The shapes of its numbers and codes: 0000 of a year, e00 of E41."""
    return {re.sub(r"\d", "0", word) for word in words(text) if re.search(r"\d", word)}


def _turns(history: str) -> list[str]:
    """What the user said, in order; all of it where no line says who spoke."""
    parts = _TURN.split(history)
    said = [text for role, text in zip(parts[1::2], parts[2::2], strict=True) if role == "user"]
    return said or [history]
