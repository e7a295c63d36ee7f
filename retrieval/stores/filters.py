"""What a filter means, in plain Python: which chunks it lets through, and which filters are refused.

The memory store filters with this; the other stores compile the same meaning into their own language.
"""

from __future__ import annotations

import math

from retrieval.errors import FilterInvalid
from retrieval.types import Chunk, Filter, MetadataValue, Scalar, Where

_LONGEST_FIELD = 200


def check(where: Filter) -> None:
    """Raise `FilterInvalid`, with a sentence for the caller, unless every store can answer this filter."""
    if not where.tenant:
        raise FilterInvalid("A filter must name a tenant.")
    texts = [where.tenant, *where.collections, *where.document_ids, *(where.groups or ())]
    for condition in where.where:
        _check_field(condition.field)
        if not condition.values:
            raise FilterInvalid(f"The condition on {condition.field!r} names no value.")
        texts += [value for value in condition.values if _is_text(condition.field, value)]
    if not all(map(_is_unicode, texts)):
        raise FilterInvalid("The filter holds text that is not valid Unicode.")


def matches(chunk: Chunk, where: Filter) -> bool:
    """Whether a search with this filter may find this chunk."""
    return (
        chunk.tenant == where.tenant
        and (where.groups is None or not chunk.groups or not where.groups.isdisjoint(chunk.groups))
        and (not where.collections or chunk.collection in where.collections)
        and (not where.document_ids or chunk.document_id in where.document_ids)
        and all(_holds(chunk, condition) for condition in where.where)
    )


def _holds(chunk: Chunk, condition: Where) -> bool:
    stored = chunk.metadata.get(condition.field)
    return stored is not None and any(_equal(stored, value) for value in condition.values)


def _equal(stored: MetadataValue, asked: Scalar) -> bool:
    if isinstance(stored, list):
        return isinstance(asked, str) and asked in stored
    return isinstance(stored, bool) == isinstance(asked, bool) and stored == asked


def _check_field(field: str) -> None:
    if not field or len(field) > _LONGEST_FIELD or not field.isprintable():
        raise FilterInvalid(
            f"A metadata field is named by 1 to {_LONGEST_FIELD} printable characters, not by {field[:50]!r}."
        )


def _is_text(field: str, value: object) -> bool:
    """Whether a value is a string; what is no value at all (JSON is typed by its sender) is refused."""
    if isinstance(value, str):
        return True
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return False
    raise FilterInvalid(f"The condition on {field!r} compares with {value!r}, no text, number or boolean.")


def _is_unicode(text: str) -> bool:
    """JSON can carry half of a surrogate pair, which no encoding of Unicode can."""
    return not any("\ud800" <= char <= "\udfff" for char in text)
