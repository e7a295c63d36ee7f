"""HTML: the main content as text, without navigation, scripts and what a reader would not see; last, what the
page's footer says in sentences.

Headings, lists, tables and code keep their structure; the walk is a loop, so that deep nesting is harmless.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from selectolax.lexbor import LexborHTMLParser, LexborNode

from ingestion.parse.builder import Builder, clean, one_line, table_rows
from ingestion.parse.formats import charset
from ingestion.parse.html_footer import sentences
from ingestion.parse.html_main import DROPPED, clutter, hidden, words
from ingestion.parse.html_table import is_layout, rows
from ingestion.parse.text import decode
from ingestion.parse.within import Within
from ingestion.types import BlockKind, Parsed

_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([A-Za-z0-9_.:-]{2,40})", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"\A\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9_.:-]{2,40})")
_SECTIONS = frozenset({"main", "article", "section"})
_PAGE_FRAME = frozenset({"header", "footer"})
_FRAME_ROLES = frozenset({"navigation", "banner", "contentinfo", "complementary", "search"})
_BLOCKS = words(
    "address article blockquote body caption center details div fieldset figcaption "
    "figure footer form header hgroup hr html legend main p section summary table "
    "tbody td tfoot th thead tr"
)
_HEADINGS = {f"h{n}": n for n in range(1, 7)}
_LISTS = frozenset({"ul", "ol", "menu", "dl"})
_ITEMS = frozenset({"li", "dt", "dd"})
_PERMALINKS = frozenset({"¶", "#", "§", "🔗"})
_MIN_MAIN = 200
_SPACE = re.compile(r"\s+")
# Marks of our own that survive the collapse of white space; `clean` has removed any in the source.
_INDENT, _GLUE = "\x01", "\x02"
_MARKS = {1: "  ", 2: None}


def read(content: bytes, within: Within) -> Parsed:
    return page(content, charset(within.media_type))


def page(content: bytes, encoding: str | None) -> Parsed:
    """A page by itself; None for an encoding that it says, or that is to be found."""
    tree = LexborHTMLParser(clean(decode(content, encoding or _declared(content))))
    builder = Builder()
    body = tree.body
    if body is not None:
        _write(body, builder)
    return builder.build(_title(tree) or builder.first_heading())


def _declared(content: bytes) -> str | None:
    head = content[:4_096]
    found = _XML_ENCODING.search(head) or _META_CHARSET.search(head)
    return found.group(1).decode("ascii") if found else None


def _title(tree: LexborHTMLParser) -> str | None:
    """The page's only main heading; else its `<title>`."""
    headings = tree.css("h1")
    if len(headings) == 1 and (text := one_line(headings[0].text())):
        return text.rstrip("".join(_PERMALINKS)).rstrip() or None
    title = tree.css_first("title")
    return one_line(title.text()) if title is not None else None


def _write(body: LexborNode, builder: Builder) -> None:
    """The main content; all of the page when that finds nothing."""
    mains = body.css("main, [role=main]")
    root = mains[0] if len(mains) == 1 and len(mains[0].text().strip()) >= _MIN_MAIN else body
    if not _Walk(builder, framed=True, left_out=clutter(root)).run(root):
        _Walk(builder, framed=False).run(body)
        return
    for text in sentences(body):
        builder.add("paragraph", text)


def write_fragment(source: str, builder: Builder) -> None:
    """Add the blocks of a piece of HTML that stands in a document of another kind."""
    body = LexborHTMLParser(source).body
    if body is not None:
        _Walk(builder, framed=False).run(body)


