"""Which documents and sections say of themselves that they no longer hold, and which questions ask for them.

Such a text answers a question as well as the one that took its place, and wrongly; it is quoted where no
other answers. Only what stands apart in a title counts, in brackets, after a dash or a colon or alone, or
begins a clause ("replaced by the policy of 2026"): a heading "Replaced parts" says nothing of its text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

MARKS: Mapping[str, str] = {
    "en": "superseded, obsolete, outdated, withdrawn, replaced, revoked, repealed, rescinded, deprecated,"
    " expired, out of date, no longer in force, no longer valid, not in force",
    "de": "ersetzt, aufgehoben, veraltet, überholt, abgelöst, ungültig, zurückgezogen, abgelaufen,"
    " außer kraft, nicht mehr gültig, nicht mehr in kraft",
    "fr": "obsolète, périmé, périmée, abrogé, abrogée, remplacé, remplacée, retiré, retirée, annulé, annulée,"
    " caduc, caduque, plus en vigueur, plus valable",
    "es": "obsoleto, obsoleta, derogado, derogada, sustituido, sustituida, reemplazado, reemplazada,"
    " retirado, retirada, anulado, anulada, caducado, caducada, no vigente, sin vigencia",
    "it": "obsoleto, obsoleta, superato, superata, abrogato, abrogata, sostituito, sostituita, ritirato,"
    " ritirata, annullato, annullata, revocato, revocata, scaduto, scaduta, non più in vigore,"
    " non più valido, non più valida",
    "pt": "obsoleto, obsoleta, revogado, revogada, substituído, substituída, retirado, retirada, anulado,"
    " anulada, caducado, caducada, não vigente, fora de vigor, sem efeito",
    "nl": "vervangen, verouderd, ingetrokken, vervallen, achterhaald, niet meer geldig, niet meer van kracht",
    "pl": "zastąpiony, zastąpiona, zastąpione, uchylony, uchylona, uchylone, nieaktualny, nieaktualna,"
    " nieaktualne, przestarzały, przestarzała, przestarzałe, wycofany, wycofana, wycofane, unieważniony,"
    " unieważniona, unieważnione, nie obowiązuje",
    "sv": "ersatt, upphävd, upphävt, föråldrad, föråldrat, inaktuell, tillbakadragen, gäller inte,"
    " inte längre giltig",
    "da": "erstattet, ophævet, forældet, udgået, tilbagetrukket, ikke længere gyldig, ikke længere i kraft",
}
"""What a title says then, by language."""
_PAST = (
    "former formerly previous previously earlier früher frühere früheren vorherige ancien ancienne anterior"
)
_FOLLOWS = (
    "by since from on as in with durch seit am ab zum von par depuis le au por desde el da dal dalla"
    " door sinds per op przez od av sedan af siden"
)
"""Words that follow a mark where a clause begins with it."""

MOST = 2
"""Passages of texts that no longer hold that keep their places before others."""

_ALL = [mark.strip() for marks in MARKS.values() for mark in marks.split(",")]
_MARK = "|".join(sorted(map(re.escape, _ALL), key=len, reverse=True))
_LONG = "|".join(re.escape(mark) for mark in _ALL if " " in mark)
_SAYS = re.compile(
    rf"(?:{_MARK})(?:\s+(?:{'|'.join(_FOLLOWS.split())}|\d)\b.*)?|.*\b(?:{_LONG})\b.*", re.IGNORECASE
)
_ASKS = re.compile(rf"\b(?:{_MARK}|{'|'.join(_PAST.split())})\b", re.IGNORECASE)
_APART = re.compile(r"[()\[\]{}|:;,–—_]|\s-+\s")
_FILE = re.compile(r"[-_.()\[\]]")
_NUMBERED = re.compile(r"[^\W_]*\d[^\W_]*")
_YEAR = re.compile(r"(?:19|20)\d\d")


def superseded(titles: Iterable[str]) -> bool:
    """Whether one of these, a document's title and the headings above a text, says so."""
    return any(_split(title)[1] for title in titles)


def asked_for(question: str, old: Iterable[str], others: Iterable[str]) -> bool:
    """Whether a question wants texts under the `old` titles: by saying what became of them, by a year in
    their titles, or by another number or code that stands in no other title."""
    named = _numbers(question) & _numbers(" ".join(_split(title)[0] for title in old))
    years = {number for number in named if _YEAR.fullmatch(number)}
    return bool(_ASKS.search(question) or years or named - _numbers(" ".join(others)))


def current_first(question: str, paths: Sequence[Sequence[str]]) -> list[int]:
    """The order in which to take passages, best first, by the titles and headings above each. Those that no
    longer hold do not crowd out what took their place: but for the best few they come last, unless the
    question asks for them."""
    old = [at for at, path in enumerate(paths) if superseded(path)]
    late = old[MOST:]
    if late:
        gone = set(old)
        others = [title for at, path in enumerate(paths) if at not in gone for title in path]
        if asked_for(question, [title for at in old for title in paths[at]], others):
            late = []
    behind = set(late)
    return [*(at for at in range(len(paths)) if at not in behind), *late]


@lru_cache(maxsize=4_096)
def holds_no_more(title: str, heading: str) -> bool:
    """Whether a passage's title or the headings above it say so. Kept, since every question asks it of all
    that was found."""
    return superseded([title, *heading.split(" > ")])


@lru_cache(maxsize=4_096)
def _split(title: str) -> tuple[str, bool]:
    """The title without the parts that say that it no longer holds, and whether there are any."""
    parts = [part.strip() for part in (_APART if " " in title.strip() else _FILE).split(title)]
    kept = [part for part in parts if not _SAYS.fullmatch(part)]
    return " ".join(kept), len(kept) < len(parts)


def _numbers(text: str) -> set[str]:
    return {word.lower() for word in _NUMBERED.findall(text)}
