"""Cuts a document into passages along its structure, each an exact slice of its text.

The document is tokenized once; everything after that is arithmetic on token offsets. Blocks under one path
of headings are packed together; where a passage ends, whole blocks are preferred to whole rows, items and
lines of code, those to whole sentences, and those to anything else. Every token of the text lands in at least
one passage. Each part of a table begins with the names of its columns.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ingestion.chunk_atoms import Atom, Atoms, Cut
from ingestion.tokens import Tokens, TokenSpans
from ingestion.types import Block, Parsed, Piece
from retrieval.types import IndexSpec, Span

HEADING_SEPARATOR = " > "
SPECIAL_TOKENS = 2
_TITLE_CHARACTERS = 100
_MIN_BODY = 16
_LONG = 2**19
"""Characters from which a block, or what stands under one heading, is cut up part by part, so that memory
does not grow with it."""
LONG_DOCUMENT = 2_000
"""Tokens from which a document is long."""
_FIELD = re.compile(r"\{(title|heading)\}")
_COST = {Cut.BLOCK: 0.0, Cut.LINE: 0.01, Cut.SENTENCE: 0.02, Cut.CLAUSE: 0.1, Cut.WORDS: 0.5}
"""Of parting what such a cut parts, against the squared share by which a passage misses its size."""


def header(spec: IndexSpec, title: str, heading: str) -> str:
    """What is put before a passage when it is embedded and analyzed: the release's template filled in, its
    lines without content left out. A title is cut to 100 characters and not said twice."""
    title = " ".join(title.split())
    heading = " ".join(heading.split())
    if heading == title:
        heading = ""
    heading = heading.removeprefix(title + HEADING_SEPARATOR) if title else heading
    values = {"title": _shortened(title), "heading": heading}
    filled = _FIELD.sub(lambda field: values[field.group(1)], spec.header_template)
    return "".join(line for line in filled.splitlines(keepends=True) if line.strip())


def _shortened(title: str) -> str:
    if len(title) <= _TITLE_CHARACTERS:
        return title
    cut = title[:_TITLE_CHARACTERS]
    return cut.rsplit(" ", 1)[0] if " " in cut[_TITLE_CHARACTERS // 2 :] else cut


def chunk(parsed: Parsed, spec: IndexSpec, title: str, token_spans: TokenSpans, window: int) -> list[Piece]:
    """The document's passages, in order.

    Each has at most `spec.chunk_tokens` tokens, and with prefix, header and two special tokens fits `window`.
    Neighbours under one path of headings share about `spec.chunk_overlap` tokens, whole words, but no rows of
    tables. A long document's are as `spec` says for such.
    """
    tokens = Tokens(parsed.text, token_spans)
    if spec.long_tokens and tokens.count(0, len(parsed.text)) > LONG_DOCUMENT:
        spec = replace(spec, chunk_tokens=spec.long_tokens, chunk_overlap=spec.long_overlap)
    cutter = _Cutter(parsed.text, tokens, spec, title, token_spans, window)
    return [piece for section in _sections(parsed, tokens) for piece in cutter.pieces(section)]


@dataclass(frozen=True, slots=True)
class _Section:
    """The blocks from one heading to the next; headings without text of their own belong to what follows."""

    path: tuple[str, ...]
    blocks: tuple[Block, ...]


def _sections(parsed: Parsed, tokens: Tokens) -> list[_Section]:
    sections: list[_Section] = []
    path: list[tuple[int, str]] = []
    blocks: list[Block] = []
    bare = True
    for block in _blocks(parsed, tokens):
        heads = block.kind == "heading"
        if not bare and (heads or block.span.end - blocks[0].span.start > _LONG):
            sections.append(_Section(tuple(name for _, name in path), tuple(blocks)))
            blocks = []
        if heads:
            name = parsed.text[block.span.start : block.span.end]
            path = [entry for entry in path if entry[0] < block.level]
            path.append((block.level, " ".join(name.split())))
        bare = heads
        blocks.append(block)
    if bare and sections:  # Headings at the very end have nothing to follow them.
        sections[-1] = replace(sections[-1], blocks=(*sections[-1].blocks, *blocks))
    elif blocks:
        sections.append(_Section(tuple(name for _, name in path), tuple(blocks)))
    return sections


def _blocks(parsed: Parsed, tokens: Tokens) -> Iterator[Block]:
    """Those that hold text; very long ones in parts that end with a line, if there are lines."""
    for block in parsed.blocks:
        at, end = block.span.start, block.span.end
        while end - at > _LONG:
            line = parsed.text.rfind("\n", at + _LONG // 2, at + _LONG) + 1
            until = line or at + _LONG
            yield replace(block, span=Span(at, until))
            at = until
        if tokens.touch(at, end):
            yield replace(block, span=Span(at, end)) if at > block.span.start else block


@dataclass(frozen=True, slots=True)
class _Slice:
    """A part of the text, and the names of columns that are said again before it."""

    span: Span
    names: Span | None


@dataclass(frozen=True, slots=True)
class _Cutter:
    """Cuts the sections of one document."""

    text: str
    tokens: Tokens
    spec: IndexSpec
    title: str
    token_spans: TokenSpans
    window: int

    def pieces(self, section: _Section) -> list[Piece]:
        heading, used = self._heading(section.path)
        room = self.window - SPECIAL_TOKENS
        if room - used < _MIN_BODY:
            raise ValueError(f"An embedder window of {self.window} tokens is too small for header and text.")
        limit = min(self.spec.chunk_tokens, room - used)
        slices = self._pack(section, limit)
        while limit > 1 and (excess := self._excess(slices, heading, used, room)) > 0:
            limit = max(1, limit - excess)
            slices = self._pack(section, limit)
        ends = [block.span.end for block in section.blocks]
        holding = (section.blocks[bisect_right(ends, each.span.start)] for each in slices)
        return [
            Piece(text=self._text(each), heading=heading, page=_page(block, each.span.start), span=each.span)
            for each, block in zip(slices, holding, strict=True)
        ]

    def _heading(self, path: tuple[str, ...]) -> tuple[str, int]:
        """The path of headings, without its outer ones as far as the window demands, and the tokens of the
        header (or a bound that is good enough). A header should leave half the window to the text."""
        ample = self.window - SPECIAL_TOKENS - self.spec.chunk_tokens - _slack(self.window)
        tries = [HEADING_SEPARATOR.join(path[outer:]) for outer in range(len(path))]
        for heading in (*tries, *(_shortened(name) for name in path[-1:])):
            head = self._head(heading)
            bound = len(head.encode())  # No tokenizer makes more tokens than bytes.
            used = bound if bound <= ample else len(self.token_spans(head))
            if used <= self.window // 2:
                return heading, used
        return "", len(self.token_spans(self._head("")))

    def _head(self, heading: str) -> str:
        """All that the model reads before a passage."""
        return self.spec.document_prefix + header(self.spec, self.title, heading)

    def _excess(self, slices: list[_Slice], heading: str, used: int, room: int) -> int:
        """How many tokens too long the longest passage is with its header. The tokens of two strings do not
        always add up to those of both as one, so what comes near the limit is counted as it will be read."""
        head = self._head(heading)
        near = room - used - _slack(room)
        close = [each for each in slices if self._count(each.span) + self._count(each.names) > near]
        return max((len(self.token_spans(head + self._text(each))) - room for each in close), default=0)

    def _count(self, span: Span | None) -> int:
        return self.tokens.count(span.start, span.end) if span else 0

    def _text(self, part: _Slice) -> str:
        names = self.text[part.names.start : part.names.end] if part.names else ""
        return names + self.text[part.span.start : part.span.end]

    def _pack(self, section: _Section, limit: int) -> list[_Slice]:
        """Fill passages of nearly equal weight, none above `limit`, that end where the text does."""
        overlap = min(self.spec.chunk_overlap, limit // 2)
        atoms = Atoms(self.text, self.tokens).of(section.blocks, limit, overlap)
        left = sum(atom.weight for atom in atoms)
        slices: list[_Slice] = []
        at = 0
        while at < len(atoms):
            first = atoms[at]
            start = self.tokens.back(first.start, overlap, first.floor) if slices else first.start
            before = self._count(first.header) + self.tokens.count(start, first.start)
            until = _end(atoms, at, limit - before, left)
            slices.append(_Slice(self._stripped(start, atoms[until - 1].end), first.header))
            left -= sum(atom.weight for atom in atoms[at:until])
            at = until
        return slices

    def _stripped(self, start: int, end: int) -> Span:
        text = self.text[start:end]
        return Span(start + len(text) - len(text.lstrip()), start + len(text.rstrip()))


def _page(block: Block, at: int) -> int | None:
    """The page of a place in a block."""
    return None if block.page is None else block.page + bisect_right(block.turns, at)


def _end(atoms: Sequence[Atom], at: int, room: int, left: int) -> int:
    """Where the passage ends that begins with atom `at`: near an even share of what is `left`, and rather
    where little is parted."""
    goal = _even_share(left, room)
    best, cost, filled = at + 1, float("inf"), 0
    for until in range(at + 1, len(atoms) + 1):
        filled += atoms[until - 1].weight
        if filled > room and until > at + 1:
            break
        parted = _COST[atoms[until].cut] if until < len(atoms) else 0.0
        this = ((goal - filled) / goal) ** 2 + parted
        if this <= cost:
            best, cost = until, this
    return best


def _even_share(total: int, room: int) -> int:
    """What each of the fewest passages holds that hold the total."""
    passages = max(1, -(-total // room))
    return max(1, -(-total // passages))


def _slack(tokens: int) -> int:
    """By how much sums of tokens may be off, generously."""
    return 8 + tokens // 32
