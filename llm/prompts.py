"""Prompts are Markdown files with role sections and placeholders; this turns one into messages.

A line that is exactly `# system`, `# user` or `# assistant` opens a message. `{question}` and the like are
placeholders, `{{` and `}}` are braces. Values are put in after the template was cut into messages and in
one pass, so that nothing in a document or a question is read as a placeholder, a section or a passage tag.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Literal, cast

from llm.errors import PromptInvalid
from llm.types import Message, Passage, Prompt

PLACEHOLDERS = {
    "answer": frozenset({"passages", "question", "not_found"}),
    "summarize": frozenset({"passages", "max_words", "focus", "language", "not_found"}),
    "rewrite": frozenset({"history", "question"}),
}
"""What each kind of template may name. Leaving one out is legal: the evaluation judges the result."""

Role = Literal["system", "user", "assistant"]
_SECTION = re.compile(r"^# (system|user|assistant)[ \t]*$", re.MULTILINE)
_BRACES = re.compile(r"\{\{|\}\}|\{([a-z_]+)\}|[{}]")
_PASSAGE = re.compile(r'<passage id="(\d+)" title="([^"<\n]*)">\n([^<]*)\n</passage>')
_ESCAPES = {"&": "&amp;", "<": "&lt;", '"': "&quot;", "\n": "&#10;"}
_ESCAPED = {entity: plain for plain, entity in _ESCAPES.items()}
_ENTITY = re.compile("|".join(map(re.escape, _ESCAPED)))
# An ampersand is escaped only where it would read as one of the entities, so that "R&D" stays as it is.
_AMPERSAND = re.compile(r"&(?=(?:amp|lt|quot|#10);)")


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt's text under the name of what it is for (`answer`, `summarize`, `rewrite`).

    Raises `PromptInvalid` when it has no message, does not end with the user's, has a brace that belongs
    to nothing, or names a placeholder that its kind does not have.
    """

    name: str
    text: str

    def __post_init__(self) -> None:
        sections = self.sections()
        if not sections or sections[-1][0] != "user":
            raise PromptInvalid(f"Prompt {self.name!r} must end with a section that begins `# user`.")
        for _, body in sections:
            for name in self._placeholders(body):
                self._require_known(name)

    @property
    def version(self) -> str:
        """The first 12 hex digits of the SHA-256 of the text."""
        return _version(self.text)

    def render(self, **values: str) -> Prompt:
        """The messages with the values put in. A value that the template does not name is left out."""
        messages = tuple(
            Message(role, "".join([self._value(piece, values) for piece in pieces]))
            for role, pieces in _pieces(self)
        )
        return Prompt(name=self.name, version=self.version, messages=messages)

    def sections(self) -> list[tuple[Role, str]]:
        """Role and text of each message."""
        before, *rest = _SECTION.split(self.text)
        if before.strip():
            raise PromptInvalid(f"Prompt {self.name!r} has text before its first section.")
        roles = cast(list[Role], rest[::2])
        return [(role, body.strip()) for role, body in zip(roles, rest[1::2], strict=True)]

    def _placeholders(self, body: str) -> list[str]:
        found = []
        for match in _BRACES.finditer(body):
            if match.group() in ("{", "}"):
                near = body[max(0, match.start() - 20) : match.end() + 20]
                raise PromptInvalid(f"Prompt {self.name!r} has a single brace in {near!r}; write it twice.")
            if match.group(1):
                found.append(match.group(1))
        return found

    def _require_known(self, name: str) -> None:
        known = PLACEHOLDERS.get(self.name, frozenset().union(*PLACEHOLDERS.values()))
        if name not in known:
            names = ", ".join(f"{{{k}}}" for k in sorted(known))
            raise PromptInvalid(
                f"Prompt {self.name!r} has an unknown placeholder {{{name}}}; known: {names}."
            )

    def _value(self, piece: _Piece, values: dict[str, str]) -> str:
        if not piece.placeholder:
            return piece.text
        try:
            return values[piece.text]
        except KeyError:
            raise PromptInvalid(f"Prompt {self.name!r} needs a value for {{{piece.text}}}.") from None


@dataclass(frozen=True, slots=True)
class _Piece:
    """Text as it stands, or the name of a placeholder."""

    text: str
    placeholder: bool


@lru_cache(maxsize=64)
def _version(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@lru_cache(maxsize=64)
def _pieces(template: Template) -> tuple[tuple[Role, tuple[_Piece, ...]], ...]:
    """A template's messages, each cut at its placeholders: once, and not for every question."""
    return tuple((role, tuple(_cut(body))) for role, body in template.sections())


def _cut(body: str) -> Iterator[_Piece]:
    at = 0
    for match in _BRACES.finditer(body):
        yield _Piece(body[at : match.start()], placeholder=False)
        name = match.group(1)
        yield _Piece(name or match.group()[0], placeholder=name is not None)
        at = match.end()
    yield _Piece(body[at:], placeholder=False)


def load_template(name: str) -> Template:
    """A template that ships with the product: `answer`, `summarize` or `rewrite`."""
    path = resources.files("llm") / "prompts" / f"{name}.md"
    try:
        return Template(name=name, text=path.read_text(encoding="utf-8"))
    except OSError:
        raise PromptInvalid(f"There is no prompt named {name!r}.") from None


def render_passages(passages: Sequence[Passage]) -> str:
    """The passages in tags. Their text is escaped: it cannot close its tag or open another."""
    return "\n".join(_tagged(passage) for passage in passages)


def parse_passages(text: str) -> list[Passage]:
    """The passages in a rendered prompt; the inverse of `render_passages`."""
    return [
        Passage(int(number), _unescaped(title), _unescaped(body))
        for number, title, body in _PASSAGE.findall(text)
    ]


def _tagged(passage: Passage) -> str:
    title = _escaped(passage.title, '<"\n')
    return f'<passage id="{passage.number}" title="{title}">\n{_escaped(passage.text, "<")}\n</passage>'


def _escaped(text: str, characters: str) -> str:
    if "&" in text:
        text = _AMPERSAND.sub(_ESCAPES["&"], text)
    for character in characters:
        text = text.replace(character, _ESCAPES[character])
    return text


def _unescaped(text: str) -> str:
    return _ENTITY.sub(lambda match: _ESCAPED[match.group()], text)
