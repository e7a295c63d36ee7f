"""How faithfully documents are read: our text, headings and tables against the Markdown of somebody else.

A document is judged by a file NAME.expected.md beside it. Measures, each the F1 of two multisets, the mean of
the documents in which either side has something to compare:

- headings: pairs of level and text. `heading_texts`: the texts alone.
- cells: the texts of the cells that are not empty, table by table, matched by most cells in common.
- grid: pairs of neighbouring cells, the next one that is not empty to the right and below, as in the ICDAR
  2013 table competition (Göbel et al.): right only where rows and columns are.
- words: the words of the whole text, whatever their order; addresses of links do not count.

White space, marks of emphasis and the shape of quotation marks and dashes are nothing to either side.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import TypeVar

from markdown_it import MarkdownIt
from markdown_it.token import Token

from eval.types import EvalError
from ingestion.errors import ParserUnavailable, Quarantined, UnsupportedType
from ingestion.sandbox import Sandbox
from ingestion.types import Parsed

EXPECTED = ".expected.md"
MEASURES = ("headings", "heading_texts", "cells", "grid", "words")

_TIMEOUT = 60.0
_MEMORY = 2**30
_HASHES = re.compile(r"^#{1,6} ")
"""A heading within a cell of a table, which Markdown has no other way to tell."""
_TYPE = {
    ord(c): plain for plain, shapes in {'"': "“”„‟″", "'": "‘’‚‛′", "-": "‐‑‒–—―−"}.items() for c in shapes
}
_WORD = re.compile(r"[^\W_]+")

Grid = list[list[str]]
Relation = tuple[str, str, str]
Thing = TypeVar("Thing", str, tuple[int, str], Relation)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Shape:
    """What is compared of a document."""

    headings: tuple[tuple[int, str], ...]
    tables: tuple[Grid, ...]
    words: Counter[str]


@dataclass(frozen=True, slots=True)
class Fidelity:
    """A document's scores, by measure; one that says nothing is None. `error` is why it was not read."""

    name: str
    type: str
    scores: Mapping[str, float | None]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class FidelityTable:
    documents: tuple[Fidelity, ...]

    def by_type(self) -> dict[str, dict[str, float | None]]:
        types = sorted({document.type for document in self.documents})
        return {
            each: {measure: self._mean(each, measure) for measure in MEASURES}
            | {"documents": sum(document.type == each for document in self.documents)}
            for each in types
        }

    def _mean(self, type_: str, measure: str) -> float | None:
        scores = [document.scores[measure] for document in self.documents if document.type == type_]
        known = [score for score in scores if score is not None]
        return mean(known) if known else None

    def json(self) -> str:
        body = {"types": self.by_type(), "documents": [asdict(document) for document in self.documents]}
        return json.dumps(body, indent=2) + "\n"

    def markdown(self) -> str:
        lines = [
            "| type | documents | " + " | ".join(MEASURES) + " |",
            "|---|---:|" + "---:|" * len(MEASURES),
        ]
        for name, row in self.by_type().items():
            lines.append(f"| {name} | {row['documents']} | {_cells(row)} |")
        short = [
            d for d in self.documents if d.error or any(s is not None and s < 1.0 for s in d.scores.values())
        ]
        if short:
            lines += ["", "Not in full:", "", "| document | " + " | ".join(MEASURES) + " |"]
            lines.append("|---|" + "---:|" * len(MEASURES))
            lines += [f"| {d.name} | {d.error or _cells(d.scores)} |" for d in short]
        return "\n".join(lines) + "\n"


def _cells(scores: Mapping[str, float | None]) -> str:
    return " | ".join("" if (score := scores[m]) is None else f"{score:.3f}" for m in MEASURES)


def measure_fidelity(folder: Path, progress: Progress) -> FidelityTable:
    """Read every document below a folder that has an expected text. Raises `EvalError` when none has."""
    sources = sorted(
        source
        for expected in folder.rglob(f"*{EXPECTED}")
        if (source := expected.with_name(expected.name.removesuffix(EXPECTED))).is_file()
    )
    if not sources:
        raise EvalError(f"No document below {folder} has a file NAME{EXPECTED} beside it.")
    return asyncio.run(_measure(folder, sources, progress))


async def _measure(folder: Path, sources: Sequence[Path], progress: Progress) -> FidelityTable:
    sandbox = Sandbox(_TIMEOUT, _MEMORY)
    found: list[Fidelity] = []
    try:
        for done, source in enumerate(sources):
            progress("parse", done, len(sources))
            found.append(await _judged(sandbox, source, str(source.relative_to(folder))))
        progress("parse", len(sources), len(sources))
    finally:
        await sandbox.close()
    return FidelityTable(tuple(found))


async def _judged(sandbox: Sandbox, source: Path, name: str) -> Fidelity:
    type_ = source.suffix.lower().lstrip(".")
    wanted = source.with_name(source.name + EXPECTED)
    expected = shape_of_markdown(await asyncio.to_thread(wanted.read_text, encoding="utf-8"))
    try:
        parsed = await sandbox.parse(await asyncio.to_thread(source.read_bytes), source.name, None)
    except (Quarantined, UnsupportedType) as error:
        return Fidelity(name, type_, dict.fromkeys(MEASURES, 0.0), str(error))
    except ParserUnavailable as error:
        raise EvalError(str(error)) from None
    return Fidelity(name, type_, compare(shape_of_parsed(parsed), expected))


