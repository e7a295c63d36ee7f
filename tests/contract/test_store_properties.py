"""Every store against the oracle in memory, over random documents and random filters.

The same filter lets the same rows through everywhere, dense search finds them in the same order, keyword
search finds the same rows and ranks them nearly alike. Texts that would be code, were they ever read as an
expression, are among the names, values and groups.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from retrieval.stores.memory import MemoryStore
from retrieval.types import (
    And,
    Condition,
    Dense,
    Exists,
    Filter,
    Hit,
    Keyword,
    MetadataValue,
    Not,
    OneOf,
    Or,
    Range,
    Row,
)
from tests.contract.rows import DIMENSION, SPEC, row
from tests.contract.stores import HOSTILE, SERVED, MakeStore, maker

DATES = (
    "2024-03-01",
    "2024-03-01T00:00:00Z",
    "2024-03-01T01:00:00+01:00",
    "2024-03-01T00:00:00.000001Z",
    "2024-02-29T23:59:59.999999Z",
    "2023-12-31",
    "1969-12-31T23:59",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59.999999-14:00",
)
NO_DATES = ("2024-3-1", "2023-02-29", "20240301", "2024-03-01 00:00", "2024-W10", "2024")
EDGES = (
    *(0, -0.0, 1, 1.0, -1, 0.5, 2**53, 2**53 + 1, float(2**53), 2**60, 2**60 + 1, 2**63 - 1, -(2**63)),
    *(1e300, -1e300, 5e-324, -5e-324, 0.1, float(2**63)),
)

names = st.sampled_from(["a", "b", HOSTILE[0], HOSTILE[5], HOSTILE[9]])
tenants = st.sampled_from(["t", "t ", HOSTILE[1]])
fields = st.sampled_from(["k", "k", "k", "l", HOSTILE[0], HOSTILE[8]])
numbers = st.one_of(
    st.sampled_from(EDGES),
    st.sampled_from(EDGES),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-3, 3),
)
texts = st.sampled_from(["", "a", "b", "A", " a", "true", "1", *HOSTILE, *DATES, *NO_DATES])
scalars = st.one_of(st.booleans(), numbers, texts)
metadata = st.dictionaries(
    fields, st.one_of(scalars, st.lists(st.sampled_from(["a", "b", "1", HOSTILE[3], DATES[0]]), max_size=3))
)
words = st.lists(st.sampled_from(["apple", "pear", "plum", "fig", "the", "ünï"]), max_size=12)


def ranges(bounds: st.SearchStrategy[int | float | str]) -> st.SearchStrategy[Condition]:
    lower, upper = st.sampled_from(["gt", "gte"]), st.sampled_from(["lt", "lte"])
    return st.one_of(
        st.builds(lambda f, op, v: Range(field=f, **{op: v}), fields, st.one_of(lower, upper), bounds),
        st.builds(
            lambda f, lo, a, hi, b: Range(field=f, **{lo: a, hi: b}), fields, lower, bounds, upper, bounds
        ),
    )


leaves = st.one_of(
    st.builds(OneOf, fields, st.lists(scalars, min_size=1, max_size=6).map(tuple)),
    st.builds(Exists, fields),
    ranges(numbers),
    ranges(st.sampled_from(DATES)),
)
conditions: st.SearchStrategy[Condition] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.lists(inner, min_size=1, max_size=3).map(tuple).map(And),
        st.lists(inner, min_size=1, max_size=3).map(tuple).map(Or),
    ),
    max_leaves=5,
)
filters = st.builds(
    Filter,
    tenant=tenants,
    groups=st.none() | st.frozensets(names, max_size=2),
    collections=st.lists(names, max_size=2).map(tuple),
    document_ids=st.just(()) | st.lists(names, max_size=2).map(tuple),
    where=st.none() | conditions,
)
conditioned = st.builds(Filter, tenant=st.just("t"), groups=st.none(), where=conditions)
"""Mostly the whole tenant, so that what is tried is the condition."""


@st.composite
def corpora(draw: st.DrawFn) -> list[Row]:
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return [_row(draw, number, random) for number in range(draw(st.integers(1, 30)))]


def _row(draw: st.DrawFn, number: int, random: np.random.Generator) -> Row:
    vector = random.standard_normal(DIMENSION)
    return row(
        number,
        vector=np.asarray(vector / np.linalg.norm(vector), np.float32),
        tenant=draw(tenants),
        collection=draw(names),
        document_id=draw(names),
        groups=draw(st.frozensets(names, max_size=2)),
        metadata=draw(metadata),
        terms=" ".join(draw(words)),
    )


@pytest.fixture(params=SERVED)
def make_store(request: pytest.FixtureRequest) -> MakeStore:
    return maker(request)


def _same_order(found: Sequence[Hit], expected: Sequence[Hit]) -> None:
    """The same rows with the same scores, those that differ by more than a rounding in the same order."""
    assert {hit.chunk.id for hit in found} == {hit.chunk.id for hit in expected}
    scores = {hit.chunk.id: hit.score for hit in expected}
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-5)
    assert [scores[hit.chunk.id] for hit in found] == pytest.approx(sorted(scores.values())[::-1], abs=1e-5)


def _much_the_same(found: Sequence[Hit], expected: Sequence[Hit]) -> None:
    """The same rows; of the best five at least four."""
    assert {hit.chunk.id for hit in found} == {hit.chunk.id for hit in expected}
    best = {hit.chunk.id for hit in expected[:5]}
    level = expected[4].score - 1e-4 if len(expected) > 4 else 0
    tied = {hit.chunk.id for hit in expected if hit.score >= level}
    assert len({hit.chunk.id for hit in found[:5]} & (best | tied)) >= min(4, len(expected))


async def _compare(
    make_store: MakeStore, rows: list[Row], asked: list[Filter], exclude: frozenset[int]
) -> None:
    generation = uuid.uuid4().hex[:16]
    oracle, store = MemoryStore(), make_store()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        for one in (oracle, store):
            await one.prepare(generation, SPEC)
            stack.push_async_callback(one.drop, generation)
            await one.upsert(generation, rows)
        for number, where in enumerate(asked):
            dense = Dense(rows[number % len(rows)].vector)
            expected = await oracle.search(generation, dense, where, 100, exclude)
            found = await store.search(generation, dense, where, 100, exclude)
            _same_order(found, expected)
            vectors = {row.chunk.id: row.vector for row in rows}
            for hit in found:
                assert hit.vector == pytest.approx(vectors[hit.chunk.id], abs=1e-6)
            if number % 3 == 0:
                words = Keyword("apple fig ünï")
                best = await oracle.search(generation, words, where, 100, exclude)
                _much_the_same(await store.search(generation, words, where, 100, exclude), best)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(
    rows=corpora(),
    asked=st.lists(st.one_of(filters, conditioned), min_size=25, max_size=40),
    exclude=st.frozensets(st.integers(0, 11), max_size=4),
)
def test_a_store_answers_every_filter_as_the_oracle_does(
    make_store: MakeStore, rows: list[Row], asked: list[Filter], exclude: frozenset[int]
) -> None:
    asyncio.run(_compare(make_store, rows, asked, exclude))


def test_every_bound_divides_every_value_as_the_oracle_says(make_store: MakeStore) -> None:
    values: list[MetadataValue] = [*EDGES, *DATES, *NO_DATES, True, False, [DATES[0]], [], "1"]
    rows = [row(n, tenant="t", metadata={"k": value, "other": 7}) for n, value in enumerate(values)]
    rows.append(row(len(rows), tenant="t"))
    bounds: Iterable[tuple[str, Any]] = product(("gt", "gte", "lt", "lte"), [*EDGES, *DATES])
    asked: list[Condition] = [Range(field="k", **{operator: bound}) for operator, bound in bounds]
    asked += [OneOf("k", (value,)) for value in values if not isinstance(value, list)]
    asked += [Exists("k"), *map(Not, asked[::5])]
    filters = [Filter(tenant="t", groups=None, where=condition) for condition in asked]
    asyncio.run(_compare(make_store, rows, filters, frozenset()))
