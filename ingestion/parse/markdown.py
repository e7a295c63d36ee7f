"""Markdown (CommonMark with tables): each block is its own source, so a cited passage reads as written.

Blocks of HTML are read as HTML. Front matter, comments and link definitions carry no prose and are left out;
a title is taken from the front matter or the first heading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import unescape
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

from ingestion.parse.builder import Builder, clean
from ingestion.parse.formats import charset
from ingestion.parse.html import write_fragment
from ingestion.parse.text import decode
from ingestion.parse.within import Within
from ingestion.types import BlockKind, Parsed

_FRONT_MATTER = re.compile(
    r"\A(?:---[ \t]*\n(\s*[\w-]+[ \t]*:.*?|\s*)^(?:---|\.\.\.)"
    r"|\+\+\+[ \t]*\n(\s*[\w-]+[ \t]*=.*?|\s*)^\+\+\+)[ \t]*(?:\n|\Z)",
    re.DOTALL | re.MULTILINE,
)
_TITLE = re.compile(r"^title[ \t]*[:=][ \t]*(\S.*)$", re.MULTILINE | re.IGNORECASE)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_EMPHASIS = re.compile(r"\*+|`+|\s*\{#[^}]*\}\s*$")
_KINDS: dict[str, BlockKind] = {
    "heading_open": "heading",
    "bullet_list_open": "list",
    "ordered_list_open": "list",
    "table_open": "table",
    "fence": "code",
    "code_block": "code",
}


def read(content: bytes, within: Within) -> Parsed:
    text = clean(decode(content, charset(within.media_type)))
    front = _FRONT_MATTER.match(text)
    body = text[front.end() :] if front else text
    builder = Builder()
    lines = body.split("\n")
    parser = MarkdownIt("commonmark", {"maxNesting": 30}).enable("table").disable("inline")
    for kind, source, level in _blocks(parser.parse(body), lines):
        if kind == "html":
            write_fragment(source, builder)
        else:
            builder.add(kind, source, level=level, header_lines=2 if kind == "table" else 0)
    title = _front_title(front[1] or front[2] or "") if front else None
    return builder.build(title or builder.first_heading())


def _blocks(
    tokens: Sequence[Token], lines: list[str]
) -> Iterator[tuple[BlockKind | Literal["html"], str, int]]:
    """Kind, source and heading level of each outermost block."""
    for at, token in enumerate(tokens):
        if token.level or token.map is None:
            continue
        kind = _KINDS.get(token.type, "paragraph")
        if kind == "heading":
            yield kind, _plain(tokens[at + 1].content), int(token.tag[1:])
            continue
        source = "\n".join(lines[token.map[0] : token.map[1]])
        if token.type == "html_block":
            yield "html", _COMMENT.sub("", source), 0
        elif token.type != "hr":
            yield kind, source, 0


def _plain(heading: str) -> str:
    """Headings become paths and titles, where markup would only be in the way."""
    return unescape(_EMPHASIS.sub("", _LINK.sub(r"\1", heading)))


def _front_title(front: str) -> str | None:
    found = _TITLE.search(front)
    return found.group(1).strip().strip("\"'") if found else None
