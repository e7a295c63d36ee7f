"""What is handed in for a measurement: a folder's documents, more of the like, and their chunks."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from app.release import DEFAULT_RELEASE, load_release
from eval.cases import document_id, texts
from eval.target import HttpTarget
from eval.types import DatasetInvalid, SourceDocument
from ingestion.documents import default_title
from ingestion.errors import Quarantined
from ingestion.indexers import Indexer
from ingestion.parse import PARSER_VERSION, parse
from retrieval.analyze import analyzer
from retrieval.types import Encoder

MARKDOWN = ".md"
AT_ONCE = 200
UNDER_WAY = 3.0
"""Seconds until a load is felt."""
_MARKUP = " \t#>*+-|`=~_"


def documents(folder: Path) -> list[SourceDocument]:
    """The texts of a folder in BEIR's layout, or the Markdown files of any other; those that hold no text are
    left out."""
    if (folder / "corpus.jsonl").is_file():
        found = list(texts(folder / "corpus.jsonl"))
    else:
        paths = sorted(folder.rglob(f"*{MARKDOWN}"))
        files = [_named(str(path.relative_to(folder)), path.read_bytes()) for path in paths]
        found = [one for one in files if _holds_text(one)]
    if not found:
        raise DatasetInvalid(f"{folder} holds neither corpus.jsonl nor Markdown files.")
    return found


def _named(filename: str, content: bytes) -> SourceDocument:
    return SourceDocument(id=document_id(filename), content=content, filename=filename)


def _holds_text(document: SourceDocument) -> bool:
    with suppress(Quarantined):
        return bool(parse(document.content, document.filename, None).text)
    return False


def changed(documents: Sequence[SourceDocument], rounds: int) -> Iterator[SourceDocument]:
    """The documents again and again, each time as others: words are swapped with their neighbours, so that
    no passage is one that was embedded before, and its length stays."""
    dice = random.Random(17)  # noqa: S311  (a measurement, repeated alike)
    for number in range(1, rounds + 1):
        for one in documents:
            lines = [_shuffled(line, dice) for line in one.content.decode(errors="replace").split("\n")]
            content = "\n".join(lines).encode()
            if one.filename is None:
                yield SourceDocument(id=f"{one.id}~{number}", content=content, title=one.title)
            else:
                yield _named(f"{one.filename}~{number}{MARKDOWN}", content)


def _shuffled(line: str, dice: random.Random) -> str:
    """Markup at the beginning of a line stays where it is."""
    text = line.lstrip(_MARKUP)
    words = text.split(" ")
    for place in range(1, len(words)):
        if dice.random() < 0.5:
            words[place - 1], words[place] = words[place], words[place - 1]
    return line[: len(line) - len(text)] + " ".join(words)


@asynccontextmanager
async def loading(target: HttpTarget, more: Iterator[SourceDocument]) -> AsyncIterator[None]:
    """Documents go in for as long as the block lasts: the queue is never empty, and never long."""

    async def go_on() -> None:
        while batch := list(islice(more, AT_ONCE)):
            await target.hand_in(batch)
            await target.fewer_queued(2 * AT_ONCE)

    going = asyncio.create_task(go_on())
    await asyncio.sleep(UNDER_WAY)
    try:
        yield
    finally:
        going.cancel()
        with suppress(asyncio.CancelledError):
            await going


@dataclass(slots=True)
class Chunked:
    """What the service makes of documents: the `texts` that are embedded, the tokens in them, and those of
    the documents that no chunk holds."""

    texts: list[str] = field(default_factory=list)
    tokens: int = 0
    missed: int = 0


class Chunks:
    """Parses and chunks as the default release does; `embedder` is that release's."""

    def __init__(self, embedder: Encoder) -> None:
        self.embedder = embedder
        spec = load_release(DEFAULT_RELEASE).index_spec(embedder.spec, PARSER_VERSION)
        self._indexer = Indexer(spec, self.embedder, analyzer(spec.analyzer))

    def of(self, documents: Sequence[SourceDocument]) -> Chunked:
        made = Chunked()
        for document in documents:
            kind = None if document.filename else "text/plain"
            parsed = parse(document.content, document.filename, kind)
            title = document.title or default_title(parsed.title, document.filename, document.id)
            pieces = self._indexer.texts(parsed, title)
            made.texts += [text for _, text in pieces]
            made.tokens += sum(len(self.embedder.token_spans(text)) for _, text in pieces)
            inside = _Ranges((block.span.start, block.span.end) for block in parsed.blocks)
            covered = _Ranges((piece.span.start, piece.span.end) for piece, _ in pieces)
            tokens = self.embedder.token_spans(parsed.text)
            made.missed += sum(inside.hold(token) and not covered.hold(token) for token in tokens)
        return made


class _Ranges:
    """Characters, as ranges that do not touch."""

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted(ranges):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._starts.append(start)
                self._ends.append(end)

    def hold(self, span: tuple[int, int]) -> bool:
        place = bisect_right(self._starts, span[0]) - 1
        return place >= 0 and span[1] <= self._ends[place]
