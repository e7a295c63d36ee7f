"""Cuts a document into passages along its structure, each an exact slice of its text.

The document is tokenized once; everything after that is arithmetic on token offsets. Blocks under one path
of headings are packed together, long ones are cut at rows, sentence ends, words and at last anywhere
between two tokens. Every token of the text lands in at least one passage.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ingestion.tokens import Tokens
from ingestion.types import Block, BlockKind, Parsed, Piece
from retrieval.types import IndexSpec, Span

TokenSpans = Callable[[str], Sequence[tuple[int, int]]]

HEADING_SEPARATOR = " > "
SPECIAL_TOKENS = 2
_CHARACTERS_PER_TOKEN = 32
_TITLE_CHARACTERS = 100
_MIN_BODY = 16
_FIELD = re.compile(r"\{(title|heading)\}")
_SENTENCE_END = re.compile(r"(?:[.!?…][\"'”’)\]]*\s+(?=[^\sa-z])|[。！？]|\n)")
_LINE_END = re.compile(r"\n")
_WORD_END = re.compile(r"\s+")
_CUTS: dict[BlockKind, tuple[re.Pattern[str], ...]] = {
    "table": (_LINE_END, _SENTENCE_END, _WORD_END),
    "code": (_LINE_END, _WORD_END),
    "list": (_LINE_END, _SENTENCE_END, _WORD_END),
}
_PROSE = (_SENTENCE_END, _WORD_END)


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

    Each has at most `spec.chunk_tokens` tokens, and with its header and two special tokens fits `window`.
    Neighbours under one path of headings share about `spec.chunk_overlap` tokens, whole words.
    """
    tokens = Tokens(parsed.text, token_spans(parsed.text))
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
    for block in parsed.blocks:
        start, end = block.span.start, block.span.end
        if not tokens.touch(start, end):
            continue
        if block.kind == "heading":
            if not bare:
                sections.append(_Section(tuple(name for _, name in path), tuple(blocks)))
                blocks = []
            path = [entry for entry in path if entry[0] < block.level]
            path.append((block.level, " ".join(parsed.text[start:end].split())))
        bare = block.kind == "heading"
        blocks.append(block)
    if bare and sections:  # Headings at the very end have nothing to follow them.
        sections[-1] = replace(sections[-1], blocks=(*sections[-1].blocks, *blocks))
    elif blocks:
        sections.append(_Section(tuple(name for _, name in path), tuple(blocks)))
    return sections


@dataclass(frozen=True, slots=True)
class _Atom:
    """Characters that are not cut further, and what they weigh in tokens."""

    start: int
    end: int
    weight: int


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
        spans = self._pack(section, limit)
        while limit > 1 and (excess := self._excess(spans, heading, used, room)) > 0:
            limit = max(1, limit - excess)
            spans = self._pack(section, limit)
        ends = [block.span.end for block in section.blocks]
        pages = (section.blocks[bisect_right(ends, span.start)].page for span in spans)
        return [
            Piece(text=self.text[span.start : span.end], heading=heading, page=page, span=span)
            for span, page in zip(spans, pages, strict=True)
        ]

    def _heading(self, path: tuple[str, ...]) -> tuple[str, int]:
        """The path of headings, without its outer ones as far as the window demands, and the tokens of the
        header (or a bound that is good enough). A header should leave half the window to the text."""
        ample = self.window - SPECIAL_TOKENS - self.spec.chunk_tokens - _slack(self.window)
        tries = [HEADING_SEPARATOR.join(path[outer:]) for outer in range(len(path))]
        for heading in (*tries, *(_shortened(name) for name in path[-1:])):
            head = header(self.spec, self.title, heading)
            bound = len(head.encode())  # No tokenizer makes more tokens than bytes.
            used = bound if bound <= ample else len(self.token_spans(head))
            if used <= self.window // 2:
                return heading, used
        return "", len(self.token_spans(header(self.spec, self.title, "")))

    def _excess(self, spans: list[Span], heading: str, used: int, room: int) -> int:
        """How many tokens too long the longest passage is with its header. The tokens of two strings do not
        always add up to those of both as one, so what comes near the limit is counted as it will be read."""
        head = header(self.spec, self.title, heading)
        near = room - used - _slack(room)
        close = [s for s in spans if self.tokens.count(s.start, s.end) > near]
        return max(
            (len(self.token_spans(head + self.text[s.start : s.end])) - room for s in close), default=0
        )

    def _pack(self, section: _Section, limit: int) -> list[Span]:
        """Fill passages of nearly equal weight, none above `limit`."""
        overlap = min(self.spec.chunk_overlap, limit // 2)
        atoms = [atom for block in section.blocks for atom in self._atoms(block, limit - overlap)]
        left = sum(atom.weight for atom in atoms)
        spans: list[Span] = []
        start, end, filled, room = atoms[0].start, atoms[0].start, 0, limit
        goal = _even_share(left, room)
        for atom in atoms:
            more = filled + atom.weight
            if filled and (more > room or goal - filled < more - goal):
                spans.append(self._stripped(start, end))
                left, filled, room = left - filled, 0, limit - overlap
                goal = _even_share(left, room)
                start = self.tokens.back(atom.start, overlap, atoms[0].start)
            filled += atom.weight
            end = atom.end
        spans.append(self._stripped(start, end))
        return spans

    def _stripped(self, start: int, end: int) -> Span:
        text = self.text[start:end]
        return Span(start + len(text) - len(text.lstrip()), start + len(text.rstrip()))

    def _atoms(self, block: Block, limit: int) -> Iterator[_Atom]:
        return self._cut(block.span.start, block.span.end, limit, _CUTS.get(block.kind, _PROSE))

    def _cut(self, start: int, end: int, limit: int, ways: tuple[re.Pattern[str], ...]) -> Iterator[_Atom]:
        """The text whole if it fits, else cut in the coarsest way that there is."""
        weight = self._weight(start, end)
        if weight <= limit:
            if self.tokens.touch(start, end):
                yield _Atom(start, end, weight)
            return
        if not ways:
            yield from self._cut_anywhere(start, end, limit)
            return
        at = start
        for found in ways[0].finditer(self.text, start, end):
            yield from self._cut(at, found.end(), limit, ways[1:])
            at = found.end()
        yield from self._cut(at, end, limit, ways[1:])

    def _cut_anywhere(self, start: int, end: int, limit: int) -> Iterator[_Atom]:
        """Between any two tokens; a token that is longer than a whole passage (a word that the embedder does
        not know) at any character."""
        longest = limit * _CHARACTERS_PER_TOKEN
        places = [start, *self.tokens.boundaries(start, end), end]
        for first, last in pairwise(places):
            for at in range(first, last, longest):
                until = min(at + longest, last)
                yield _Atom(at, until, self._weight(at, until))

    def _weight(self, start: int, end: int) -> int:
        """Tokens, and at least some for any length, so that no passage outgrows what a store can hold."""
        return max(self.tokens.count(start, end), (end - start) // _CHARACTERS_PER_TOKEN)


def _even_share(total: int, room: int) -> int:
    """What each of the fewest passages holds that hold the total."""
    passages = max(1, -(-total // room))
    return -(-total // passages)


def _slack(tokens: int) -> int:
    """By how much sums of tokens may be off, generously."""
    return 8 + tokens // 32
