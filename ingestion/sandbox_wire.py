"""What the sandbox, its nursery and its children say to each other: lengths and JSON, never pickles.

A child reads files made by anyone, so its answers are checked here like any other input. `PartNote` is
a page of shared memory: telling a part costs nothing, and it outlives the child that wrote it.
"""

from __future__ import annotations

import mmap
import struct
from typing import Any, get_args

import orjson

from ingestion.errors import IngestionError, Quarantined, UnsupportedType
from ingestion.types import Block, BlockKind, Parsed
from retrieval.types import Span

REQUEST = struct.Struct("<IQ")
"""Bytes of the JSON that follows, bytes of the content after it."""
ANSWER = struct.Struct("<Q")
"""Bytes of the JSON that follows."""
MAX_ANSWER = 2**29
MOST_WORDS = 4_096
"""Bytes of a message between sandbox and nursery, which is a JSON list of a word and what belongs to it."""

PART_BYTES = 64
_MAX_NOTES = 20
_MAX_NOTE = 1_000
_KINDS: tuple[BlockKind, ...] = get_args(BlockKind)
_REASONS = frozenset(
    {"encrypted", "damaged", "empty", "needs_ocr", "too_large", "timeout", "memory", "crashed"}
)


class MalformedAnswer(Exception):
    """The child said something that a sound child does not say."""


class PartNote:
    """The part being read, in memory that both processes see."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, PART_BYTES)

    def write(self, part: str) -> None:
        data = part.encode("utf-8", "replace")[:PART_BYTES]
        self._memory[:PART_BYTES] = data.ljust(PART_BYTES, b"\0")

    def read(self) -> str | None:
        text = bytes(self._memory[:PART_BYTES]).rstrip(b"\0").decode("utf-8", "ignore")
        return "".join(c for c in text if c.isprintable()) or None

    def close(self) -> None:
        self._memory.close()


def encode_request(content: bytes, filename: str | None, media_type: str | None) -> bytes:
    """Everything but the content itself, which follows."""
    about = orjson.dumps([_sound(filename), _sound(media_type)])
    return REQUEST.pack(len(about), len(content)) + about


def _sound(text: str | None) -> str | None:
    return None if text is None else text.encode("utf-8", "replace").decode("utf-8")


def encode_parsed(parsed: Parsed) -> bytes:
    blocks = [
        [_KINDS.index(b.kind), b.span.start, b.span.end, b.level, b.page, b.header and b.header.end, b.turns]
        for b in parsed.blocks
    ]
    said = {"title": parsed.title, "text": parsed.text, "blocks": blocks, "notes": parsed.notes}
    return _frame(said)


def encode_error(reason: str, message: str, part: str | None) -> bytes:
    message = message.encode("utf-8", "replace").decode("utf-8")
    return _frame({"reason": reason, "message": message, "part": part})


def _frame(answer: dict[str, Any]) -> bytes:
    body = orjson.dumps(answer)
    return ANSWER.pack(len(body)) + body


def encode_words(*words: object) -> bytes:
    """Cut where an error's sentence is longer than a message."""
    return orjson.dumps([word[: MOST_WORDS // 8] if isinstance(word, str) else word for word in words])


def decode_answer(body: bytes) -> Parsed | IngestionError:
    try:
        answer = orjson.loads(body)
        return _error(answer) if "reason" in answer else _parsed(answer)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise MalformedAnswer(type(error).__name__) from None


def _error(answer: dict[str, Any]) -> IngestionError:
    reason, message, part = answer["reason"], str(answer["message"])[:2_000], answer["part"]
    if reason == UnsupportedType.code:
        return UnsupportedType(message, param="file")
    if reason not in _REASONS:
        raise ValueError("unknown reason")
    return Quarantined(reason, message, None if part is None else str(part)[:PART_BYTES])


def _parsed(answer: dict[str, Any]) -> Parsed:
    title, text = answer["title"], answer["text"]
    if not isinstance(text, str) or not (title is None or isinstance(title, str)):
        raise TypeError("text")
    blocks = tuple(_block(b, len(text)) for b in answer["blocks"])
    ends = [0, *(b.span.end for b in blocks)]
    if any(b.span.start < end for b, end in zip(blocks, ends, strict=False)):
        raise ValueError("blocks overlap")
    notes = tuple(str(note)[:_MAX_NOTE] for note in answer["notes"][:_MAX_NOTES])
    return Parsed(title=title, text=text, blocks=blocks, notes=notes)


def _block(raw: list[Any], length: int) -> Block:
    kind, start, end, level, page, header, turns = raw
    numbers = (kind, start, end, level, *turns, *(n for n in (page, header) if n is not None))
    if not all(type(n) is int and n >= 0 for n in numbers) or not start < end <= length:
        raise ValueError("block")
    if header is not None and not start < header < end:
        raise ValueError("header")
    if turns and (turns != sorted(turns) or not start <= turns[0] <= turns[-1] <= end):
        raise ValueError("turns")
    named = None if header is None else Span(start, header)
    span = Span(start, end)
    return Block(kind=_KINDS[kind], span=span, level=level, page=page, header=named, turns=tuple(turns))
