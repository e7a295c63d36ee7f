"""HTML: the main content as text, without navigation, scripts and what a reader would not see.

Headings, lists, tables and code keep their structure; the walk is a loop, so that deep nesting is harmless.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from selectolax.lexbor import LexborHTMLParser, LexborNode

from ingestion.parse.builder import Builder, clean, one_line, table_rows
from ingestion.parse.formats import charset
from ingestion.parse.text import decode
from ingestion.types import BlockKind, Parsed

_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([A-Za-z0-9_.:-]{2,40})", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"\A\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9_.:-]{2,40})")
_NONE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DROPPED = _words(
    "script style noscript template iframe object embed svg canvas audio video map select "
    "option datalist button input textarea dialog nav aside head title"
)
_SECTIONS = frozenset({"main", "article", "section"})
_PAGE_FRAME = frozenset({"header", "footer"})
_FRAME_ROLES = frozenset({"navigation", "banner", "contentinfo", "complementary", "search"})
_BLOCKS = _words(
    "address article blockquote body caption center dd details div dl dt fieldset figcaption "
    "figure footer form header hgroup hr html legend main menu ol p section summary table "
    "tbody td tfoot th thead tr"
)
_HEADINGS = {f"h{n}": n for n in range(1, 7)}
_LISTS = frozenset({"ul", "ol", "menu"})
_PERMALINKS = frozenset({"¶", "#", "§", "🔗"})
_LAYOUT = "h1, h2, h3, h4, h5, h6, table, pre, ul, ol"
_MIN_MAIN = 200
_SPACE = re.compile(r"\s+")
# Marks of our own that survive the collapse of white space; `clean` has removed any in the source.
_INDENT, _GLUE = "\x01", "\x02"
_MARKS = {1: "  ", 2: None}


def read(content: bytes, media_type: str | None) -> Parsed:
    tree = LexborHTMLParser(clean(decode(content, charset(media_type) or _declared(content))))
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
    if not _Walk(builder, framed=True).run(root):
        _Walk(builder, framed=False).run(body)


@dataclass(slots=True)
class _Walk:
    """One pass over a tree. Text gathers in lines until a block begins or ends; a list is one block."""

    builder: Builder
    framed: bool
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
        if tag in _DROPPED or _hidden(node) or _permalink(node, tag) or self._page_frame(node, tag):
            return False
        if tag == "pre" or (tag == "table" and not _is_layout(node)):
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
        elif tag == "li" and self.lists:
            self._item()
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

    def _item(self) -> None:
        """Start a list item: its mark, indented by depth."""
        tag, count = self.lists[-1]
        self.lists[-1] = (tag, count + 1)
        mark = f"{count + 1}." if tag == "ol" else "-"
        self.text.append("\n" + _INDENT * (len(self.lists) - 1) + mark + " " + _GLUE)

    def _break(self) -> None:
        """A block's edge: a new block, or within a list a new line, but not between a mark and its text."""
        if not self.lists:
            self._flush()
        elif "".join(self.text[-2:]).strip(" ")[-1:] != _GLUE:
            self.text.append("\n")

    def _whole(self, node: LexborNode, tag: str) -> None:
        text = node.text() if tag == "pre" else table_rows(_rows(node))
        if self.lists:
            self.text.append("\n" + text + "\n")
            return
        self._flush()
        if tag == "table" and (caption := node.css_first("caption")) is not None:
            self._add("paragraph", one_line(caption.text()))
        self._add("code" if tag == "pre" else "table", text)

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
    kept = [line.translate(_MARKS) for line in lines if line]
    return (" " if kind == "heading" else "\n").join(kept)


def _rows(table: LexborNode) -> list[list[str]]:
    rows = []
    for row in table.css("tr"):
        cells = [c for c in row.iter() if c.tag in ("td", "th")]
        rows.append([one_line(c.text(separator=" ")) for c in cells])
    return rows


def _is_layout(table: LexborNode) -> bool:
    """Tables that lay out a page hold headings or tables of their own: what is in them is read as text."""
    inside = table.child
    while inside is not None:
        if inside.css_first(_LAYOUT) is not None:
            return True
        inside = inside.next
    return False


def _permalink(node: LexborNode, tag: str) -> bool:
    return tag == "a" and node.text().strip() in _PERMALINKS


def _hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    return bool(attributes) and ("hidden" in attributes or bool(_NONE.search(attributes.get("style") or "")))
