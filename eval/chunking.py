"""How well ways to cut long texts serve retrieval: the measure of Chroma's study (Smith and Troynikov,
"Evaluating Chunking Strategies for Retrieval", 2024) on data with exact places of what answers a question.

Of the characters that answer a question (`gold`) `recall` is the share in the passages retrieved, `precision`
the share of the retrieved characters that are gold, `iou` what is both over what is either. Their published
run (text-embedding-3-large: recall 0.81 for 1 200 characters, 0.90 for clusters of at most 400 tokens; IoU
0.177 and 0.183) counts recall in the best 5 passages, and IoU in the passages that hold any gold, as a
retrieval without fault would bring them, which depends on the cuts alone: `ideal` here. Their later code
counts IoU in the best 5 too, or in as many as hold gold: `iou`, and `least`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from app.release import Release
from eval.chunkers import Chunker, characters, clusters, recursive, structure
from eval.inprocess import EVERYTHING, InProcess, Text
from eval.types import EvalError
from ingestion.parse import PARSER_VERSION
from ingestion.types import Piece
from retrieval.errors import TextTooLong
from retrieval.search import Index, search
from retrieval.types import Encoder, SearchParams, Span

DEPTH = 5
"""Passages retrieved for a question in the published run."""
MOST = 20
"""Passages counted at most where as many are taken as hold gold."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and the places in one document that answer it together."""

    question: str
    document_id: str
    gold: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Corpus:
    documents: tuple[Text, ...]
    questions: tuple[Asked, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    recall: float
    precision: float
    iou: float


@dataclass(frozen=True, slots=True)
class Retrieved:
    """Means over the questions: of the best `DEPTH` passages, and of as many as hold gold (`least`)."""

    best: Figures
    least: Figures


@dataclass(frozen=True, slots=True)
class Row:
    """`tokens` is the mean of the passages; `ideal` the IoU of those that hold gold. `dense` is retrieved by
    vectors alone, as in the study, `hybrid` by the release's search; None where passages outgrow the
    embedder's window."""

    chunker: str
    passages: int
    tokens: float
    ideal: float
    dense: Retrieved | None
    hybrid: Retrieved | None


Place = tuple[str, Span]
Cuts = Mapping[str, Sequence[Piece]]
"""By document id."""


def load(folder: Path) -> Corpus:
    """`corpora/*.md` and `questions.jsonl` with exact characters. Raises `EvalError` for what is none."""
    try:
        lines = (folder / "questions.jsonl").read_text(encoding="utf-8").split("\n")
        texts = {path.stem: path.read_text(encoding="utf-8") for path in (folder / "corpora").glob("*.md")}
        questions = tuple(_asked(json.loads(line), texts) for line in lines if line.strip())
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise EvalError(f"{folder} has no questions on texts in corpora/: {error!r}.") from None
    return Corpus(tuple(Text(name, "", texts[name]) for name in sorted(texts)), questions)


def _asked(row: Mapping[str, object], texts: Mapping[str, str]) -> Asked:
    name, references = str(row["corpus_id"]), row["references"]
    assert isinstance(references, list)
    gold = tuple(Span(each["start_index"], each["end_index"]) for each in references)
    for span, each in zip(gold, references, strict=True):
        if texts[name][span.start : span.end] != each["content"]:
            raise ValueError(f"{each['content'][:40]!r} is not at its place in {name}")
    return Asked(str(row["question"]), name, gold)


def ways(
    release: Release, embedder: Encoder, sizes: Sequence[int], overlaps: Sequence[int]
) -> dict[str, Chunker]:
    """The release's own way to cut, the same in other sizes for texts of any length, and what others use."""
    spec = release.index_spec(embedder.spec, PARSER_VERSION)
    pairs = [(size, overlap) for size in sizes for overlap in (0, *overlaps) if overlap * 2 <= size]
    own = {
        _name("structure", size, overlap): structure(
            replace(spec, chunk_tokens=size, chunk_overlap=overlap, long_tokens=0), embedder
        )
        for size, overlap in dict.fromkeys(pairs)
    }
    return {
        f"release {release.name}": structure(spec, embedder),
        **own,
        **{_name("recursive", size): recursive(size, embedder) for size in sizes},
        **{_name("clusters", size): clusters(size, embedder) for size in sizes},
        "1 200 characters": characters(1_200),
    }


def _name(way: str, size: int, overlap: int = 0) -> str:
    return f"{way}, {size} tokens" + (f", {overlap} shared" if overlap else "")


async def measured(
    corpus: Corpus, release: Release, embedder: Encoder, name: str, chunker: Chunker, progress: Progress
) -> Row:
    """What a way to cut is worth on this corpus."""
    cuts = {document.id: await chunker(document) for document in corpus.documents}
    holding = _holding(corpus, cuts)
    tokens = [len(embedder.token_spans(piece.text)) for pieces in cuts.values() for piece in pieces]
    counts = [min(MOST, len(held)) for held in holding]
    house = InProcess(embedder, release)
    try:
        await house.add(corpus.documents, lambda *_: None, cuts)
    except TextTooLong:
        dense = hybrid = None
    else:
        alone = replace(release.search, dense_weight=1.0, languages=(), smoothing=0.0)
        dense = await _retrieved(house.index, corpus, alone, counts, progress, name)
        hybrid = await _retrieved(house.index, corpus, release.search, counts, progress, name)
    return Row(name, len(tokens), float(np.mean(tokens)), ideal(corpus, cuts), dense, hybrid)


async def _retrieved(
    index: Index,
    corpus: Corpus,
    params: SearchParams,
    counts: Sequence[int],
    progress: Progress,
    name: str,
) -> Retrieved:
    best: list[Figures] = []
    least: list[Figures] = []
    for done, (one, count) in enumerate(zip(corpus.questions, counts, strict=True), start=1):
        found = await search(index, one.question, EVERYTHING, params, limit=max(DEPTH, count))
        places = [(hit.chunk.document_id, hit.chunk.span) for hit in found.hits]
        best.append(_figures(one, places[:DEPTH]))
        least.append(_figures(one, places[:count]))
        progress(name, done, len(corpus.questions))
    return Retrieved(_mean(best), _mean(least))


def ideal(corpus: Corpus, cuts: Cuts) -> float:
    """Mean IoU of the passages that hold any gold, characters that two of them hold counted once."""
    shares: list[float] = []
    for one, held in zip(corpus.questions, _holding(corpus, cuts), strict=True):
        wanted, told = _characters(one.gold), _characters(held)
        shares.append(len(wanted & told) / len(wanted | told))
    return float(np.mean(shares))


def _holding(corpus: Corpus, cuts: Cuts) -> list[list[Span]]:
    """For each question the places of the passages that hold any of its gold."""
    return [
        [piece.span for piece in cuts[one.document_id] if any(_shared(piece.span, gold) for gold in one.gold)]
        for one in corpus.questions
    ]


def _figures(one: Asked, places: Sequence[Place]) -> Figures:
    """Of passages retrieved; a character that two of them hold is retrieved twice and found once."""
    gold = _characters(one.gold)
    found = gold & _characters([span for name, span in places if name == one.document_id])
    told = sum(span.end - span.start for _, span in places)
    return Figures(
        recall=len(found) / len(gold),
        precision=len(found) / told if told else 0.0,
        iou=len(found) / (told + len(gold - found)),
    )


def _characters(spans: Sequence[Span]) -> set[int]:
    return {at for span in spans for at in range(span.start, span.end)}


def _shared(one: Span, other: Span) -> bool:
    return one.start < other.end and other.start < one.end


def _mean(figures: Sequence[Figures]) -> Figures:
    return Figures(*np.mean([list(asdict(each).values()) for each in figures], axis=0).tolist())


def markdown(rows: Sequence[Row]) -> str:
    """Recall / precision / IoU, as the study counts them."""
    names = ["chunker", "passages", "tokens", "IoU, ideal", f"dense, best {DEPTH}", "dense, least"]
    names += [f"hybrid, best {DEPTH}", "hybrid, least"]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for row in rows:
        cells = [row.chunker, f"{row.passages}", f"{row.tokens:.0f}", f"{row.ideal:.3f}"]
        for each in (row.dense, row.hybrid):
            cells += [_cell(each.best), _cell(each.least)] if each else ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(figures: Figures) -> str:
    return f"{figures.recall:.3f} / {figures.precision:.3f} / {figures.iou:.3f}"
