"""A passage in pieces that can be quoted on their own: sentences, list items, table rows.

A list item is little without the line that introduces the list, and a cell without the head of its column:
they go with the piece as `context`, and into a row's text as `Head: cell`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

LONGEST = 600
"""Characters of a piece; a longer one is cut at a word."""
ASKING = ("?", "？")
SHORT = 55
"""Characters of a line that was not wrapped for being too long."""

_HEADING = re.compile(r"#{1,6}\s+(.*)")
_OPENING = re.compile(r"[^\W_][^|]{0,78}[^\s|.!?:;,]")
_ITEM = re.compile(r"\s*(?:[-*+•●▪–]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])\s+(\S.*)")
_ROW = re.compile(r"\s*\|(.*)\|\s*")
_RULE = re.compile(r"[\s|:+=-]+")
_CELL = re.compile(r"(?<!\\)\|")
_FENCE = re.compile(r"\s*(?:```|~~~)")
_MARKUP = re.compile(r"(\*\*|__|`)(?=\S)(.{1,300}?)(?<=\S)\1")
# The target may hold brackets in pairs, and the tags of Jekyll, Hugo and their like; a title may follow it.
_LINK = re.compile(
    r"""!?\[([^\[\]]{0,300})\]\(\s*+
    (?:<[^<>]{0,2000}>|(?:[^()\s{<]|\{(?![{%<])|\([^()\s]{0,300}\)|\{[{%<][^{}]{0,300}\}){0,2000}+)
    (?:\s++(?:"[^"]{0,300}"|'[^']{0,300}'))?\s*+\)""",
    re.VERBOSE,
)
# `*said so*` and `_said so_`, not `5 * 3` or `snake_case`.
_EMPHASIS = re.compile(r"(?<![\w*\\])\*(?=[^\s*])([^*]{1,300})(?<![\s\\])\*(?![\w*])")
_UNDERLINED = re.compile(r"(?<![\w_\\])_(?=[^\s_])([^_]{1,300})(?<![\s\\])_(?![\w_])")
_REFERENCE = re.compile(
    r"!?\[((?=[^\[\]]{0,300}[^\W\d_])[^\[\]]{1,300})\]\[[^\[\]]{0,100}\]|\[\^[^\[\]\s]{1,50}\]"
)
_TAG = re.compile(
    r"</?(?:a|abbr|b|big|br|center|code|div|em|font|hr|i|img|kbd|li|ol|p|small|span|strong|sub|sup|td|th|tr|u|ul)"
    r"(?:\s[^<>]{0,1000})?/?>|<!--.{0,1000}?-->",
    re.IGNORECASE,
)
# What Jekyll, Hugo and their like put in while they render. One word in quotes is mostly a name to be read.
_DIRECTIVE = re.compile(
    r"""\{%[-\s]*\w+\s+["']([^"'/{}]{1,100})["'][-\s]*%\}|\{%[^{}]{0,300}%\}|\{\{[^{}]{0,300}\}\}"""
)
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+\-.!|<>~\"'$&:;,?/])")
# Behind it there may be marks of footnotes, as in Wikipedia.
_END = re.compile(
    r"[.!?…][\"'”’)\]]*(?:\[(?:\d{1,3}|[^\W\d_]+ needed)\])*(?=\s+[\"'“‘(\[]*[^\W_a-z])|[。！？]"
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Z]|e\.g|i\.e|Mr|Mrs|Ms|Dr|Prof|St|vs|cf|al|ca|approx|[Nn]o|Nos|Fig|Sec|Art|Inc|Ltd|Co|Jr|Sr"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|z\.B|bzw|Nr|usw)|^\s*\d{1,3})\.\Z"
)
# "am 27. Januar", "im frühen 18. Jahrhundert": German ends ordinal numbers with a full stop, and nouns there
# begin like sentences.
_ORDINAL = re.compile(r"(?<!\S)(?:(\w+)\s+)?\d{1,2}\.\Z")
_BEFORE_ORDINAL = frozenset(
    [
        "ab",
        "am",
        "beim",
        "bis",
        "das",
        "dem",
        "den",
        "der",
        "des",
        "die",
        "im",
        "ins",
        "jede",
        "jedem",
        "jeden",
        "jeder",
        "jedes",
        "seit",
        "vom",
        "zum",
        "zur",
    ]
)
_AFTER_ORDINAL = re.compile(
    r"\s+(?:Jan|Feb|März|Apr|Mai\b|Jun|Jul|Aug|Sep|Okt|Nov|Dez|Jahrhundert|Jh\b|Jahrtausend|Lebensjahr|Monat)"
)


@dataclass(frozen=True, slots=True)
class Piece:
    """`text` is one line without markup, `heading` the last one in the passage, `intro` the sentence that
    introduces the list or table it is in, or asks what it answers. `opens` says that it is such a sentence
    itself, `item` that it is in a list."""

    text: str
    heading: str = ""
    intro: str = ""
    opens: bool = False
    item: bool = False

    @property
    def context(self) -> str:
        return f"{self.heading} {self.intro}".strip()

    @property
    def asks(self) -> bool:
        """Whether it is a question, which says nothing: its words are the context of what follows it."""
        return self.opens and self.text.endswith(ASKING)


def split(text: str, path: Sequence[str] = ()) -> list[Piece]:
    """The pieces of a passage in order; headings become the context of what follows them. `path` is the
    document's title and the headings above the passage: a line that is one of them is a heading, and so is a
    first line of its own that does not end like a sentence. The title is nobody's context in particular."""
    return list(_Reader(path).read(text))


def sentences(paragraph: str) -> list[str]:
    """The sentences of running text on one line."""
    found, start = [], 0
    for end in _END.finditer(paragraph):
        if not abbreviated(paragraph[max(start, end.start() - 12) : end.start() + 1]) and not _ordinal(
            paragraph, start, end.end()
        ):
            found.append(paragraph[start : end.end()].strip())
            start = end.end()
    found.append(paragraph[start:].strip())
    return [cut for sentence in found for cut in _cut(sentence)]


def abbreviated(text: str) -> bool:
    """Whether the full stop at the end of the text belongs to an abbreviation or a number in a list."""
    return bool(_ABBREVIATION.search(text[-12:]))


def _ordinal(paragraph: str, start: int, end: int) -> bool:
    """Whether the full stop that ends `paragraph[start:end]` makes an ordinal number."""
    number = _ORDINAL.search(paragraph[max(start, end - 24) : end])
    if number is None:
        return False
    return number.group(1) in _BEFORE_ORDINAL or bool(_AFTER_ORDINAL.match(paragraph, end))


class _Reader:
    """Goes through the lines once; `_kind` and `_lines` are the block being collected."""

    def __init__(self, path: Sequence[str]) -> None:
        self._title = path[0].casefold() if path else ""
        self._headings = frozenset(map(str.casefold, path))
        self._heading = ""
        self._intro = ""
        self._asked = ""
        self._kind = ""
        self._lines: list[str] = []

    def read(self, text: str) -> Iterator[Piece]:
        lines = text.strip().splitlines()
        if len(lines) > 2 and not lines[1].strip() and _OPENING.fullmatch(lines[0]):
            self._headings |= {lines[0].strip().casefold()}
        for line in lines:
            yield from self._line(line)
        yield from self._flush()

    def _line(self, line: str) -> Iterator[Piece]:
        kind, content = self._recognised(line)
        if kind == "fence":
            yield from self._flush()
            self._kind = "" if content == "close" else "code"
        elif kind in ("blank", "heading"):
            yield from self._flush()
            if kind == "heading":
                heading = content.rstrip("# \t")
                self._heading = "" if heading.casefold() == self._title else heading
                self._intro = self._asked = ""
        elif kind == "item" or kind != self._kind:
            if not (kind == "text" and self._kind == "item" and line[:1].isspace()):
                yield from self._flush()
                self._kind = kind
            self._lines.append(content)
        else:
            self._lines.append(content)

    def _recognised(self, line: str) -> tuple[str, str]:
        if _FENCE.match(line):
            return "fence", "close" if self._kind == "code" else "open"
        if self._kind == "code":
            return "code", line.strip()
        if not line.strip():
            return "blank", ""
        if line.strip().casefold() in self._headings:
            return "heading", line.strip()
        for kind, pattern in (("heading", _HEADING), ("row", _ROW), ("item", _ITEM)):
            if match := pattern.fullmatch(line):
                return kind, match.group(1)
        return "text", line.strip()

    def _flush(self) -> Iterator[Piece]:
        kind, lines = self._kind, self._lines
        self._kind, self._lines = "", []
        if kind == "row":
            yield from self._rows(lines)
        elif kind == "text":
            for text in _unwrapped(lines):
                yield from self._running(_plain(text), item=False)
        elif lines:
            shown = _unmarked if kind == "code" else _plain
            yield from self._running(_in_line(shown(" ".join(lines))), item=kind == "item")

    def _running(self, text: str, *, item: bool) -> Iterator[Piece]:
        if not item:
            self._intro, self._asked = self._asked, ""
        for sentence in sentences(text):
            asks = not item and sentence.endswith(ASKING)
            opens = asks or (not item and sentence.endswith(":"))
            yield Piece(sentence, self._heading, self._intro, opens=opens, item=item)
            if opens:
                self._intro = sentence
            if not item:
                # A question that ends its paragraph is answered by the one below.
                self._asked = sentence if asks else ""

    def _rows(self, lines: list[str]) -> Iterator[Piece]:
        rows = [_cells(line) for line in lines if not _RULE.fullmatch(line)]
        head = rows[0] if len(rows) > 1 else []
        for row in rows[1:] if head else rows:
            named = (_named(head[i] if i < len(head) else "", cell) for i, cell in enumerate(row) if cell)
            for text in _cut("; ".join(named)):
                yield Piece(text, self._heading, self._intro)


def _unwrapped(lines: list[str]) -> Iterator[str]:
    """Lines of running text joined again. A short line before one that begins like a sentence was not
    wrapped: it is a line of its own, as in tables and data sheets that lost their structure."""
    kept: list[str] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        kept.append(line)
        if len(line) < SHORT and following[:1].isupper() and not line.endswith((",", "-")):
            yield " ".join(kept)
            kept = []
    if kept:
        yield " ".join(kept)


def _cells(line: str) -> list[str]:
    return [_plain(cell.replace("\\|", "|")) for cell in _CELL.split(line)]


def _named(head: str, cell: str) -> str:
    return f"{head}: {cell}" if head else cell


def _unmarked(text: str) -> str:
    """Without bold type, backticks and link targets. Code gets no more. It gets that because what looks like
    code may be text: where a passage begins within code, the fence that ends it seems to open another."""
    return _MARKUP.sub(r"\2", _LINK.sub(r"\1", text))


def _plain(text: str) -> str:
    """On one line, without emphasis, link targets, tags and the backslashes of Markdown."""
    shown = _unmarked(text)
    if "[" in shown:
        shown = _REFERENCE.sub(r"\1", shown)
    if "{" in shown:
        shown = _DIRECTIVE.sub(r"\1", shown)
    if "<" in shown:
        shown = _TAG.sub(" ", shown)
    for mark, pattern in (("*", _EMPHASIS), ("_", _UNDERLINED), ("\\", _ESCAPE)):
        if mark in shown:
            shown = pattern.sub(r"\1", shown)
    return _in_line(shown)


def _in_line(text: str) -> str:
    return " ".join(text.split())


def _cut(sentence: str) -> Iterator[str]:
    while len(sentence) > LONGEST:
        at = sentence.rfind(" ", LONGEST // 2, LONGEST)
        at = at if at > 0 else LONGEST
        yield sentence[:at].strip()
        sentence = sentence[at:].strip()
    if sentence:
        yield sentence
