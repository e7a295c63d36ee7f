"""What an HTML page says in its footer: whom it belongs to, its date and licence often stand nowhere else."""

from __future__ import annotations

from selectolax.lexbor import LexborNode

from ingestion.parse.builder import one_line
from ingestion.parse.html_main import hidden
from ingestion.parse.html_table import cell_text

_FOOTERS = "footer, [role=contentinfo]"
_CONTENT = frozenset({"main", "article", "section"})
_PARTS = "p, li, address, div, dd, td, small"
_SENTENCE = 60
"""Characters: what is shorter is a label."""


def sentences(body: LexborNode) -> list[str]:
    """The running text of the page's footers, not their lists of links and labels."""
    found: dict[str, None] = {}
    for footer in body.css(_FOOTERS):
        if not _within_content(footer) and not hidden(footer):
            for part in footer.css(_PARTS):
                text = "" if _has_parts(part) else cell_text(part)
                linked = sum(len(one_line(link.text())) for link in part.css("a"))
                if len(text) >= _SENTENCE and 2 * linked <= len(text):
                    found[text] = None
    return list(found)


def _has_parts(node: LexborNode) -> bool:
    return any(inner.mem_id != node.mem_id for inner in node.css(_PARTS))


def _within_content(node: LexborNode) -> bool:
    """Whether it is the footer of an article, which is read with it."""
    above = node.parent
    while above is not None:
        if above.tag in _CONTENT:
            return True
        above = above.parent
    return False
