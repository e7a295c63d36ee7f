"""How much of the text that answers a question is among the passages that a model is given.

Each question of a data set is searched for in this process, and what is found is put together in several ways
under the same budget: as it was found, as the release does it, and in ways that were tried and left out
because they lose more than they win. Whoever wants one of those back begins here.

Three layouts are read: exact characters of long texts (`questions.jsonl` beside `corpora/`), answers at their
place in a paragraph (`qa.jsonl` beside `corpus.jsonl`, as in SQuAD 2.0), and what `eval.cases` loads: quotes
where it has them, else documents.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from app import context
from app.release import ContextPart, Release
from eval.cases import load_dataset
from eval.inprocess import EVERYTHING, InProcess, Text
from eval.statistics import mean_difference
from eval.types import EvalError, Interval, SourceDocument
from ingestion.parse import parse
from retrieval.search import Index, search
from retrieval.types import Encoder, Hit

BUDGETS = (3_000, 6_000)
"""Characters, beside the release's own budget: where room is short, order and repetition count for more."""
LONG = 40
"""Characters from which a gold text counts wherever it stands: a shorter one may do so by chance."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Place:
    """Characters `start` to `end` of a document's extracted text; `end` None is any part of it."""

    document_id: str
    start: int = 0
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """`gold` are the texts that answer it, each with all places where it stands; any of them will do."""

    question: str
    gold: tuple[tuple[Place, ...], ...]


