"""Passages cut into sections that a prompt takes, and the sentences of a section's summary put under the
passages they cite.

Where a section ends is decided by the text there, as in content-defined chunking (Muthitacharoen et al.
2001): a passage that is changed, added or removed moves the ends near it only, so that all other sections
stay word for word what they were, and their summaries can be used again. For the same reason a section
counts its passages from 1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace

from llm.language import declined
from llm.types import Passage
from retrieval.types import Chunk, Span

PASSAGE = 1_200
"""Characters of a passage of text handed in with the request, at most."""
SHORTEST = 80
"""Characters of a passage below which it is not cut."""
_ENDS = 4
"""One passage in so many may end a section that is half full."""
_CITED = re.compile(r"(.+?)((?:\s*\[\d{1,4}\])+)[.!?]?", re.DOTALL)
_SENTENCE = re.compile(r"\S.{0,1200}?(?=(?<=[.!?])\s|\n\s*\n|\Z)|\S.{0,1199}", re.DOTALL)

Section = tuple[Passage, ...]


def sections(passages: Sequence[Passage], budget: int) -> list[Section]:
    """Consecutive passages in groups whose text fits the budget, each of at least one."""
    groups: list[list[Passage]] = []
    used, ended = 0, True
    for passage in passages:
        if ended or used + len(passage.text) > budget:
            groups.append([])
            used = 0
        groups[-1].append(passage)
        used += len(passage.text)
        ended = used >= budget / 2 and _ends(passage)
    return [tuple(group) for group in groups]


def length(section: Section) -> int:
    """Words."""
    return sum(len(passage.text.split()) for passage in section)


def halved(section: Section) -> tuple[Section, Section] | None:
    """In two near the middle of its text: between passages, or within the only one, whose number both
    halves then have. None when there is nothing left to cut."""
    if len(section) == 1:
        return _halved(section[0])
    sizes = [len(passage.text) for passage in section]
    at = min(range(1, len(section)), key=lambda at: abs(sum(sizes[:at]) - sum(sizes[at:])))
    return section[:at], section[at:]


def numbered(section: Section) -> Section:
    """The passages as the prompt numbers them: from 1."""
    return tuple(replace(passage, number=number) for number, passage in enumerate(section, start=1))


def condensed(text: str, section: Section) -> list[Passage]:
    """The sentences of a section's summary, under the passage that each cites first; none when it says that
    there is nothing to be said."""
    found: dict[int, Passage] = {}
    for sentence, marks in _CITED.findall(text):
        places = [n - 1 for n in map(int, re.findall(r"\d+", marks)) if 1 <= n <= len(section)]
        if places:
            known = found.get(places[0], replace(section[places[0]], text=""))
            found[places[0]] = replace(known, text=f"{known.text} {sentence.strip(' .')}.".strip())
    if not found and text.strip() and not declined(text):
        return [replace(section[0], text=text.strip())]
    return list(found.values())


def squeezed(passages: Sequence[Passage], budget: int) -> Section:
    """For a model that does not shorten: an equal share of the budget for every passage, or for as many,
    evenly chosen, as can have a share worth reading."""
    step = -(-len(passages) // max(1, budget // SHORTEST))
    kept = passages[::step]
    share = max(SHORTEST, budget // len(kept))
    return tuple(replace(passage, text=passage.text[:share]) for passage in kept)


def paragraphs(text: str, tenant: str) -> tuple[Chunk, ...]:
    """Text handed in with the request, as passages that belong to no document."""
    return tuple(
        Chunk(
            id=f"text-{ordinal}",
            tenant=tenant,
            collection="",
            document_id="",
            revision=0,
            ordinal=ordinal,
            content_hash=hashlib.sha256(text[span.start : span.end].encode(errors="replace")).hexdigest(),
            title="Text",
            heading="",
            text=text[span.start : span.end],
            page=None,
            span=span,
            groups=frozenset(),
            metadata={},
        )
        for ordinal, span in enumerate(_packed(text))
    )


def _halved(passage: Passage) -> tuple[Section, Section] | None:
    text = passage.text
    if len(text) < 2 * SHORTEST:
        return None
    at = text.rfind(" ", SHORTEST, len(text) // 2) + 1 or len(text) // 2
    return (replace(passage, text=text[:at].strip()),), (replace(passage, text=text[at:].strip()),)


def _ends(passage: Passage) -> bool:
    return hashlib.blake2b(passage.text.encode(errors="replace"), digest_size=1).digest()[0] % _ENDS == 0


def _packed(text: str) -> list[Span]:
    """Sentences packed into spans of at most `PASSAGE` characters; a blank line ends a long enough one."""
    spans: list[Span] = []
    for match in _SENTENCE.finditer(text):
        last = spans[-1] if spans else None
        if last and match.end() - last.start <= PASSAGE and not _breaks(text, last, match.start()):
            spans[-1] = Span(last.start, match.end())
        else:
            spans.append(Span(match.start(), match.end()))
    return spans


def _breaks(text: str, last: Span, start: int) -> bool:
    return last.end - last.start > PASSAGE // 4 and text[last.end : start].count("\n") > 1
