"""What the sandbox and its child say to each other: lengths and JSON, never pickles.

The child reads files made by anyone, so its answers are checked here like any other input. `Progress` is
a page of shared memory: telling a part costs nothing, and it outlives the child that wrote it.
"""

from __future__ import annotations

import mmap
import re
import struct
from pathlib import Path
from typing import Any, get_args

import orjson

from ingestion.errors import IngestionError, Quarantined, UnsupportedType
from ingestion.types import Block, BlockKind, Parsed
from retrieval.types import Span

REQUEST = struct.Struct("<IQ")
"""Bytes of the JSON that follows, bytes of the content after it."""
ANSWER = struct.Struct("<Q")
"""Bytes of the JSON that follows."""
MAX_ANSWER = 2**30

PART_BYTES = 64
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


def encode_parsed(parsed: Parsed, tired: bool) -> bytes:
    blocks = [[_KINDS.index(b.kind), b.span.start, b.span.end, b.level, b.page] for b in parsed.blocks]
    return _frame({"title": parsed.title, "text": parsed.text, "blocks": blocks, "tired": tired})


def encode_error(reason: str, message: str, part: str | None, tired: bool) -> bytes:
    message = message.encode("utf-8", "replace").decode("utf-8")
    return _frame({"reason": reason, "message": message, "part": part, "tired": tired})


def _frame(answer: dict[str, Any]) -> bytes:
    body = orjson.dumps(answer)
    return ANSWER.pack(len(body)) + body


def decode_answer(body: bytes) -> tuple[Parsed | IngestionError, bool]:
    """The result or the error, and whether the child wants to be replaced."""
    try:
        answer = orjson.loads(body)
        tired = bool(answer["tired"])
        if "reason" in answer:
            return _error(answer), tired
        return _parsed(answer), tired
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
    return Parsed(title=title, text=text, blocks=blocks)


def _block(raw: list[Any], length: int) -> Block:
    kind, start, end, level, page = raw
    numbers = (kind, start, end, level, *(() if page is None else (page,)))
    if not all(type(n) is int and n >= 0 for n in numbers) or not start < end <= length:
        raise ValueError("block")
    return Block(kind=_KINDS[kind], span=Span(start, end), level=level, page=page)


def peak_resident(process: int) -> int:
    """The largest resident size of a process so far, in bytes; 0 when it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_bytes()
    except OSError:
        return 0
    found = re.search(rb"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
