"""Which filters are refused, before any store is asked: the same ones everywhere."""

from __future__ import annotations

from retrieval import conditions
from retrieval.errors import FilterInvalid
from retrieval.types import Filter


def check(where: Filter) -> None:
    """Raise `FilterInvalid`, with a sentence for the caller, unless every store can answer this filter."""
    if not where.tenant:
        raise FilterInvalid("A filter must name a tenant.")
    texts = (where.tenant, *where.collections, *where.document_ids, *(where.groups or ()))
    if not all(map(conditions.is_unicode, texts)):
        raise FilterInvalid("The filter holds text that is not valid Unicode.")
    if where.where is not None:
        conditions.check(where.where)
