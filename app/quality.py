"""Flaws of an answer or a summary that can be told from it alone, without a model and without a reference.

Cheap enough for every live answer, and the same in evaluation. A flaw is a flag: 1.0 is bad, 0.0 is not. On
one answer a flag may be wrong; its rate over many, compared between two releases, is what it is for.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice

from app.types import Answer, Summary
from llm.language import declined, detect
from llm.sentences import sentences

TAIL = 800
"""Characters at the end that are looked at for a loop: a model that loops does so until it is stopped."""
SHORTEST = 60
"""Characters below which nothing counts as a loop."""
SQUEEZED = 5.0
"""How many times shorter its tail gets by compression from which a text loops. Of running text in five open
sets 99.5 % of tails stay below 4.6; a unit of 150 characters said over and over reaches 5.7, shorter ones
more."""
OFTEN = 3
"""times the same sentence of at least `LONG` characters is a loop too."""
LONG = 20
BEGINNING = 200
"""Characters within which a model that refuses says so."""
TELLING = 800
"""Characters that are enough to tell a language."""

_MARKER = re.compile(r"\[\s*(\d{1,4}(?:\s*,\s*\d{1,4})*)\s*\]")
# Tags of prompts may have got a space on their way out, which keeps renderers from taking them for HTML.
_LEAKED = re.compile(
    r"<\|[\w ]{1,40}\|>|< ?/?(?:s|pad|unk|bos|eos|think|(?:start|end)_of_turn|passages?|history|not_found)"
    r"(?: id=[^>]{0,200})?>|\[/?INST\]|<<SYS>>"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd\ufffe\uffff\ue000-\uf8ff]")
_FENCE = re.compile(r"^\s{0,3}(```|~~~)", re.MULTILINE)
_REFUSES = re.compile(
    r"\b(?:I(?:['’]m| am) (?:sorry|unable|not able)|I (?:cannot|can['’]t|can not) (?:answer|help|assist"
    r"|provide|find|do)|as an AI\b|I (?:do not|don['’]t) (?:know|have (?:enough |any )?information)"
    r"|es tut mir leid|ich kann (?:diese|die|ihre|deine) frage nicht|ich weiß (?:es )?nicht"
    r"|lo siento|no puedo (?:responder|ayudar)|no lo sé|je suis désolée?|je ne (?:peux|sais) pas"
    r"|mi dispiace|non posso rispondere|não posso responder)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Each in [0, 1], 1 is bad.

    empty: says nothing. truncated: ended by the limit of tokens. repetition: loops. refusal: declines though
    it had passages; of one answer that may be right. wrong_language: another language than wanted.
    unresolved: a marker names no source. uncited: several sentences, no source, and not declining.
    malformed: control characters, an open code fence, tokens or tags of the prompt. degraded: made without
    something that its release asks for.
    """

    empty: float = 0.0
    truncated: float = 0.0
    repetition: float = 0.0
    refusal: float = 0.0
    wrong_language: float = 0.0
    unresolved: float = 0.0
    uncited: float = 0.0
    malformed: float = 0.0
    degraded: float = 0.0

    @property
    def flags(self) -> Mapping[str, float]:
        return {name: getattr(self, name) for name in FLAGS}

    @property
    def raised(self) -> tuple[str, ...]:
        """The names of the flaws that it has."""
        return tuple(name for name in FLAGS if getattr(self, name))


FLAGS = tuple(field.name for field in fields(Quality))


def assess(
    text: str,
    *,
    cited: Collection[int],
    sources: int,
    finish: str = "stop",
    degraded: Sequence[str] = (),
    language: str | None = None,
) -> Quality:
    """`cited` are the numbers that its markers may name and that resolve; `sources` is how many passages it
    was made from; `language` is the code of the one wanted, None where none is."""
    said = _MARKER.sub("", text).strip()
    refuses = not cited and (declined(said) or bool(_REFUSES.search(said[:BEGINNING])))
    return Quality(
        empty=float(not any(character.isalnum() for character in said)),
        truncated=float(finish == "length"),
        repetition=float(loops(said)),
        refusal=float(refuses and sources > 0),
        wrong_language=float(language is not None and detect(said[:TELLING]) not in (None, language)),
        unresolved=float(not markers(text) <= set(cited)),
        uncited=float(not cited and not refuses and _several(said)),
        malformed=float(malformed(text)),
        degraded=float(bool(degraded)),
    )


def of_answer(answer: Answer, *, question: str, sources: int) -> Quality:
    """An answer should be in its question's language."""
    return assess(
        answer.text,
        cited={citation.number for citation in answer.citations},
        sources=sources,
        finish=answer.finish,
        degraded=answer.degraded,
        language=detect(question),
    )


def of_summary(summary: Summary, *, language: str | None) -> Quality:
    """`language` is the one that was asked for."""
    return assess(
        summary.text,
        cited={citation.number for citation in summary.citations},
        sources=len(summary.citations),
        degraded=summary.degraded,
        language=language,
    )


def markers(text: str) -> set[int]:
    """The numbers that the markers of a text name."""
    return {int(number) for group in _MARKER.findall(text) for number in group.split(",")}


def loops(text: str) -> bool:
    """Whether a model said the same over and over."""
    if len(text) < SHORTEST:
        return False
    tail = text[-TAIL:].encode(errors="replace")
    if len(tail) >= SQUEEZED * len(zlib.compress(tail, 1)):
        return True
    said = Counter(part for line in text.splitlines() for part in line.split(". ") if len(part) >= LONG)
    return any(count >= OFTEN and any(map(str.isalpha, part)) for part, count in said.items())


def malformed(text: str) -> bool:
    """Whether a text holds what no reader should see."""
    return bool(_CONTROL.search(text) or len(_FENCE.findall(text)) % 2 or _LEAKED.search(text))


def _several(said: str) -> bool:
    found = (one for line in said.splitlines() for one in sentences(line) if any(map(str.isalpha, one)))
    return len(list(islice(found, 2))) > 1