@dataclass(slots=True)
class _Walk:
    """One pass over a tree. Text gathers in lines until a block begins or ends; a list is one block."""

    builder: Builder
    framed: bool
    left_out: frozenset[int] = frozenset()
    kind: BlockKind = "paragraph"
    level: int = 0
    written: bool = False
    text: list[str] = field(default_factory=list)
    lists: list[tuple[str, int]] = field(default_factory=list)
    sections: int = 0

    def run(self, root: LexborNode) -> bool:
        """Write everything under `root`; whether there was anything."""
        stack: list[tuple[LexborNode, bool]] = [(root, True)]
        while stack:
            node, entering = stack.pop()
            if not entering:
                self._leave(node.tag or "")
            elif self._enter(node, node.tag or ""):
                stack.append((node, False))
                stack.extend((child, True) for child in reversed(list(node.iter(include_text=True))))
        self._flush()
        return self.written

    def _enter(self, node: LexborNode, tag: str) -> bool:
        """Take the node in; whether to go on into its children."""
        if tag == "-text":
            self.text.append(_SPACE.sub(" ", node.text_content or ""))
            return False
        if tag in DROPPED or hidden(node) or _permalink(node, tag) or self._page_frame(node, tag):
            return False
        if node.mem_id in self.left_out:
            return False
        if tag == "pre" or (tag == "table" and not is_layout(node)):
            self._whole(node, tag)
            return False
        if tag == "img":
            self.text.append(f" {node.attributes.get('alt') or ''} ")
        else:
            self._open(tag)
        return True

    def _page_frame(self, node: LexborNode, tag: str) -> bool:
        """A header or footer of the page; those of an article belong to it."""
        if not self.framed or self.sections:
            return False
        return tag in _PAGE_FRAME or (node.attributes.get("role") or "") in _FRAME_ROLES

    def _open(self, tag: str) -> None:
        if tag in _SECTIONS:
            self.sections += 1
        if tag == "br":
            self.text.append("\n")
        elif tag in _LISTS:
            self._break()
            self.lists.append((tag, 0))
            self.kind = "list"
        elif tag in _ITEMS and self.lists:
            self._item(deeper=tag == "dd")
        elif tag in _HEADINGS and not self.lists:
            self._flush()
            self.kind, self.level = "heading", _HEADINGS[tag]
        elif tag in _BLOCKS:
            self._break()

    def _leave(self, tag: str) -> None:
        if tag in _SECTIONS:
            self.sections -= 1
        if tag in _LISTS:
            self.lists.pop()
        if tag in _HEADINGS and not self.lists:
            self._flush()
        elif tag in _BLOCKS or tag in _LISTS:
            self._break()

    def _item(self, deeper: bool) -> None:
        """Start a list item: its mark, indented by depth; what a term means, `deeper` than the term."""
        tag, count = self.lists[-1]
        self.lists[-1] = (tag, count + 1)
        mark = f"{count + 1}." if tag == "ol" else "-"
        self.text.append("\n" + _INDENT * (len(self.lists) - 1 + deeper) + mark + " " + _GLUE)

    def _break(self) -> None:
        """A block's edge: a new block, or within a list a new line, but not between a mark and its text."""
        if not self.lists:
            self._flush()
        elif "".join(self.text[-2:]).strip(" ")[-1:] != _GLUE:
            self.text.append("\n")

    def _whole(self, node: LexborNode, tag: str) -> None:
        """A table or code: a block as it is; within a list, lines of the item."""
        if self.lists:
            self.text.append("\n" + (node.text() if tag == "pre" else table_rows(rows(node))) + "\n")
            return
        self._flush()
        if tag == "pre":
            self._add("code", node.text())
            return
        if (caption := node.css_first("caption")) is not None:
            self._add("paragraph", one_line(caption.text()))
        self.written = True
        self.builder.table(rows(node))

    def _flush(self) -> None:
        text = "".join(self.text)
        self.text.clear()
        self._add(self.kind, _layout(text, self.kind))
        self.kind, self.level = ("list" if self.lists else "paragraph"), 0

    def _add(self, kind: BlockKind, text: str) -> None:
        if text.strip():
            self.written = True
            self.builder.add(kind, text, level=self.level if kind == "heading" else 0)


def _layout(text: str, kind: BlockKind) -> str:
    """Collapse white space as a browser does; source line breaks mean nothing, ours do."""
    lines = (" ".join(line.split()) for line in text.split("\n"))
    kept = [line.translate(_MARKS) for line in lines if line and line[-1] != _GLUE]
    return (" " if kind == "heading" else "\n").join(kept)


def _permalink(node: LexborNode, tag: str) -> bool:
    return tag == "a" and node.text().strip() in _PERMALINKS
