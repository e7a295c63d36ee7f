"""What differs between two releases, key by key, prompts as line diffs."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_LONG = 120
"""Characters, of both sides together."""


@dataclass(frozen=True, slots=True)
class Change:
    """A key of the release that differs; None where one side has no such key."""

    path: str
    before: str | None
    after: str | None


def changes(before: str, after: str) -> tuple[Change, ...]:
    """The differing keys of two canonical release texts, by dotted path. Text that is not JSON (a release
    that could not even be read) is compared as a whole."""
    old, new = dict(leaves(_parsed(before))), dict(leaves(_parsed(after)))
    return tuple(
        Change(path, old.get(path), new.get(path))
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    )


def is_text(change: Change) -> bool:
    """Whether it is to be shown line by line: two texts, of which one is long or has lines."""
    values = f"{change.before}{change.after}"
    return None not in (change.before, change.after) and ("\n" in values or len(values) > _LONG)


def line_diff(before: str, after: str) -> list[str]:
    """The lines that went (`-`) and came (`+`), without context."""
    return [line for line in hunks(before, after, context=0) if not line.startswith("@")]


def hunks(before: str, after: str, *, context: int) -> list[str]:
    """The lines that went (`-`) and came (`+`) among so many unchanged ones (` `), `@` before each place."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=context)
    return ["@" if line.startswith("@@") else line for line in list(lines)[2:]]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return {"file": text}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The keys of JSON by dotted path, with their values; what is no text as JSON."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{index}]")
    else:
        yield path, value if isinstance(value, str) else json.dumps(value)
