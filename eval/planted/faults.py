"""What a model may do wrong with an answer that was right. Each is a function of the text alone.

Whether an answer is harmed is decided by what was asked, so that a fault is the same in every run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llm.language import LANGUAGES

_MARKER = re.compile(r"\[(\d+)\]")
_CITED = re.compile(r"(.*?)\s*(\[\d+\])", re.DOTALL)
_NUMBER = re.compile(r"\d[\d.,:%]*\d|\d")
_EVASIVE = "noncommittal"
_REPLACEMENT = "\ufffd"

Fault = Callable[[str, Sequence[int]], str]
"""An answer and the numbers of the passages that it was made of; the answer with the fault."""


def drawn(asked: str, share: float) -> bool:
    """Whether this prompt is one of that share of all prompts."""
    drawn_by = hashlib.sha256(f"{share:g} {asked}".encode()).digest()
    return int.from_bytes(drawn_by[:4]) < share * 2**32


def uncited(text: str, passages: Sequence[int]) -> str:
    """The same without naming a source."""
    return re.sub(r"\s*\[\d+\]", "", text)


def miscited(text: str, passages: Sequence[int]) -> str:
    """Every source is the one after the right one: the markers resolve, and lead to the wrong place."""
    if len(passages) < 2:
        return text
    after = dict(zip(passages, [*passages[1:], passages[0]], strict=True))
    return _MARKER.sub(lambda found: f"[{after.get(int(found[1]), passages[0])}]", text)


def corrupt(text: str, passages: Sequence[int] = ()) -> str:
    """From the middle on each letter is what remains of bytes that are no text."""
    middle = len(text) // 2
    return text[:middle] + re.sub(r"[^\W\d_]", _REPLACEMENT, uncited(text[middle:], ()))


def empty(text: str, passages: Sequence[int]) -> str:
    """A space: a stream that ends well and has said nothing."""
    return " "


def german(text: str, passages: Sequence[int]) -> str:
    """Figures and sources of the answer, in German sentences."""
    said = [
        f"Dazu steht in den Unterlagen {_figures(sentence)} {marker}."
        for sentence, marker in _CITED.findall(text)
    ]
    return " ".join(said) or LANGUAGES["de"].not_found


def _figures(sentence: str) -> str:
    figures = _NUMBER.findall(sentence)
    return f"die Angabe {' und '.join(figures)}" if figures else "eine Regelung, die hier gilt"


FAULTS: Mapping[str, Fault] = {
    "uncited": uncited,
    "miscited": miscited,
    "corrupt": corrupt,
    "empty": empty,
    "german": german,
}


def example(schema: Mapping[str, Any], whole: Mapping[str, Any] | None = None) -> Any:
    """A value of a JSON schema: what a judge says that agrees with everything and finds nothing evasive."""
    whole = whole or schema
    if "$ref" in schema:
        return example(whole["$defs"][schema["$ref"].rpartition("/")[2]], whole)
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            parts = schema.get("properties", {}).items()
            return {name: 0 if name == _EVASIVE else example(part, whole) for name, part in parts}
        case "array":
            return [example(schema["items"], whole)]
        case "integer":
            return 1
        case "number":
            return 1.0
        case "boolean":
            return True
        case _:
            return "The documents say so."