@dataclass(frozen=True, slots=True)
class Corpus:
    name: str
    documents: tuple[Text, ...]
    questions: tuple[Asked, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """Of one question: the share of its gold that is in the context (`found`), of all characters there or in
    the gold those that are in both (`overlap`, 0 where the gold is documents), and the share of gold texts
    that stand `whole` in one passage, or would if neighbours were `joined`."""

    found: float
    overlap: float
    whole: float
    joined: float


@dataclass(frozen=True, slots=True)
class Row:
    """Means over the questions; `gained` is what the release finds more than `as found`, with its 95%
    interval."""

    corpus: str
    budget: str
    questions: int
    means: Mapping[str, Given]
    gained: Interval


AS_FOUND, RELEASE = "as found", "release"
_NEIGHBOURS: Mapping[str, tuple[int, ...]] = {"best + next": (1,), "best + both sides": (-1, 1)}
STEPS = (AS_FOUND, RELEASE, *_NEIGHBOURS)


def load(source: str, most: int) -> Corpus:
    """A corpus with at most `most` questions, spread evenly. Raises `EvalError` for what is none."""
    folder = Path(source)
    if (folder / "corpora").is_dir():
        return _excerpts(folder, most)
    dataset = load_dataset(source)
    documents = tuple(map(_text, dataset.documents))
    if _rows(folder / "qa.jsonl", "answer_start"):
        return _answers(folder, documents, most)
    texts = {document.id: document.text for document in documents}
    asked = tuple(
        Asked(case.question, tuple(_quoted(texts, gold.document_id, gold.quote) for gold in case.gold))
        for case in dataset.cases
        if case.gold and case.kind == "question"
    )
    return Corpus(dataset.ref.name, documents, _spread(asked, most))


def copied(corpus: Corpus, copies: int) -> Corpus:
    """With every document so many times, as where one file lies in several folders."""
    again = range(2, copies + 1)
    more = tuple(replace(document, id=f"{document.id}~{n}") for n in again for document in corpus.documents)

    def everywhere(places: tuple[Place, ...]) -> tuple[Place, ...]:
        return (*places, *(replace(p, document_id=f"{p.document_id}~{n}") for n in again for p in places))

    questions = (replace(one, gold=tuple(map(everywhere, one.gold))) for one in corpus.questions)
    return replace(corpus, documents=(*corpus.documents, *more), questions=tuple(questions))


async def measured(corpus: Corpus, release: Release, embedder: Encoder, progress: Progress) -> list[Row]:
    """A row for the release's own budget and one for each of `BUDGETS`."""
    house = InProcess(embedder, release)
    await house.add(
        corpus.documents, lambda _, done, total: progress(f"{corpus.name} documents", done, total)
    )
    params, part = release.search, release.body.context
    parts = {
        f"{params.limit} passages": (part, params.limit),
        **{f"{n} characters": (part.model_copy(update={"max_characters": n}), n) for n in BUDGETS},
    }
    given: dict[str, list[dict[str, Given]]] = {name: [] for name in parts}
    for done, one in enumerate(corpus.questions, start=1):
        found = await search(house.index, one.question, EVERYTHING, params, limit=context.depth(params))
        for name, (budget, most) in parts.items():
            ways = await _ways(house.index, found.hits, budget, most)
            given[name].append({way: _given(hits, one.gold) for way, hits in ways.items()})
        progress(f"{corpus.name} questions", done, len(corpus.questions))
    return [_row(corpus.name, budget, values) for budget, values in given.items()]


async def _ways(
    index: Index, hits: Sequence[Hit], part: ContextPart, most: int
) -> dict[str, tuple[Hit, ...]]:
    plain = part.model_copy(update={"distinct": False})
    ways = {AS_FOUND: context.chosen(hits, plain, most), RELEASE: context.chosen(hits, part, most)}
    for name, offsets in _NEIGHBOURS.items():
        ways[name] = context.chosen(await _with_neighbours(index, hits, offsets), plain, most)
    return ways


async def _with_neighbours(index: Index, hits: Sequence[Hit], offsets: Sequence[int]) -> list[Hit]:
    """The best hit, the passages beside it, then the others."""
    if not hits:
        return []
    best = hits[0]
    ids = [f"{best.chunk.revision}-{best.chunk.ordinal + offset}" for offset in offsets]
    beside = await index.store.read(index.generation, EVERYTHING.tenant, ids)
    fetched = [Hit(chunk, best.score) for chunk in beside]
    known = {chunk.id for chunk in beside}
    return [best, *fetched, *(hit for hit in hits[1:] if hit.chunk.id not in known)]


def _given(hits: Sequence[Hit], gold: Sequence[Sequence[Place]]) -> Given:
    spans = [Place(hit.chunk.document_id, hit.chunk.span.start, hit.chunk.span.end) for hit in hits]
    sizes = [_size(places[0]) for places in gold]
    shares = [max(_covered(place, spans) for place in places) for places in gold]
    got, total = float(np.dot(sizes, shares)), sum(sizes)
    told = sum(_size(span) for span in spans)
    exact = all(place.end is not None for places in gold for place in places)
    return Given(
        found=got / total,
        overlap=got / (told + total - got) if exact else 0.0,
        whole=_whole(gold, spans),
        joined=_whole(gold, list(_joined(hits))),
    )


def _size(place: Place) -> int:
    return 1 if place.end is None else place.end - place.start


def _covered(place: Place, spans: Sequence[Place]) -> float:
    """The share of the place's characters that the spans hold."""
    near = [span for span in spans if span.document_id == place.document_id]
    if place.end is None:
        return float(bool(near))
    seen = np.zeros(place.end - place.start, dtype=bool)
    for span in near:
        seen[max(0, span.start - place.start) : max(0, (span.end or 0) - place.start)] = True
    return float(seen.mean())


def _whole(gold: Sequence[Sequence[Place]], spans: Sequence[Place]) -> float:
    return float(np.mean([any(_covered(p, [s]) == 1 for p in places for s in spans) for places in gold]))


def _joined(hits: Sequence[Hit]) -> Iterator[Place]:
    """The passages, those that follow each other in one document as one."""
    last: Hit | None = None
    start = 0
    for hit in sorted(hits, key=lambda hit: (hit.chunk.document_id, hit.chunk.ordinal)):
        chunk = hit.chunk
        follows = last is not None and (last.chunk.document_id, last.chunk.ordinal + 1) == (
            chunk.document_id,
            chunk.ordinal,
        )
        start = start if follows else chunk.span.start
        last = hit
        yield Place(chunk.document_id, start, chunk.span.end)


def _row(corpus: str, budget: str, values: Sequence[Mapping[str, Given]]) -> Row:
    means = {
        way: Given(*np.mean([list(asdict(one[way]).values()) for one in values], axis=0).tolist())
        for way in STEPS
    }
    before, after = ([one[way].found for one in values] for way in (AS_FOUND, RELEASE))
    return Row(corpus, budget, len(values), means, mean_difference(before, after))


def markdown(rows: Sequence[Row]) -> str:
    """What every way found; of the release's passages their overlap, and how often a gold text is whole."""
    names = ["gold found", "budget", *STEPS, "release gains (95%)", "overlap", "whole / neighbours as one"]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for row in rows:
        cells = [f"{row.means[way].found:.3f}" for way in STEPS]
        release = row.means[RELEASE]
        cells.append(f"{row.gained.mean:+.3f} ({row.gained.low:+.3f} to {row.gained.high:+.3f})")
        cells += [f"{release.overlap:.3f}", f"{release.whole:.3f} / {release.joined:.3f}"]
        lines.append("| " + " | ".join([f"{row.corpus} ({row.questions})", row.budget, *cells]) + " |")
    return "\n".join(lines) + "\n"


def _excerpts(folder: Path, most: int) -> Corpus:
    documents = tuple(
        Text(path.stem, "", _plain(path.read_text(encoding="utf-8")))
        for path in sorted((folder / "corpora").glob("*.md"))
    )
    texts = {document.id: document.text for document in documents}
    asked = tuple(
        Asked(
            row["question"],
            tuple(_quoted(texts, row["corpus_id"], each["content"]) for each in row["references"]),
        )
        for row in _rows(folder / "questions.jsonl", "references")
    )
    return Corpus(folder.name, documents, _spread(asked, most))


def _answers(folder: Path, documents: tuple[Text, ...], most: int) -> Corpus:
    """The first answer that people gave, where they saw it."""
    asked = tuple(
        Asked(row["question"], ((Place(row["context_id"], start, start + len(row["answers"][0])),),))
        for row in _rows(folder / "qa.jsonl", "answer_start")
        for start in row["answer_start"][:1]
    )
    return Corpus(folder.name, documents, _spread(asked, most))


def _quoted(texts: Mapping[str, str], document_id: str, quote: str | None) -> tuple[Place, ...]:
    """Where the quote stands, white space aside: in its document first, then in others. Any part of the
    document where there is no quote."""
    if quote is None:
        return (Place(document_id),)
    pattern = re.compile(r"\s+".join(map(re.escape, quote.split())))
    others = texts if len(quote) >= LONG else ()
    found = tuple(
        Place(name, *match.span())
        for name in dict.fromkeys((document_id, *others))
        for match in pattern.finditer(texts[name])
    )
    if not found:
        raise EvalError(f"{document_id} does not hold the text {quote[:60]!r}.")
    return found


def _text(document: SourceDocument) -> Text:
    """A file's text as its reader extracts it."""
    parsed = parse(document.content, document.filename, None if document.filename else "text/plain")
    return Text(document.id, document.title or parsed.title or "", parsed.text)


def _plain(text: str) -> str:
    return parse(text.encode(), None, "text/plain").text


def _spread(asked: tuple[Asked, ...], most: int) -> tuple[Asked, ...]:
    total = len(asked)
    return asked if most >= total else tuple(asked[at * total // most] for at in range(most))


def _rows(path: Path, field: str) -> list[dict[str, Any]]:
    """The lines of a file that have such a field; none where there is no file."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [row for line in lines if line.strip() and field in (row := json.loads(line))]