def compare(found: Shape, expected: Shape) -> dict[str, float | None]:
    """Each measure; None where neither side has any of it."""
    cells, grid = _tables(found.tables, expected.tables)
    texts = [Counter(text for _, text in shape.headings) for shape in (found, expected)]
    return {
        "headings": f1(Counter(found.headings), Counter(expected.headings)),
        "heading_texts": f1(*texts),
        "cells": cells,
        "grid": grid,
        "words": f1(found.words, expected.words),
    }


def f1(found: Counter[Thing], expected: Counter[Thing]) -> float | None:
    """None where there is nothing on either side."""
    total = found.total() + expected.total()
    return 2 * (found & expected).total() / total if total else None


def _tables(found: Sequence[Grid], expected: Sequence[Grid]) -> tuple[float | None, float | None]:
    """F1 of the cells and of the neighbours, over all tables."""
    pairs: list[tuple[Grid, Grid]] = []
    left = list(found)
    for grid in expected:
        match = max(left, key=lambda other: (_contents(other) & _contents(grid)).total(), default=None)
        if match is not None:
            left.remove(match)
        pairs.append((match or [], grid))
    pairs.extend((grid, []) for grid in left)
    return _f1_of_all(pairs, _contents), _f1_of_all(pairs, neighbours)


def _f1_of_all(pairs: Sequence[tuple[Grid, Grid]], parts: Callable[[Grid], Counter[Thing]]) -> float | None:
    """F1 over all tables, each compared with its own."""
    counted = [(parts(found), parts(expected)) for found, expected in pairs]
    common = sum((found & expected).total() for found, expected in counted)
    total = sum(found.total() + expected.total() for found, expected in counted)
    return 2 * common / total if total else None


def _contents(grid: Grid) -> Counter[str]:
    return Counter(cell for row in grid for cell in row if cell)


def neighbours(grid: Grid) -> Counter[Relation]:
    """Each cell with the next one that is not empty to its right, and below it."""
    width = max(map(len, grid), default=0)
    columns = [[row[at] for row in grid if at < len(row)] for at in range(width)]
    found: Counter[Relation] = Counter()
    for direction, lines in (("right", grid), ("below", columns)):
        for line in lines:
            filled = [cell for cell in line if cell]
            found.update((one, other, direction) for one, other in pairwise(filled))
    return found


def shape_of_parsed(parsed: Parsed) -> Shape:
    """Our reading. Tables are Markdown in every format, and so are other blocks of a Markdown file."""
    headings: list[tuple[int, str]] = []
    tables: list[Grid] = []
    words: Counter[str] = Counter()
    for block in parsed.blocks:
        text = parsed.text[block.span.start : block.span.end]
        if block.kind == "table":
            tables.extend(shape_of_markdown(text).tables)
        if block.kind == "heading":
            headings.append((block.level, _key(_plain(text))))
        words.update(_words(_unmarked(text)))
    return Shape(tuple(headings), tuple(tables), words)


def shape_of_markdown(text: str) -> Shape:
    tokens = _parser().parse(text)
    headings = [
        (int(token.tag[1:]), _key(_inline(tokens[at + 1])))
        for at, token in enumerate(tokens)
        if token.type == "heading_open"
    ]
    return Shape(tuple(headings), tuple(_grids(tokens)), _words(_unmarked(text)))


def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"])


def _grids(tokens: Sequence[Token]) -> Iterator[Grid]:
    grid: Grid = []
    for at, token in enumerate(tokens):
        if token.type == "tr_open":
            grid.append([])
        elif token.type in ("th_open", "td_open"):
            grid[-1].append(_key(_inline(tokens[at + 1])))
        elif token.type == "table_close":
            yield grid
            grid = []


def _inline(token: Token) -> str:
    """The visible text of a line: no marks, no addresses, no comments."""
    return " ".join("".join(_texts(token.children or [])).split())


def _key(text: str) -> str:
    """What is the same of a heading or a cell however it is set."""
    return "".join(_HASHES.sub("", text).translate(_TYPE).split())


def _texts(tokens: Sequence[Token]) -> Iterator[str]:
    for token in tokens:
        if token.type in ("text", "code_inline"):
            yield token.content
        elif token.type in ("softbreak", "hardbreak"):
            yield " "
        elif token.type == "image":
            yield from _texts(token.children or [])


def _plain(text: str) -> str:
    tokens = MarkdownIt("commonmark").enable("strikethrough").parseInline(text)
    return _inline(tokens[0])


def _unmarked(text: str) -> str:
    """All visible text of a Markdown document."""
    parts: list[str] = []
    for token in _parser().parse(text):
        if token.type == "inline":
            parts.append(_inline(token))
        elif token.type in ("fence", "code_block"):
            parts.append(token.content)
        elif token.type == "html_block":
            parts.append(re.sub(r"<!--.*?-->|<[^>]*>", " ", token.content, flags=re.DOTALL))
    return "\n".join(parts)


def _words(text: str) -> Counter[str]:
    return Counter(_WORD.findall(text.casefold()))
