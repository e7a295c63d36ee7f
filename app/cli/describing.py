"""What is said of documents when they are handed in, checked before the first is: else one word would have
each of a thousand files refused, once it was sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from app.cli import console
from ingestion.checks import MOST_PRIORITY, checked
from ingestion.errors import DocumentInvalid
from ingestion.types import NewDocument

PRIORITIES: Final = ("low", "normal", "high")
_OPTIONS: Final = {"groups": "group"}
_CONTENT = b"A document."


def described(
    collection: str, groups: Sequence[str], metadata: Sequence[str], priority: str
) -> dict[str, Any]:
    """The query fields that describe each document. What no document may have ends the command."""
    named, noted = list(dict.fromkeys(_groups(groups))), dict(map(_pair, metadata))
    stand_in = NewDocument(content=_CONTENT, collection=collection, groups=frozenset(named), metadata=noted)
    _check_priority(priority)
    try:
        checked([stand_in], len(_CONTENT))
    except DocumentInvalid as error:
        field, _, key = (error.param or "").partition(".")[2].partition(".")
        option = " ".join(part for part in (f"--{_OPTIONS.get(field, field)}", key) if part)
        console.fail(f"{option}: {error}", console.USAGE)
    fields: dict[str, Any] = {"collection": collection}
    if named:
        fields["groups"] = named
    if noted:
        fields["metadata"] = json.dumps(noted)
    if priority != "normal":
        fields["priority"] = priority
    return fields


def _groups(given: Sequence[str]) -> Iterator[str]:
    """Separated by commas too, as the service takes them. One without a name would be dropped there, and what
    was meant for a few be shown to all."""
    for one in given:
        for name in one.split(","):
            if not name.strip():
                console.fail(
                    f"--group {one!r} names no group. Leave it out if everybody may read them.",
                    console.USAGE,
                )
            yield name.strip()


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        console.fail(f"--metadata {text!r}: write KEY=VALUE.", console.USAGE)
    return name, _value(value)


def _value(text: str) -> Any:
    """A number, true or false where the text is one, else the text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def _check_priority(given: str) -> None:
    if given in PRIORITIES:
        return
    try:
        number = int(given)
    except ValueError:
        number = MOST_PRIORITY + 1
    if abs(number) > MOST_PRIORITY:
        choices = ", ".join(PRIORITIES)
        console.fail(
            f"--priority {given!r}: say {choices}, or a number from -{MOST_PRIORITY} to {MOST_PRIORITY}.",
            console.USAGE,
        )
