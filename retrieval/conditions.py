"""What a condition on metadata means, in plain Python, and which ones every store can answer.

The memory store filters with `holds`, and so says what is right; the other stores compile the same meaning.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeGuard

from retrieval.errors import FilterInvalid
from retrieval.types import And, Condition, Exists, Metadata, MetadataValue, Not, OneOf, Or, Range, Scalar

MOST_CONDITIONS = 50
MOST_VALUES = 200
DEEPEST = 8

_LONGEST_FIELD = 200
_DATE = re.compile(
    r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d([.]\d{1,9})?)?(Z|[+-]\d\d:\d\d)?)?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

Number = int | float


def instant(text: str) -> int | None:
    """Microseconds from 1970 in UTC to the first instant of an ISO 8601 date or date-time; None when the
    text is none."""
    if not _DATE.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND


def holds(condition: Condition, metadata: Metadata) -> bool:
    """Whether a document with this metadata meets a checked condition."""
    match condition:
        case And(conditions):
            return all(holds(one, metadata) for one in conditions)
        case Or(conditions):
            return any(holds(one, metadata) for one in conditions)
        case Not(inner):
            return not holds(inner, metadata)
        case Exists(field):
            return field in metadata
        case OneOf(field, values):
            return field in metadata and any(_equal(metadata[field], value) for value in values)
        case Range():
            return condition.field in metadata and _within(condition, metadata[condition.field])


def limits(condition: Range) -> Iterator[tuple[str, Number | str]]:
    """The bounds that a range names, each with its operator."""
    for operator in ("gt", "gte", "lt", "lte"):
        bound = getattr(condition, operator)
        if bound is not None:
            yield operator, bound


def check(condition: Condition) -> None:
    """Raise `FilterInvalid`, with a sentence for the caller, unless every store can answer it."""
    leaves = list(_leaves(condition, 1))
    if len(leaves) > MOST_CONDITIONS:
        raise FilterInvalid(f"A filter has at most {MOST_CONDITIONS} conditions, not {len(leaves)}.")
    values = sum(len(leaf.values) for leaf in leaves if isinstance(leaf, OneOf))
    if values > MOST_VALUES:
        raise FilterInvalid(f"A filter names at most {MOST_VALUES} values, not {values}.")
    for leaf in leaves:
        _check_leaf(leaf)


def canonical(condition: Condition | None) -> str:
    """The same text for conditions that differ only in the order or number of equal parts, or in how a
    number, a date bound or a conjunction is written."""
    return "" if condition is None else json.dumps(_plain(condition))


def _equal(stored: MetadataValue, asked: Scalar) -> bool:
    if isinstance(stored, list):
        return isinstance(asked, str) and asked in stored
    if is_number(stored) or is_number(asked):
        return is_number(stored) and is_number(asked) and stored == asked
    return stored == asked


_COMPARE: dict[str, Callable[[Number, Number], bool]] = {
    "gt": lambda stored, bound: stored > bound,
    "gte": lambda stored, bound: stored >= bound,
    "lt": lambda stored, bound: stored < bound,
    "lte": lambda stored, bound: stored <= bound,
}


def _within(condition: Range, stored: MetadataValue) -> bool:
    for operator, bound in limits(condition):
        left, right = _comparable(stored, bound)
        if left is None or right is None or not _COMPARE[operator](left, right):
            return False
    return True


def _comparable(stored: MetadataValue, bound: Number | str) -> tuple[Number | None, Number | None]:
    if isinstance(bound, str):
        return (instant(stored) if isinstance(stored, str) else None), instant(bound)
    return (stored if is_number(stored) else None), bound


def is_number(value: object) -> TypeGuard[Number]:
    """An integer of 64 bits or a finite float. Others, which JSON can carry, equal nothing and lie in no
    range; true and false are none."""
    if isinstance(value, int):
        return not isinstance(value, bool) and -(2**63) <= value < 2**63
    return isinstance(value, float) and math.isfinite(value)


def _leaves(condition: Condition, depth: int) -> Iterator[OneOf | Range | Exists]:
    if depth > DEEPEST:
        raise FilterInvalid(f"A filter nests at most {DEEPEST} deep.")
    match condition:
        case And(conditions) | Or(conditions):
            if not conditions:
                raise FilterInvalid("`and` and `or` need at least one condition.")
            for one in conditions:
                yield from _leaves(one, depth + 1)
        case Not(inner):
            yield from _leaves(inner, depth + 1)
        case _:
            yield condition


def _check_leaf(leaf: OneOf | Range | Exists) -> None:
    _check_field(leaf.field)
    match leaf:
        case OneOf(field, values):
            if not values:
                raise FilterInvalid(f"The condition on {field!r} names no value.")
            for value in values:
                _check_value(field, value)
        case Range():
            _check_range(leaf)


def _check_field(field: str) -> None:
    if not field or len(field) > _LONGEST_FIELD or not field.isprintable():
        raise FilterInvalid(
            f"A metadata field is named by 1 to {_LONGEST_FIELD} printable characters, not by {field[:50]!r}."
        )


def _check_value(field: str, value: object) -> None:
    """What is no value at all (JSON is typed by its sender) is refused."""
    if isinstance(value, str):
        if not is_unicode(value):
            raise FilterInvalid(f"The condition on {field!r} holds text that is not valid Unicode.")
    elif not isinstance(value, bool) and not is_number(value):
        raise FilterInvalid(f"The condition on {field!r} names {value!r}, no text, number or boolean.")


def _check_range(condition: Range) -> None:
    bounds = dict(limits(condition))
    if not bounds or bounds.keys() >= {"gt", "gte"} or bounds.keys() >= {"lt", "lte"}:
        raise FilterInvalid(f"The range of {condition.field!r} has one lower bound, one upper bound or both.")
    for bound in bounds.values():
        if instant(bound) is None if isinstance(bound, str) else not is_number(bound):
            raise FilterInvalid(
                f"The range of {condition.field!r} is bounded by {bound!r}; a bound is a number, a date as "
                "2024-03-01 or a date-time as 2024-03-01T09:30:00Z."
            )
    if len({isinstance(bound, str) for bound in bounds.values()}) > 1:
        raise FilterInvalid(f"The range of {condition.field!r} mixes a number and a date.")


def ranks(value: object) -> bool:
    """Whether the value is a number or a date, which can lie in a range."""
    return is_number(value) or (isinstance(value, str) and instant(value) is not None)


def is_unicode(text: str) -> bool:
    """JSON can carry half of a surrogate pair, which no encoding of Unicode can."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _plain(condition: Condition) -> list[Any]:
    match condition:
        case And(conditions):
            return _joined("and", conditions)
        case Or(conditions):
            return _joined("or", conditions)
        case Not(Not(inner)):
            return _plain(inner)
        case Not(inner):
            return ["not", _plain(inner)]
        case Exists(field):
            return ["exists", field]
        case OneOf(field, values):
            return ["in", field, sorted({_told(value) for value in values})]
        case Range():
            bounds = [[op, _told(instant(v) if isinstance(v, str) else v)] for op, v in limits(condition)]
            kind = "date" if any(isinstance(bound, str) for _, bound in limits(condition)) else "number"
            return ["range", condition.field, kind, bounds]


def _joined(name: str, conditions: tuple[Condition, ...]) -> list[Any]:
    parts: list[list[Any]] = []
    for plain in map(_plain, conditions):
        parts += plain[1:] if plain[0] == name else [plain]
    unique = {json.dumps(part): part for part in parts}
    ordered = [unique[key] for key in sorted(unique)]
    return ordered[0] if len(ordered) == 1 else [name, *ordered]


def _told(value: Scalar | None) -> str:
    """1 and 1.0 are the same number, true is none, and "1" is a text."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{type(value).__name__} {value!r}"
