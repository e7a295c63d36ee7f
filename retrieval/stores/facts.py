"""What a stored row is found by, as short texts that sort: its groups, and each value of its metadata.

A fact about metadata is the hash of the field, a letter for the kind, and the value: as a hash where it is
only compared for equality, as digits that sort as the values do where it can lie in a range. So one text
column answers equality, ranges and existence; numbers, dates, booleans and texts under one name cannot be
confused; and no character of what a caller wrote ever becomes part of an expression.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from hashlib import blake2b

from retrieval.conditions import Number, instant, is_number, limits
from retrieval.types import Chunk, MetadataValue, Range, Scalar

EVERYBODY = "g"
"""The fact of a row that names no group."""
BARE = 16
"""Characters of a field's hash, without kind and value."""

_NUMBER_DIGITS = 19
_DATE_DIGITS = 16
_SIGN = 1 << 63
_DATES = 1 << 62


def group(name: str) -> str:
    return f"g{digest(name)}"


def rights(chunk: Chunk) -> list[str]:
    """Its groups, or that it has none."""
    return sorted(map(group, chunk.groups)) or [EVERYBODY]


def named(field: str) -> str:
    """What every fact about the field begins with."""
    return _hash(field, BARE // 2)


def ranked(chunk: Chunk) -> list[str]:
    """Facts that can lie in a range: one for each number and each date."""
    found = (_rank(named(field), value) for field, value in chunk.metadata.items())
    return sorted(fact for fact in found if fact)


def unranked(chunk: Chunk) -> list[str]:
    """Facts about every other value; a text is one even if it is a date, since it equals itself only."""
    return sorted({fact for field, value in chunk.metadata.items() for fact in _equals(named(field), value)})


def equal(field: str, value: Scalar) -> str:
    """The fact that a row has where this value is under the field."""
    name = named(field)
    if isinstance(value, str):
        return _text(name, value)
    return _rank(name, value) or f"{name}b{value:d}"


def interval(condition: Range) -> tuple[str, str]:
    """The first and the last fact that lie in the range, both of one length."""
    bounds = dict(limits(condition))
    date = any(isinstance(bound, str) for bound in bounds.values())
    digits = _DATE_DIGITS if date else _NUMBER_DIGITS
    low, high = 0, 16**digits - 1
    for operator, bound in bounds.items():
        place = _place(bound)
        if operator in ("gt", "gte"):
            low = place + (operator == "gt")
        else:
            high = place - (operator == "lt")
    name = f"{named(condition.field)}{'d' if date else 'n'}"
    return f"{name}{low:0{digits}x}", f"{name}{high:0{digits}x}"


def prefixes(first: str, last: str) -> list[str]:
    """The fewest beginnings that the facts from `first` to `last`, and no others of that length, share.

    At most 30 for each hexadecimal digit (the terms of a numeric range query: Schindler and Diepenbroek,
    Computers & Geosciences 34, 2008)."""
    if first > last:
        return []
    size = len(first)
    common = next((i for i in range(size) if first[i] != last[i]), size)
    if common == size:
        return [first]
    head = first[:common]
    covered = _above(first, common + 1) + _below(last, common + 1)
    covered += [f"{head}{digit:x}" for digit in range(int(first[common], 16) + 1, int(last[common], 16))]
    return sorted(covered)


def _above(first: str, start: int) -> list[str]:
    """Beginnings of what shares `start` characters with `first` and is not below it."""
    edge = first[:start] + first[start:].rstrip("0")
    above = ((i, digit) for i in range(start, len(edge)) for digit in range(int(edge[i], 16) + 1, 16))
    return [edge, *(f"{edge[:i]}{digit:x}" for i, digit in above)]


def _below(last: str, start: int) -> list[str]:
    edge = last[:start] + last[start:].rstrip("f")
    below = ((i, digit) for i in range(start, len(edge)) for digit in range(int(edge[i], 16)))
    return [edge, *(f"{edge[:i]}{digit:x}" for i, digit in below)]


def _equals(name: str, value: MetadataValue) -> Iterator[str]:
    if isinstance(value, list):
        yield from (_text(name, item) for item in value)
        if not value:
            yield f"{name}e"
    elif isinstance(value, str):
        yield _text(name, value)
    elif isinstance(value, bool):
        yield f"{name}b{value:d}"
    elif not is_number(value):
        yield f"{name}e"


def _rank(name: str, value: MetadataValue) -> str:
    if isinstance(value, str):
        return "" if instant(value) is None else f"{name}d{_place(value):0{_DATE_DIGITS}x}"
    return f"{name}n{_place(value):0{_NUMBER_DIGITS}x}" if is_number(value) else ""


def _place(value: MetadataValue) -> int:
    """A whole number that sorts as the instants or, over integers and floats, as the numbers do."""
    if isinstance(value, str):
        return (instant(value) or 0) + _DATES
    assert is_number(value)
    below = _float_below(value)
    (bits,) = struct.unpack(">Q", struct.pack(">d", below + 0.0))
    order = bits ^ (2 * _SIGN - 1) if bits & _SIGN else bits | _SIGN
    # Floats around a 64-bit integer lie at most 2048 apart: twelve bits tell what lies between them.
    return int(order << 12 | int(value - int(below) if isinstance(value, int) else 0))


def _float_below(value: Number) -> float:
    """The greatest float that is no greater."""
    below = float(value)
    return math.nextafter(below, -math.inf) if below > value else below


def _text(name: str, value: str) -> str:
    return f"{name}t{digest(value)}"


def digest(text: str) -> str:
    """96 bits of hash: two that collide will not be met, nor made on purpose."""
    return _hash(text, 12)


def _hash(text: str, size: int) -> str:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=size).hexdigest()
