"""What a collection asks of its documents: the rules, and how one is broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from retrieval.languages import FUNCTION_WORDS
from retrieval.types import Metadata

OTHER = "other"
"""The language of a text whose function words say none that we know."""
LANGUAGES: tuple[str, ...] = (*sorted(FUNCTION_WORDS), OTHER)
Rule = Literal[
    "languages",
    "min_characters_per_page",
    "min_characters",
    "max_characters",
    "max_duplicate_share",
    "max_damage_share",
    "required_metadata",
    "notes",
]
RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """None, empty or False asks nothing; a broken one warns unless it is in `refuse`.

    `languages` of which the text is in one; characters on an average page; characters of the whole text;
    the share of paragraphs that another document of the collection has too; the share of characters that
    are damaged (undecodable, decoded twice, or of a font without an alphabet); keys that the metadata must
    have; and `notes`: whatever the reader had to leave out, such as pages that need OCR.
    """

    languages: tuple[str, ...] = ()
    min_characters_per_page: int | None = None
    min_characters: int | None = None
    max_characters: int | None = None
    max_duplicate_share: float | None = None
    max_damage_share: float | None = None
    required_metadata: tuple[str, ...] = ()
    notes: bool = True
    refuse: frozenset[Rule] = frozenset()

    @property
    def refused_without(self) -> tuple[str, ...]:
        """The metadata keys without which a document is not even accepted."""
        return self.required_metadata if "required_metadata" in self.refuse else ()


@dataclass(frozen=True, slots=True)
class Breach:
    """A rule that a document broke, and how, in a sentence that holds none of its text."""

    rule: Rule
    message: str


@dataclass(frozen=True, slots=True)
class Count:
    """Documents that broke a rule, and the ids of those that did last."""

    outcome: str
    rule: Rule
    documents: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RulesReport:
    """Of a collection's documents as they were last handed in: `warned` broke some rule and were let in."""

    documents: int
    warned: int
    counts: tuple[Count, ...]


NONE = Rules()
"""Nothing is asked; what a reader had to leave out is told all the same."""


def missing_metadata(required: Sequence[str], metadata: Metadata) -> str | None:
    """A sentence that names the keys that are missing or empty."""
    missing = [key for key in required if metadata.get(key) in (None, "", [])]
    return f"The metadata lacks {', '.join(missing)}." if missing else None


def rules_json(rules: Rules) -> dict[str, Any]:
    """Only what differs from what is asked of every document."""
    names = (one.name for one in fields(Rules))
    said = {name: getattr(rules, name) for name in names if getattr(rules, name) != getattr(NONE, name)}
    return {name: sorted(v) if isinstance(v, frozenset | tuple) else v for name, v in said.items()}


def rules_of(said: Mapping[str, Any]) -> Rules:
    """From what `rules_json` made."""
    lists = {name: tuple(said[name]) for name in ("languages", "required_metadata") if name in said}
    return Rules(**{**said, **lists, "refuse": frozenset(said.get("refuse", ()))})


def breaches_json(breaches: Sequence[Breach]) -> list[dict[str, str]]:
    return [{"rule": one.rule, "message": one.message} for one in breaches]


def breaches_of(said: Sequence[Mapping[str, Any]]) -> tuple[Breach, ...]:
    return tuple(Breach(one["rule"], one["message"]) for one in said)
