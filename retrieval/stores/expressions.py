"""Filters in Milvus's expression language, and the tokens that they look for.

Groups and metadata are stored as one string of fixed-length hashes, `|1f..|a0..|`, matched by LIKE. A hash
holds no character of what the caller wrote, so nothing can be injected; numbers, booleans and strings under
one name cannot be confused; and Milvus Lite evaluates LIKE over a column at once, where array and JSON
functions visit each row in Python (6 times the time on 6 000 rows). What is compared literally is quoted with
the escapes that Milvus and Milvus Lite both know.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b

from retrieval.types import Chunk, Filter, Scalar, Where

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def keys(chunk: Chunk) -> str:
    """What a stored chunk is found by: its groups, or that it has none, and each metadata value."""
    tokens = {_group(name) for name in chunk.groups} or {_EVERYBODY}
    for field, value in chunk.metadata.items():
        tokens.update(_fact(field, item) for item in (value if isinstance(value, list) else [value]))
    return f"|{'|'.join(sorted(tokens))}|"


def compile_filter(where: Filter, exclude: Collection[int]) -> str:
    """The expression of a checked filter, without the rows of the revisions in `exclude`."""
    parts = [f"tenant == {quoted(where.tenant)}"]
    if where.groups is not None:
        parts.append(_has_one([_EVERYBODY, *map(_group, sorted(where.groups))]))
    if where.collections:
        parts.append(is_one_of("collection", where.collections))
    if where.document_ids:
        parts.append(is_one_of("document_id", where.document_ids))
    parts += [_condition(condition) for condition in where.where]
    if exclude:
        parts.append(f"revision not in {sorted(exclude)}")
    return " and ".join(parts)


def is_one_of(field: str, values: Iterable[str]) -> str:
    return f"{field} in [{', '.join(map(quoted, values))}]"


def quoted(text: str) -> str:
    """A string literal. Every other character, control characters included, stands for itself in both."""
    return f'"{text.translate(_ESCAPES)}"'


def _condition(condition: Where) -> str:
    return _has_one([_fact(condition.field, value) for value in condition.values])


def _has_one(tokens: Sequence[str]) -> str:
    alternatives = " or ".join(f'keys like "%|{token}|%"' for token in tokens)
    return f"({alternatives})"


def _group(name: str) -> str:
    return _token("group", name)


def _fact(field: str, value: Scalar) -> str:
    if isinstance(value, bool):
        return _token("boolean", field, value)
    if isinstance(value, str):
        return _token("text", field, value)
    # 1 and 1.0 are the same number, and have different digits.
    whole = isinstance(value, int) or value.is_integer()
    return _token("number", field, str(int(value)) if whole else repr(value))


def _token(*parts: str | bool) -> str:
    """96 bits: two that collide will not be met, nor made on purpose."""
    return blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()


_EVERYBODY = _token("everybody")
