"""JSON and JSONL as text that can be read and found: `path: value` lines, like objects as a table.

The larger parts of an object become sections under their names. Each record of JSONL is a block. Several
values one after the other are read like JSONL, whatever the file is called.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from ingestion.errors import Quarantined
from ingestion.parse.builder import Builder, clean
from ingestion.parse.formats import charset
from ingestion.parse.text import decode
from ingestion.parse.within import Within
from ingestion.types import Parsed

_SMALL = 12
"""Lines of an object that stay within its parent's block."""
_MAX_LEVEL = 6
_LONG_CELL = 300
_TOLD_RECORDS = 1_000


def read(content: bytes, within: Within) -> Parsed:
    text = clean(decode(content, charset(within.media_type)))
    builder = Builder()
    title = None
    try:
        value = _load(text)
    except ValueError as error:
        for number, record in enumerate(_records(text, error), 1):
            if number % _TOLD_RECORDS == 1:
                within.progress(f"record {number}")
            builder.add("paragraph", "\n".join(_lines(record, "")))
    else:
        title = _title(value)
        _Writer(builder).write(value, (), 1)
    return builder.build(title)


def _load(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(text)  # It takes NaN, and numbers of any size, but not any depth.
    except RecursionError:
        raise _too_deep() from None


def _records(text: str, whole: ValueError) -> Iterator[Any]:
    """One value after the other, usually one a line. Raises `Quarantined` at what is no JSON."""
    if text.lstrip()[:1] not in ("{", "[", '"'):
        raise _damaged(whole)
    at = 0
    for line in text.split("\n"):
        try:
            if line.strip():
                yield _load(line)
        except ValueError:
            yield from _values(text, at)
            return
        at += len(line) + 1


def _values(text: str, at: int) -> Iterator[Any]:
    """Values that are not one a line, from a place in the text on."""
    decoder = json.JSONDecoder()
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except ValueError as error:
            raise _damaged(error) from None
        except RecursionError:
            raise _too_deep() from None
        yield value
        while at < len(text) and text[at] in " \n\t,":
            at += 1


def _damaged(error: ValueError) -> Quarantined:
    place = f"line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else None
    return Quarantined("damaged", f"The JSON is damaged: {error}.", place)


def _too_deep() -> Quarantined:
    return Quarantined("too_large", "The JSON is nested too deeply to be read.")


def _title(value: object) -> str | None:
    names = (value.get(key) for key in ("title", "name")) if isinstance(value, dict) else ()
    return next((name for name in names if isinstance(name, str) and name.strip()), None)


class _Writer:
    """Writes a value: what is small as lines, arrays of like objects as tables, the rest as sections."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder

    def write(self, value: object, path: tuple[str, ...], level: int) -> None:
        if isinstance(value, dict) and level <= _MAX_LEVEL:
            self._object(value, path, level)
        elif isinstance(value, list) and level <= _MAX_LEVEL:
            self._array(value, path, level)
        else:
            self._builder.add("paragraph", "\n".join(_lines(value, "")))

    def _object(self, value: Mapping[str, object], path: tuple[str, ...], level: int) -> None:
        small: list[str] = []
        large: list[str] = []
        for key, member in value.items():
            if _is_small(member):
                small.extend(_lines(member, key))
            else:
                large.append(key)
        self._builder.add("paragraph", "\n".join(small))
        for key in large:
            self._builder.add("heading", key or '""', level=level)
            self.write(value[key], (*path, key), level + 1)

    def _array(self, value: Sequence[object], path: tuple[str, ...], level: int) -> None:
        if rows := _table(value):
            self._builder.table(rows)
            return
        if all(not isinstance(member, dict | list) for member in value):
            self._builder.add("list", "\n".join(f"- {_shown(member)}" for member in value))
            return
        for number, member in enumerate(value, 1):
            if _is_small(member):
                self._builder.add("paragraph", "\n".join(_lines(member, "")))
            else:
                named = _title(member) or " ".join((*path[-1:], str(number)))
                self._builder.add("heading", named, level=level)
                self.write(member, (*path, str(number)), level + 1)


def _is_small(value: object) -> bool:
    """Whether a value takes only some lines; tells without walking all of a large one."""
    if isinstance(value, list) and len(value) > 1 and all(isinstance(v, dict) for v in value):
        return False
    lines = _lines(value, "")
    return next((False for at, _ in enumerate(lines) if at >= _SMALL), True)


def _lines(value: object, path: str) -> Iterator[str]:
    """`path: value`, a line for each leaf; an array of plain values in one."""
    stack: list[tuple[str, object]] = [(path, value)]
    while stack:
        where, at = stack.pop()
        if isinstance(at, dict) and at:
            stack.extend((f"{where}.{key}" if where else key, member) for key, member in reversed(at.items()))
        elif isinstance(at, list) and any(isinstance(member, dict | list) for member in at):
            stack.extend((f"{where}[{n}]", member) for n, member in reversed(list(enumerate(at, 1))))
        else:
            shown = ", ".join(map(_shown, at)) if isinstance(at, list) else "" if at == {} else _shown(at)
            yield f"{where}: {shown}".rstrip() if where else shown


def _table(value: Sequence[object]) -> list[list[str]] | None:
    """Objects with nearly the same keys and short, plain values, as rows under their keys."""
    if len(value) < 2:
        return None
    keys: dict[str, None] = {}
    filled = 0
    for member in value:
        if not isinstance(member, dict) or not all(_is_cell(cell) for cell in member.values()):
            return None
        keys.update(dict.fromkeys(member))
        filled += len(member)
    if not keys or filled * 2 < len(keys) * len(value):
        return None
    rows = [[_cell(member.get(key)) for key in keys] for member in value if isinstance(member, dict)]
    return [list(keys), *rows]


def _is_cell(value: object) -> bool:
    if isinstance(value, list):
        return len(value) <= _SMALL and all(not isinstance(v, dict | list) and _is_cell(v) for v in value)
    return not isinstance(value, dict) and not (isinstance(value, str) and len(value) > _LONG_CELL)


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return "" if value is None else _shown(value)


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)
