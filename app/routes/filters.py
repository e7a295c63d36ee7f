"""The filter language as JSON. Every name, operator and value is checked here, once, for every store: none
of them ever reaches one as part of an expression."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.errors import RequestInvalid
from retrieval import conditions
from retrieval.errors import FilterInvalid
from retrieval.types import And, Condition, Exists, Not, OneOf, Or, Range, Scalar

LONGEST_VALUE = 1_000

DESCRIPTION = """Conditions on metadata, all of which must hold.

- `{"lang": "de"}` equals; `{"lang": ["de", "en"]}` equals one of these
- `{"year": {"$gte": 2020, "$lt": 2024}}` a range of numbers: `$gt`, `$gte`, `$lt`, `$lte`
- `{"published": {"$gte": "2024-03-01", "$lt": "2024-04-01T00:00:00Z"}}` a range of dates: ISO 8601 dates
  and date-times, each meaning its first instant, in UTC where it names no offset
- `{"lang": {"$eq": "de"}}`, `$ne`, `{"$in": [...]}`, `{"$nin": [...]}`, `{"$exists": true}`
- `{"tags": "hr"}` a list that holds it; `{"tags": {"$in": ["hr", "law"]}}` one of them,
  `{"tags": {"$all": ["hr", "law"]}}` all of them
- `{"$and": [{...}, {...}]}`, `{"$or": [{...}, {...}]}`, `{"$not": {...}}` of such objects

Numbers are compared by value, true and false are no numbers, a text equals only itself. A document without
the field meets no condition on it but `$exists: false`, `$ne`, `$nin` and `$not`."""

EXAMPLES: Final[list[dict[str, Any]]] = [
    {"lang": ["de", "en"], "year": {"$gte": 2020, "$lt": 2024}},
    {"$or": [{"published": {"$gte": "2024-03-01"}}, {"$not": {"tags": "draft"}}]},
]

_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_BOUNDS = ("$gt", "$gte", "$lt", "$lte")


def condition(raw: Mapping[str, Any], param: str) -> Condition | None:
    """The condition that a filter object states, None for an empty one. Raises `RequestInvalid`, which names
    the place in the request."""
    if not raw:
        return None
    stated = _Reader(param, 1).every(raw)
    try:
        conditions.check(stated)
    except FilterInvalid as error:
        raise RequestInvalid(str(error), param, "filter_invalid") from None
    return stated


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads what stands at one place of the request."""

    place: str
    depth: int

    def every(self, raw: Any) -> Condition:
        """A filter object: fields and connectives, all of which must hold."""
        if self.depth > conditions.DEEPEST:
            raise self.wrong(f"a filter nests at most {conditions.DEEPEST} deep")
        if not isinstance(raw, Mapping) or not raw:
            raise self.wrong("an object with at least one condition is needed")
        return _all_of([self.part(name, value) for name, value in raw.items()])

    def part(self, name: str, value: Any) -> Condition:
        if name.startswith("$"):
            return self.at(f".{name[:80]}").connective(name, value)
        if not _FIELD.fullmatch(name):
            raise self.wrong(
                f"{name[:80]!r} is no metadata field: a letter or _, then at most 63 letters, digits or _"
            )
        there = self.at(f".{name}")
        if isinstance(value, Mapping):
            return there.operators(name, value)
        return OneOf(name, there.scalars(value if isinstance(value, list) else [value]))

    def connective(self, name: str, value: Any) -> Condition:
        if name == "$not":
            return Not(self.every(value))
        if name not in ("$and", "$or"):
            raise self.wrong("an unknown operator; `$and`, `$or`, `$not` or a field may stand here")
        if not isinstance(value, list) or not value:
            raise self.wrong("a list with at least one filter object is needed")
        parts = tuple(self.at(f"[{i}]").every(one) for i, one in enumerate(value))
        return And(parts) if name == "$and" else Or(parts)

    def operators(self, field: str, raw: Mapping[str, Any]) -> Condition:
        """`{"$gte": 2020, "$lt": 2024}`: all of them must hold."""
        if not raw:
            raise self.wrong("at least one operator is needed")
        bounds = {name[1:]: self.at(f".{name}").bound(raw[name]) for name in _BOUNDS if name in raw}
        parts: list[Condition] = [Range(field=field, **bounds)] if bounds else []
        others = [name for name in raw if name not in _BOUNDS]
        parts += [self.at(f".{name[:80]}").operator(field, name, raw[name]) for name in others]
        return _all_of(parts)

    def operator(self, field: str, name: str, value: Any) -> Condition:
        if name not in _OPERATORS:
            known = ", ".join([*_OPERATORS, *_BOUNDS])
            raise self.wrong(f"an unknown operator; there are {known}")
        return _OPERATORS[name](self, field, value)

    def scalars(self, values: Any) -> tuple[Scalar, ...]:
        if not isinstance(values, list) or not 1 <= len(values) <= conditions.MOST_VALUES:
            raise self.wrong(f"a list of 1 to {conditions.MOST_VALUES} values is needed")
        return tuple(map(self.scalar, values))

    def scalar(self, value: Any) -> Scalar:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return self.number(value)
        raise self.wrong("a value is a text, a number, true or false")

    def text(self, value: str) -> str:
        if "\x00" in value:
            raise self.wrong("a text must not hold the character U+0000")
        if len(value) > LONGEST_VALUE:
            raise self.wrong(f"a text has at most {LONGEST_VALUE} characters, not {len(value)}")
        return value

    def number(self, value: int | float) -> int | float:
        if not conditions.is_number(value):
            raise self.wrong("a number must be finite, and a whole one fit into 64 bits")
        return value

    def bound(self, value: Any) -> int | float | str:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self.number(value)
        if isinstance(value, str) and conditions.instant(value) is not None:
            return value
        raise self.wrong("a bound is a number, a date as 2024-03-01 or a date-time as 2024-03-01T09:30:00Z")

    def truth(self, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        raise self.wrong("true or false is needed")

    def at(self, step: str) -> _Reader:
        """A part of this place; a bracket opens a new level of nesting, and so does `$not`."""
        deeper = step.startswith("[") or step == ".$not"
        return _Reader(f"{self.place}{step}", self.depth + deeper)

    def wrong(self, told: str) -> RequestInvalid:
        return RequestInvalid(f"`{self.place}`: {told}.", self.place, "filter_invalid")


def _all_of(parts: list[Condition]) -> Condition:
    return parts[0] if len(parts) == 1 else And(tuple(parts))


_OPERATORS: Final[dict[str, Callable[[_Reader, str, Any], Condition]]] = {
    "$eq": lambda at, field, value: OneOf(field, (at.scalar(value),)),
    "$ne": lambda at, field, value: Not(OneOf(field, (at.scalar(value),))),
    "$in": lambda at, field, value: OneOf(field, at.scalars(value)),
    "$nin": lambda at, field, value: Not(OneOf(field, at.scalars(value))),
    "$all": lambda at, field, value: _all_of([OneOf(field, (one,)) for one in at.scalars(value)]),
    "$exists": lambda at, field, value: Exists(field) if at.truth(value) else Not(Exists(field)),
}
