"""Frozen dataclasses back from the JSON that `dataclasses.asdict` gave.

The types are the format: a field that is missing and has no default, one that nobody knows, and a value of
another type are each refused, so that a file of another version is never half understood. What a newer
service says may have more fields, which `lenient` drops.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, is_dataclass
from dataclasses import fields as dataclass_fields
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def decoded(kind: type[T], value: object, *, lenient: bool = False) -> T:
    """`value` as a `kind`: a dataclass of plain values, tuples, mappings and other such dataclasses. Raises
    TypeError for anything else."""
    found: T = _decoded(kind, value, lenient)
    return found


def _decoded(kind: Any, value: Any, lenient: bool) -> Any:
    origin = get_origin(kind)
    if is_dataclass(kind):
        return _dataclass(kind, value, lenient)
    if origin is tuple:
        return tuple(_decoded(get_args(kind)[0], item, lenient) for item in _plain(list, value))
    if origin is Mapping:
        names, values = get_args(kind)
        pairs = _plain(dict, value).items()
        return {_decoded(names, name, lenient): _decoded(values, item, lenient) for name, item in pairs}
    if origin in (Union, UnionType):
        [inner] = [part for part in get_args(kind) if part is not NoneType]
        return None if value is None else _decoded(inner, value, lenient)
    if origin is Literal:
        if value not in get_args(kind):
            raise TypeError(f"{value!r} is none of {', '.join(get_args(kind))}")
        return value
    return _plain(kind, value)


def _dataclass(kind: Any, value: Any, lenient: bool) -> Any:
    hints = _hints(kind)
    fields = _plain(dict, value)
    unknown = fields.keys() - hints.keys()
    if unknown and not lenient:
        raise TypeError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
    needed = {field.name for field in dataclass_fields(kind) if _is_needed(field)} - fields.keys()
    if needed:
        raise TypeError(f"{kind.__name__} lacks {', '.join(sorted(needed))}")
    known = hints.keys() & fields.keys()
    return kind(**{name: _decoded(hints[name], fields[name], lenient) for name in known})


def _is_needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _plain(kind: Any, value: Any) -> Any:
    """JSON has one kind of number: 1 is a float, too, but True is no number."""
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


@lru_cache(maxsize=64)
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
