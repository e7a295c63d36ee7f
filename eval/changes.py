"""What differs between two releases, key by key, prompts as line diffs."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any

from eval.types import Change


def changes(before: str, after: str) -> tuple[Change, ...]:
    """The differing keys of two canonical release texts, by dotted path. Text that is not JSON (a release
    that could not even be read) is compared as a whole."""
    old, new = dict(_leaves(_parsed(before))), dict(_leaves(_parsed(after)))
    return tuple(
        Change(path, old.get(path), new.get(path))
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    )


def line_diff(before: str, after: str) -> list[str]:
    """The lines that went (`-`) and came (`+`), without context."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return {"file": text}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]")
    else:
        yield path, value if isinstance(value, str) else json.dumps(value)
