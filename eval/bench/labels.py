"""Folders of files with what a reader should make of each, and the judgement of what one made of it.

`MANIFEST.json` lists entries: `file`, `expect` and, of those with text, `oracle.words_agreed`, words that
other readers agree on. `text` is to yield nearly all of these words; of `bounded` either text or a typed
refusal is right; the others are to be refused for the reason that their label says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from eval.types import DatasetInvalid

MANIFEST = "MANIFEST.json"
Expect = Literal["text", "bounded", "password", "ocr", "empty", "reject"]
WORDS = 0.9
"""Share of the agreed words that a file with text yields."""
SECONDS, BYTES = 20.0, 2**30
"""What a file without text may take until it ends, and what reading it may hold of memory."""

_BROKEN = frozenset({"damaged", "unsupported_type", "document_invalid"})
_STOPPED = frozenset({"too_large", "document_too_large", "timeout", "memory", "crashed"})
_EMPTY = frozenset({"empty", "empty_document"})
ALLOWED: Mapping[Expect, frozenset[str]] = MappingProxyType(
    {
        "text": frozenset(),
        "password": frozenset({"encrypted"}),
        "ocr": frozenset({"needs_ocr"}),
        "empty": _EMPTY,
        "reject": _BROKEN,
        "bounded": _BROKEN | _STOPPED | _EMPTY | {"encrypted", "needs_ocr"},
    }
)
"""The reasons for which a file of each label may be refused."""


@dataclass(frozen=True, slots=True)
class Labelled:
    path: Path
    expect: Expect
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What came of a file: the text, or the `reason` why there is none; `seconds` until that was known, and
    the most memory that reading it held, in bytes."""

    text: str | None
    reason: str | None
    seconds: float
    peak: int


def labelled(folder: Path) -> list[Labelled]:
    """Raises `DatasetInvalid`."""
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        entries = listed if isinstance(listed, list) else listed["files"]
        found = [_entry(folder, entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetInvalid(f"{folder / MANIFEST} cannot be used: {error!r}.") from None
    missing = [one.path.name for one in found if not one.path.is_file()]
    if missing or not found:
        raise DatasetInvalid(f"{folder} lacks {', '.join(missing) or 'files'}.")
    return found


def _entry(folder: Path, entry: Mapping[str, Any]) -> Labelled:
    expect = entry["expect"]
    if expect not in get_args(Expect):
        raise ValueError(f"`expect` of {entry['file']} is {expect!r}")
    words = (entry.get("oracle") or {}).get("words_agreed") or ()
    return Labelled(folder / entry["file"], expect, tuple(words))


def share_of_words(words: tuple[str, ...], text: str | None) -> float:
    """Of a file for which nobody agreed on any word, any text at all is right."""
    if text is None:
        return 0.0
    if not words:
        return 1.0 if text.strip() else 0.0
    folded = text.casefold()
    return sum(word.casefold() in folded for word in words) / len(words)


def fault(label: Labelled, made: Made) -> str | None:
    """What is wrong with that, None if it is as it should be."""
    if label.expect == "text":
        if made.reason is not None:
            return f"refused as {made.reason}"
        share = share_of_words(label.words, made.text)
        return None if share >= WORDS else f"{share:.0%} of the agreed words"
    if made.seconds > SECONDS:
        return f"took {made.seconds:.1f} s"
    if made.peak > BYTES:
        return f"took {made.peak / 2**20:.0f} MiB"
    if made.reason is None:
        return None if label.expect == "bounded" else "read as if it had text"
    allowed = ALLOWED[label.expect]
    return None if made.reason in allowed else f"refused as {made.reason}"
