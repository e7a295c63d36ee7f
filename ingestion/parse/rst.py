"""reStructuredText by docutils: headings, lists, tables, code and notes as a reader of the page sees them.

Nothing outside the text is read: inclusion of files and raw output are off. Roles and directives that only
Sphinx knows give their text; those that stand for what is elsewhere (tables of contents, generated pages)
give nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from docutils import nodes
from docutils.core import publish_doctree
from docutils.parsers.rst import Directive, Parser, directives, states
from docutils.parsers.rst.languages import en

from ingestion.errors import Quarantined
from ingestion.parse.builder import Builder, clean, one_line
from ingestion.parse.formats import charset
from ingestion.parse.text import decode
from ingestion.parse.within import Within
from ingestion.types import Parsed

_SETTINGS = {
    "_disable_config": True,
    "doctitle_xform": False,
    "docinfo_xform": False,
    "file_insertion_enabled": False,
    "halt_level": 5,
    "input_encoding": "unicode",
    "line_length_limit": 10_000_000,
    "raw_enabled": False,
    "report_level": 3,
    "syntax_highlight": "none",
    "warning_stream": False,
}
_DIRECTIVE = re.compile(r"^[ \t]*\.\.[ \t]+(?:\|[^|\n]+\|[ \t]+)?([\w:.+-]+)[ \t]*::", re.MULTILINE)
_TARGET = re.compile(r"\s*<[^<>]*>\Z")
_ELSEWHERE = frozenset(
    {
        *("toctree", "index", "only", "highlight", "default-role", "currentmodule", "module", "autosummary"),
        *("include", "literalinclude", "raw", "contents", "meta", "tabularcolumns"),
    }
)
_SAID = {
    "versionadded": "New in version",
    "versionchanged": "Changed in version",
    "deprecated": "Deprecated since version",
    "seealso": "See also:",
}
_DEEPER = (nodes.block_quote, nodes.compound, nodes.container, nodes.figure, nodes.legend, nodes.footer)
_NOTES = (
    *(nodes.admonition, nodes.attention, nodes.caution, nodes.danger, nodes.error, nodes.hint),
    *(nodes.important, nodes.note, nodes.tip, nodes.warning),
)
_LISTS = (
    nodes.bullet_list,
    nodes.enumerated_list,
    nodes.definition_list,
    nodes.field_list,
    nodes.option_list,
)


def read(content: bytes, within: Within) -> Parsed:
    text = clean(decode(content, charset(within.media_type)))
    _teach(text)
    try:
        document = publish_doctree(text, parser=Parser(inliner=_Inliner()), settings_overrides=_SETTINGS)
    except RecursionError:
        raise Quarantined(
            "damaged", "The text is nested too deeply to be read as reStructuredText."
        ) from None
    builder = Builder()
    _write(document, builder, 0)
    return builder.build(builder.first_heading())


def _plain_role(
    inliner: states.Inliner, rawsource: str, text: str, role: str, lineno: int
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """Any role as its text, without what it refers to."""
    plain = _TARGET.sub("", text).removeprefix("~").removeprefix("!").replace("\x00", "")
    return [nodes.inline(rawsource, plain or text)], []


# docutils makes its patterns of what is in the class itself, and not of what that has from another.
_PATTERNS = {name: value for name, value in vars(states.Inliner).items() if isinstance(value, str)}
_Inliner = type("_Inliner", (states.Inliner,), {**_PATTERNS, "interpreted": _plain_role})


class _AnyOptions(dict[str, Callable[[str], Any]]):
    """Every option is allowed; docutils asks an empty table for none."""

    def __missing__(self, name: str) -> Callable[[str], Any]:
        return directives.unchanged

    def __bool__(self) -> bool:
        return True


class _Unknown(Directive):
    """A directive that docutils does not know: what it says about itself, then what is in it."""

    optional_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec = _AnyOptions()

    def run(self) -> list[nodes.Node]:
        if self.name.rpartition(":")[2].lower() in _ELSEWHERE:
            return []
        inside = nodes.container()
        said = " ".join((_SAID.get(self.name.lower(), ""), *self.arguments)).strip()
        if said:
            text, _ = self.state.inline_text(said, self.lineno)
            inside += nodes.paragraph("", "", *text)
        self.state.nested_parse(self.content, self.content_offset, inside)
        return [inside]


def _teach(text: str) -> None:
    """Make the directives of the text known. docutils has one table of them for a process."""
    for name in set(_DIRECTIVE.findall(text)):
        if name.lower() not in en.directives:
            directives.register_directive(name.lower(), _Unknown)


def _write(parent: nodes.Element, builder: Builder, depth: int) -> None:
    """Add the blocks in `parent`; `depth` is the number of sections around it."""
    for node in parent.children:
        if isinstance(node, nodes.section):
            if "system-messages" not in node["classes"]:
                _write(node, builder, depth + 1)
        elif isinstance(node, nodes.title):
            _title(node, builder, depth)
        elif isinstance(node, _NOTES):
            _note(node, builder, depth)
        elif isinstance(node, (*_DEEPER, nodes.topic, nodes.sidebar)):
            _write(node, builder, depth)
        elif isinstance(node, nodes.Element):
            _block(node, builder)


def _title(node: nodes.title, builder: Builder, depth: int) -> None:
    if isinstance(node.parent, nodes.section):
        builder.add("heading", one_line(node.astext()), level=min(depth, 6))
    else:
        builder.add("paragraph", one_line(node.astext()))


def _note(node: nodes.Element, builder: Builder, depth: int) -> None:
    """A note or warning: its kind before its text, as it is printed."""
    if not isinstance(node, nodes.admonition):
        builder.add("paragraph", f"{node.tagname.capitalize()}:")
    _write(node, builder, depth)


def _block(node: nodes.Element, builder: Builder) -> None:
    if isinstance(node, (nodes.literal_block, nodes.doctest_block, nodes.math_block)):
        builder.add("code", node.astext())
    elif isinstance(node, _LISTS):
        builder.add("list", "\n".join(_items(node, 0)))
    elif isinstance(node, nodes.table):
        for title in node.findall(nodes.title):
            builder.add("paragraph", one_line(title.astext()))
        builder.table(_rows(node))
    elif isinstance(node, nodes.line_block):
        builder.add("paragraph", "\n".join(one_line(line.astext()) for line in node.findall(nodes.line)))
    elif isinstance(node, (nodes.footnote, nodes.citation)):
        builder.add("paragraph", _footnote(node))
    elif isinstance(node, nodes.system_message):
        for source in node.findall(nodes.literal_block):
            builder.add("paragraph", _unread(source.astext()))
    elif isinstance(node, nodes.image):
        builder.add("paragraph", node.get("alt") or "")
    elif isinstance(node, (nodes.paragraph, nodes.caption, nodes.rubric, nodes.attribution)):
        builder.add("paragraph", one_line(node.astext()))


def _unread(source: str) -> str:
    """What docutils could make nothing of, as it is; what stands for something elsewhere is nothing."""
    directive = _DIRECTIVE.match(source)
    return "" if directive and directive[1].lower() in _ELSEWHERE else source


def _footnote(node: nodes.Element) -> str:
    label, *rest = node.children
    return f"[{label.astext()}] {one_line(' '.join(part.astext() for part in rest))}"


def _items(node: nodes.Element, depth: int) -> Iterator[str]:
    """A list as lines, each with its mark and indented by its depth."""
    start = int(node.get("start", 1)) if isinstance(node, nodes.enumerated_list) else 0
    for number, item in enumerate(node.children, start=start):
        mark = f"{number}." if start else "-"
        parts = list(item.children) if isinstance(item, nodes.Element) else []
        if isinstance(item, (nodes.definition_list_item, nodes.field, nodes.option_list_item)):
            yield f"{'  ' * depth}{mark} {_term(parts)}"
            parts = [part for part in parts[-1].children if isinstance(part, nodes.Element)]
            yield from _lines(parts, depth + 1, "")
        else:
            yield from _lines(parts, depth, mark + " ")


def _term(parts: Sequence[nodes.Node]) -> str:
    return one_line(" ".join(part.astext() for part in parts[:-1]))


def _lines(parts: Sequence[nodes.Node], depth: int, mark: str) -> Iterator[str]:
    """What is in an item: text beside its mark, lists below it."""
    indent = "  " * depth
    for part in parts:
        if isinstance(part, _LISTS):
            yield from _items(part, depth + 1)
        elif isinstance(part, nodes.literal_block):
            yield from (f"{indent}  {line}" for line in part.astext().split("\n"))
        elif not isinstance(part, (nodes.comment, nodes.target, nodes.system_message)):
            text = one_line(part.astext())
            if text:
                yield f"{indent}{mark}{text}"
                mark = "  " if mark else ""


def _rows(table: nodes.table) -> list[list[str]]:
    """The text of each cell; one over several columns or rows is in each of them."""
    made: list[list[str]] = []
    from_above: dict[int, tuple[int, str]] = {}
    for row in table.findall(nodes.row):
        line: list[str] = []
        entries = list(row.findall(nodes.entry))
        while entries or len(line) in from_above:
            if len(line) in from_above:
                left, text = from_above.pop(len(line))
                if left > 1:
                    from_above[len(line)] = left - 1, text
                line.append(text)
                continue
            entry = entries.pop(0)
            text, down = one_line(entry.astext()), int(entry.get("morerows", 0))
            for _ in range(1 + int(entry.get("morecols", 0))):
                if down:
                    from_above[len(line)] = down, text
                line.append(text)
        made.append(line)
    return made
