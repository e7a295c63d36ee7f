"""What an update costs: a collection is filled, a share of it changed, and all of it handed in again."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from eval.bench.ingest import load
from eval.instance import Started, started
from eval.types import SourceDocument

SECTIONS = 5
WORDS = 90
"""In a section: one chunk of the default release."""
VOCABULARY = 20_000

Say = Callable[[str], None]


async def update(documents: int, share: float, say: Say) -> dict[str, Any]:
    """Seconds and texts embedded for the full load, for one paragraph changed in a `share` of the documents,
    and for everything handed in again unchanged."""
    dice = random.Random(11)  # noqa: S311  (a measurement, repeated alike)
    found = [_document(number, dice) for number in range(documents)]
    changed = [_changed(one, dice) for one in dice.sample(found, max(1, round(documents * share)))]
    newest = {one.id: one for one in [*found, *changed]}
    told: dict[str, Any] = {"bench": "update", "documents": documents, "share": share}
    async with started(None) as one:
        told["full_load"] = await _taken(one, found, say)
        told["update"] = await _taken(one, changed, say)
        told["handed_in_again"] = await _taken(one, list(newest.values()), say)
    full, updated = told["full_load"], told["update"]
    told["documents_changed"] = round(len(changed) / documents, 4)
    told["seconds_of_the_load"] = round(updated["seconds"] / full["seconds"], 4)
    told["embedded_of_the_load"] = round(updated["embedded"] / full["embedded"], 4)
    return told


async def _taken(one: Started, documents: Sequence[SourceDocument], say: Say) -> dict[str, Any]:
    before = await one.target.reused()
    seconds = await load(one, documents, say)
    held = await one.target.chunks()
    chunks = sum(held[document.id] for document in documents)
    embedded = chunks - (await one.target.reused() - before)
    return {
        "documents": len(documents),
        "seconds": round(seconds, 2),
        "chunks": chunks,
        "embedded": embedded,
    }


def _document(number: int, dice: random.Random) -> SourceDocument:
    sections = [f"# Part {place}\n\n{_words(dice)}\n" for place in range(SECTIONS)]
    return SourceDocument(
        id=f"document-{number}", content="\n".join(sections).encode(), filename=f"document-{number}.md"
    )


def _changed(one: SourceDocument, dice: random.Random) -> SourceDocument:
    """The same, with one section written anew."""
    sections = one.content.decode().split("\n# ")
    place = dice.randrange(1, len(sections))
    sections[place] = f"{sections[place].splitlines()[0]}\n\n{_words(dice)}\n"
    return SourceDocument(id=one.id, content="\n# ".join(sections).encode(), filename=one.filename)


def _words(dice: random.Random) -> str:
    return " ".join(f"word{dice.randrange(VOCABULARY)}" for _ in range(WORDS // 2))
