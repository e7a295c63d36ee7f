"""Which parts of an HTML page are not its content: menus, notices, advertisements, lists of other pages.

Two signs count, and on pages of little text neither, as there everything may be what the page is about: a
name that says so (of a part that holds little of the text or is mostly links), and being next to nothing but
links outside the article. An index page, which is mostly links, keeps them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from selectolax.lexbor import LexborNode

from ingestion.parse.builder import one_line


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DROPPED = words(
    "script style noscript template iframe object embed svg canvas audio video map select option datalist "
    "button input textarea dialog nav aside head title"
)
_NONE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_NAME = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_NOTICES = words(
    "advert advertisement advertising breadcrumb breadcrumbs consent cookie cookies disqus editsection gdpr "
    "newsletter noprint popup signup skiplink skiplinks sponsored"
)
"""Names of what may be left out although it is text, when it is little of the page."""
_FRAME = words("banner copyright footer masthead sharing share social toolbar")
"""Names of what may be left out when it is next to nothing of the page."""
_LINKS = words(
    "ad ads menu menubar nav navbar navigation navmenu pager pagination promo recommended related shariff "
    "sidebar sidenav skip sponsor subscribe teaser"
)
"""Names of what is left out only when it is mostly links, as the first two are too."""
_CONTENT = frozenset({"main", "article"})
_PARTS = words("div section ul ol table p form header footer span center")
_LITTLE_PAGE = 600
"""Characters of text on a page that is kept whole."""
_LITTLE_SHARE = 0.15
_LEAST_SHARE = 0.05
_MOSTLY_LINKS = 0.5
_ONLY_LINKS = 0.85
_MANY_LINKS = 5
_SHORT_LINK = 40
_INDEX_PAGE = 0.6


@dataclass(slots=True)
class _Part:
    """What an element holds: letters, those of them in links, links, and whether it has the page's title."""

    text: int = 0
    linked: int = 0
    links: int = 0
    title: bool = False

    def add(self, other: _Part) -> None:
        self.text += other.text
        self.linked += other.linked
        self.links += other.links
        self.title = self.title or other.title


def hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    return bool(attributes) and ("hidden" in attributes or bool(_NONE.search(attributes.get("style") or "")))


def clutter(root: LexborNode) -> frozenset[int]:
    """The `mem_id` of every outermost element below `root` that is no content."""
    held, parts = _measured(root)
    if held.text < _LITTLE_PAGE:
        return frozenset()
    index_page = held.linked > _INDEX_PAGE * held.text
    return frozenset(
        node.mem_id
        for node, part, in_content in parts
        if not part.title
        and (_named(node, part, held) or (not in_content and not index_page and _only_links(part)))
    )


def _named(node: LexborNode, part: _Part, page: _Part) -> bool:
    attributes = node.attributes
    said = f"{attributes.get('class') or ''} {attributes.get('id') or ''}"
    names = {name.lower() for name in _NAME.findall(said)}
    if 2 * part.text > page.text:
        return False
    if names & _NOTICES and part.text <= _LITTLE_SHARE * page.text:
        return True
    if names & _FRAME and part.text <= _LEAST_SHARE * page.text:
        return True
    return part.linked > _MOSTLY_LINKS * part.text and bool(names & (_NOTICES | _FRAME | _LINKS))


def _only_links(part: _Part) -> bool:
    short = part.linked <= _SHORT_LINK * part.links
    return part.links >= _MANY_LINKS and short and part.linked >= _ONLY_LINKS * part.text


def _measured(root: LexborNode) -> tuple[_Part, list[tuple[LexborNode, _Part, bool]]]:
    """What the page holds, and each element that may be clutter with what it holds."""
    whole = _Part()
    found: list[tuple[LexborNode, _Part, bool]] = []
    open_parts: list[_Part] = [whole]
    stack: list[tuple[LexborNode, bool]] = [(root, True)]
    content = links = 0
    while stack:
        node, entering = stack.pop()
        tag = node.tag or ""
        if tag == "-text":
            length = len(one_line(node.text_content or ""))
            open_parts[-1].text += length
            open_parts[-1].linked += length if links else 0
        elif not entering:
            part = open_parts.pop()
            open_parts[-1].add(part)
            content -= tag in _CONTENT
            links -= tag == "a"
            if tag in _PARTS:
                found.append((node, part, content > 0))
        elif tag not in DROPPED and not hidden(node):
            content += tag in _CONTENT
            links += tag == "a"
            open_parts.append(_Part(links=int(tag == "a"), title=tag == "h1"))
            stack.append((node, False))
            stack.extend((child, True) for child in reversed(list(node.iter(include_text=True))))
    return whole, found
