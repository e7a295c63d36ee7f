"""What every store does, tried on the oracle in memory, a real Milvus Lite server, and Weaviate: a real one
where WEAVIATE_URL names it, else a stand-in that speaks its protocol.

The memory store says what is right; where both can be asked, the answers are compared.
"""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest

from retrieval.errors import FilterInvalid, RowInvalid, StoreUnavailable
from retrieval.stores.memory import MemoryStore
from retrieval.types import (
    And,
    Condition,
    Exists,
    Filter,
    Keyword,
    MetadataValue,
    Not,
    OneOf,
    Query,
    Range,
    Store,
)
from tests.contract.rows import ANYTHING, SPEC, everyone, ids, near, row
from tests.contract.stores import EVERY, HOSTILE, SERVED, At, MakeStore, maker, opener


@pytest.fixture(params=EVERY)
def make_store(request: pytest.FixtureRequest) -> MakeStore:
    return maker(request)


@pytest.fixture(params=SERVED)
def at(request: pytest.FixtureRequest) -> At:
    return opener(request)


@pytest.fixture
async def store(make_store: MakeStore) -> AsyncIterator[Store]:
    store = make_store()
    yield store
    await store.close()


@pytest.fixture
async def generation(store: Store) -> AsyncIterator[str]:
    """A prepared, empty generation of this test's own."""
    name = uuid.uuid4().hex[:16]
    await store.prepare(name, SPEC)
    yield name
    await store.drop(name)


DEEP: Condition = Exists("k")
for _ in range(8):
    DEEP = Not(DEEP)


# What was written is found


async def test_a_row_is_found_as_soon_as_its_upsert_returned(store: Store, generation: str) -> None:
    for revision in range(1, 9):
        await store.upsert(generation, [row(revision, terms=f"word{revision}")])
        assert await ids(store, generation, everyone(), Keyword(f"word{revision}")) == [f"{revision}-0"]
        assert len(await ids(store, generation, everyone())) == revision


async def test_rows_written_at_the_same_time_are_all_found(store: Store, generation: str) -> None:
    async def lane(first: int) -> None:
        for revision in range(first, first + 10):
            await store.upsert(generation, [row(revision, part) for part in range(5)])
            found = await ids(store, generation, everyone(document_ids=(f"doc-{revision}",)))
            assert len(found) == 5

    await asyncio.gather(*(lane(first) for first in (100, 200, 300)))
    assert len(await ids(store, generation, everyone(), limit=500)) == 150


async def test_a_chunk_comes_back_as_it_was_written(store: Store, generation: str) -> None:
    metadata: dict[str, MetadataValue] = {
        "whole": 3,
        "huge": 2**70,
        "part": 0.1,
        "one": 1.0,
        "yes": True,
        "list": ["a", "", "ü🎉"],
        **{f"hostile {number}": text for number, text in enumerate(HOSTILE)},
    }
    written = row(7, 12, groups=["hr", "board"], metadata=metadata, text="".join(HOSTILE))
    await store.upsert(generation, [written])

    (hit,) = await store.search(generation, ANYTHING, everyone(), 5, frozenset())
    assert hit.chunk == written.chunk
    assert type(hit.chunk.metadata["one"]) is float
    assert type(hit.chunk.metadata["yes"]) is bool
    assert await store.read(generation, "acme", ["7-12"]) == [written.chunk]


async def test_a_repeated_upsert_replaces_and_does_not_double(store: Store, generation: str) -> None:
    await store.upsert(generation, [row(1, text="old", terms="old"), row(1, 1)])
    await store.upsert(generation, [row(1, text="new", terms="new"), row(1, 1)])

    assert sorted(await ids(store, generation, everyone())) == ["1-0", "1-1"]
    assert await ids(store, generation, everyone(), Keyword("old")) == []
    (hit,) = await store.search(generation, Keyword("new"), everyone(), 5, frozenset())
    assert hit.chunk.text == "new"


async def test_of_a_chunk_id_twice_in_one_upsert_the_last_one_stays(store: Store, generation: str) -> None:
    await store.upsert(generation, [row(1, text="old"), row(1, text="new")])
    assert [chunk.text for chunk in await store.read(generation, "acme", ["1-0"])] == ["new"]


async def test_an_upsert_of_many_rows_writes_them_all(store: Store, generation: str) -> None:
    await store.upsert(generation, [row(1, part) for part in range(600)])
    assert len(await ids(store, generation, everyone(), limit=1000)) == 600


async def test_an_upsert_of_nothing_is_no_error(store: Store, generation: str) -> None:
    await store.upsert(generation, [])
    assert await ids(store, generation, everyone()) == []


async def test_an_empty_generation_finds_nothing(store: Store, generation: str) -> None:
    assert await ids(store, generation, everyone()) == []
    assert await ids(store, generation, everyone(), Keyword("word")) == []
    assert await store.read(generation, "acme", ["1-0"]) == []


# Dense and keyword search


async def test_dense_search_orders_by_cosine(store: Store, generation: str) -> None:
    shares = [0.2, 0.9, 0.5, 0.7, -0.3, 0.99]
    await store.upsert(generation, [row(n, vector=near(share)) for n, share in enumerate(shares)])

    hits = await store.search(generation, ANYTHING, everyone(), 100, frozenset())
    assert [hit.chunk.id for hit in hits] == ["5-0", "1-0", "3-0", "2-0", "0-0", "4-0"]
    assert [hit.score for hit in hits] == pytest.approx([0.99, 0.9, 0.7, 0.5, 0.2, -0.3], abs=1e-5)


async def test_rows_of_the_same_score_come_in_the_order_of_their_ids(store: Store, generation: str) -> None:
    await store.upsert(generation, [row(revision, terms="same") for revision in (5, 3, 4, 1, 2)])
    expected = ["1-0", "2-0", "3-0", "4-0", "5-0"]
    assert await ids(store, generation, everyone()) == expected
    assert await ids(store, generation, everyone(), Keyword("same")) == expected


@pytest.mark.parametrize("query", [ANYTHING, Keyword("word")], ids=["dense", "keyword"])
async def test_a_search_returns_no_more_than_its_limit(store: Store, generation: str, query: Query) -> None:
    await store.upsert(
        generation, [row(n, vector=near(1 - n / 20), terms="word " * (20 - n)) for n in range(12)]
    )
    assert await ids(store, generation, everyone(), query, limit=3) == ["0-0", "1-0", "2-0"]
    assert await ids(store, generation, everyone(), query, limit=0) == []


async def test_keyword_scores_are_above_zero_and_fall(store: Store, generation: str) -> None:
    await store.upsert(generation, [row(n, terms="apple " * (4 - n) + "pear " * 3) for n in range(3)])
    hits = await store.search(generation, Keyword("apple"), everyone(), 10, frozenset())
    assert [hit.chunk.id for hit in hits] == ["0-0", "1-0", "2-0"]
    assert all(hit.score > 0 for hit in hits)
    assert hits[0].score > hits[1].score > hits[2].score


async def test_a_rare_term_counts_more_than_a_common_one(store: Store, generation: str) -> None:
    rows = [row(n, terms="common filler") for n in range(20)]
    await store.upsert(generation, [*rows, row(50, terms="rare filler")])
    assert (await ids(store, generation, everyone(), Keyword("common rare")))[0] == "50-0"


async def test_keyword_search_finds_only_rows_that_share_a_term(store: Store, generation: str) -> None:
    rows = [row(1, terms="apple pear"), row(2, terms="plum"), row(3, terms="")]
    await store.upsert(generation, rows)
    assert await ids(store, generation, everyone(), Keyword("pear nothing")) == ["1-0"]
    assert await ids(store, generation, everyone(), Keyword("nothing")) == []
    assert await ids(store, generation, everyone(), Keyword("")) == []
    assert len(await ids(store, generation, everyone())) == 3


@pytest.mark.parametrize(
    "term", ["the", "a", "not", "e1042", "x" * 64, "straße", "日", "ไทย", "running", "42"]
)
async def test_terms_are_matched_as_the_analyzer_wrote_them(store: Store, generation: str, term: str) -> None:
    await store.upsert(generation, [row(1, terms=f"other {term} words"), row(2, terms=f"{term}x run words")])
    assert await ids(store, generation, everyone(), Keyword(term)) == ["1-0"]


async def test_keyword_ranking_agrees_with_textbook_bm25(store: Store, generation: str) -> None:
    random = np.random.default_rng(7)
    words = np.array([f"w{n}" for n in range(200)])
    likely = 1 / np.arange(1, 201)
    rows = [
        row(n, terms=" ".join(random.choice(words, random.integers(5, 60), p=likely / likely.sum())))
        for n in range(300)
    ]
    oracle = MemoryStore()
    await oracle.prepare(generation, SPEC)
    await oracle.upsert(generation, rows)
    await store.upsert(generation, rows)

    for _ in range(10):
        query = Keyword(" ".join(random.choice(words[10:], 4)))
        best = await oracle.search(generation, query, everyone(), 20, frozenset())
        hits = await store.search(generation, query, everyone(), 20, frozenset())
        assert [hit.chunk.id for hit in hits] == [hit.chunk.id for hit in best]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in best], rel=1e-4)


async def test_a_row_that_was_added_alone_is_found_by_its_words_like_any_other(
    store: Store, generation: str
) -> None:
    rows = [row(n, terms=f"pump valve gasket seal word{n % 7} word{n % 11}") for n in range(300)]
    late = row(1_000, terms="pump valve manometer")
    oracle = MemoryStore()
    await oracle.prepare(generation, SPEC)
    for written in (store, oracle):
        await written.upsert(generation, rows)
        await written.upsert(generation, [late])
    query = Keyword("manometer word3 word5")
    best = await oracle.search(generation, query, everyone(), 10, frozenset())
    hits = await store.search(generation, query, everyone(), 10, frozenset())
    assert hits[0].chunk.id == "1000-0"
    assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in best], rel=1e-4)


# Filters


async def test_no_tenant_finds_or_reads_anothers_rows(store: Store, generation: str) -> None:
    tenants = ["acme", "acme2", "ACME", "other", *HOSTILE]
    rows = [row(n, tenant=tenant, terms="word") for n, tenant in enumerate(tenants)]
    await store.upsert(generation, rows)
    every = [one.chunk.id for one in rows]

    for number, tenant in enumerate(tenants):
        assert await ids(store, generation, everyone(tenant)) == [f"{number}-0"]
        assert await ids(store, generation, everyone(tenant), Keyword("word")) == [f"{number}-0"]
        assert [c.tenant for c in await store.read(generation, tenant, every)] == [tenant]
    assert await ids(store, generation, everyone("nobody")) == []


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (None, {"1-0", "2-0", "3-0", "4-0"}),
        (frozenset(), {"1-0"}),
        (frozenset({"hr"}), {"1-0", "2-0", "3-0"}),
        (frozenset({"board", "none"}), {"1-0", "3-0"}),
        (frozenset({"h"}), {"1-0"}),
        (frozenset({"*", "|", "everybody", ""}), {"1-0"}),
        (frozenset({HOSTILE[0]}), {"1-0", "4-0"}),
    ],
)
async def test_a_reader_finds_open_rows_and_those_of_a_group_of_theirs(
    store: Store, generation: str, groups: frozenset[str] | None, expected: set[str]
) -> None:
    lists: list[list[str]] = [[], ["hr"], ["hr", "board"], [HOSTILE[0]]]
    rows = [row(n, groups=names, terms="word") for n, names in enumerate(lists, start=1)]
    await store.upsert(generation, rows)
    where = Filter(tenant="acme", groups=groups)
    assert set(await ids(store, generation, where)) == expected
    assert set(await ids(store, generation, where, Keyword("word"))) == expected


async def test_only_the_named_collections_and_documents_are_searched(store: Store, generation: str) -> None:
    rows = [
        row(n, collection=collection, document_id=document)
        for n, (collection, document) in enumerate([("a", "x"), ("a", "y"), ("b", "x"), (HOSTILE[2], "z")])
    ]
    await store.upsert(generation, rows)
    cases: list[tuple[tuple[str, ...], tuple[str, ...], list[str]]] = [
        (("a",), (), ["0-0", "1-0"]),
        (("a", "b"), ("x",), ["0-0", "2-0"]),
        ((HOSTILE[2],), (), ["3-0"]),
        (("c",), (), []),
        ((), ("x", "z", "nothing"), ["0-0", "2-0", "3-0"]),
    ]
    for collections, documents, expected in cases:
        where = everyone(collections=collections, document_ids=documents)
        assert await ids(store, generation, where) == expected


async def test_metadata_conditions_compare_by_type_and_value(store: Store, generation: str) -> None:
    values: list[MetadataValue] = [1, 1.0, True, "1", "true", ["1", "x"], 0, False, 2.5, -0.0, 2**60, []]
    await store.upsert(generation, [row(n, metadata={"k": value}) for n, value in enumerate(values)])
    cases: list[tuple[str | int | float | bool, set[int]]] = [
        (1, {0, 1}),
        (1.0, {0, 1}),
        (True, {2}),
        ("1", {3, 5}),
        ("true", {4}),
        ("x", {5}),
        (0, {6, 9}),
        (False, {7}),
        (2.5, {8}),
        (2**60, {10}),
        (2**60 + 1, set()),
        ("", set()),
    ]
    for asked, expected in cases:
        found = await ids(store, generation, everyone(where=OneOf("k", (asked,))))
        assert set(found) == {f"{n}-0" for n in expected}, asked


async def test_hostile_metadata_finds_itself_and_nothing_else(store: Store, generation: str) -> None:
    fields = [name for name in HOSTILE if name.isprintable()]
    rows = [row(n, metadata={"k": text}) for n, text in enumerate(HOSTILE)]
    rows += [row(100 + n, metadata={field: "v"}) for n, field in enumerate(fields)]
    await store.upsert(generation, rows)
    for number, text in enumerate(HOSTILE):
        assert await ids(store, generation, everyone(where=OneOf("k", (text,)))) == [f"{number}-0"]
    for number, field in enumerate(fields):
        assert await ids(store, generation, everyone(where=OneOf(field, ("v",)))) == [f"{100 + number}-0"]


async def test_conditions_are_all_required_and_their_values_alternatives(
    store: Store, generation: str
) -> None:
    rows = [
        row(1, metadata={"year": 2024, "tags": ["hr", "law"]}),
        row(2, metadata={"year": 2025, "tags": ["hr"]}),
        row(3, metadata={"year": 2025}),
    ]
    await store.upsert(generation, rows)
    both = And((OneOf("year", (2025, 2026)), OneOf("tags", ("hr", "it"))))
    assert await ids(store, generation, everyone(where=both)) == ["2-0"]
    assert await ids(store, generation, everyone(where=OneOf("year", (2024, 2025)))) == [
        "1-0",
        "2-0",
        "3-0",
    ]


async def test_a_document_with_many_values_and_groups_is_found_by_each(store: Store, generation: str) -> None:
    tags = [f"tag{n}" for n in range(40)]
    numbers: dict[str, MetadataValue] = {f"n{n}": n for n in range(16)}
    many = row(1, metadata={**numbers, "tags": tags, "empty": []}, groups=[f"g{n}" for n in range(20)])
    await store.upsert(generation, [many, row(2, metadata={"tags": tags[1:]}, groups=["other"])])

    conditions: list[Condition] = [
        OneOf("tags", ("tag0",)),
        Range(field="n15", gt=14, lt=16),
        Exists("empty"),
    ]
    for condition in conditions:
        assert await ids(store, generation, everyone(where=condition)) == ["1-0"]
        assert await ids(store, generation, everyone(where=Not(condition))) == ["2-0"]
    assert await ids(store, generation, everyone(where=OneOf("tags", ("tag39",)))) == ["1-0", "2-0"]
    for name in ("g0", "g19"):
        assert await ids(store, generation, Filter(tenant="acme", groups=frozenset({name}))) == ["1-0"]


async def test_a_hit_brings_its_vector(store: Store, generation: str) -> None:
    await store.upsert(generation, [row(n, vector=near(n / 10), terms="word") for n in range(5)])
    for query in (ANYTHING, Keyword("word")):
        for hit in await store.search(generation, query, everyone(), 5, frozenset()):
            assert hit.vector == pytest.approx(near(hit.chunk.revision / 10), abs=1e-6)


@pytest.mark.parametrize(
    "where",
    [
        Filter(tenant="", groups=None),
        everyone(where=OneOf("", ("x",))),
        everyone(where=OneOf("k" * 201, ("x",))),
        everyone(where=OneOf("a\nb", ("x",))),
        everyone(where=OneOf("k", ())),
        everyone(where=OneOf("k", tuple(range(201)))),
        everyone(where=OneOf("k", (2**63,))),
        everyone(where=And(())),
        everyone(where=And((Exists("k"),) * 51)),
        everyone(where=DEEP),
        everyone(where=Range(field="k")),
        everyone(where=Range(field="k", gt=1, gte=1)),
        everyone(where=Range(field="k", gt="tomorrow")),
        everyone(where=Range(field="k", gt=True)),
        everyone(where=Range(field="k", gt=1, lt="2024-01-01")),
        everyone(where=OneOf("k", (float("nan"),))),
        everyone(where=OneOf("k", (None,))),  # type: ignore[arg-type]
        everyone(where=OneOf("k", (["x"],))),  # type: ignore[arg-type]
        everyone(where=OneOf("k", ("\ud800",))),
        everyone(document_ids=("\udfff",)),
    ],
)
async def test_a_malformed_filter_is_refused(store: Store, generation: str, where: Filter) -> None:
    with pytest.raises(FilterInvalid):
        await ids(store, generation, where)


async def test_excluded_revisions_are_not_found_and_leave_room_for_others(
    store: Store, generation: str
) -> None:
    await store.upsert(generation, [row(n, vector=near(1 - n / 20), terms="word") for n in range(8)])
    assert await ids(store, generation, everyone(), limit=3, exclude=[0, 2, 99]) == ["1-0", "3-0", "4-0"]
    assert len(await ids(store, generation, everyone(), Keyword("word"), exclude=range(7))) == 1


# Reading, removing, dropping


async def test_chunks_are_read_in_the_order_asked_for(store: Store, generation: str) -> None:
    await store.upsert(generation, [row(1), row(2), row(3), row(4, tenant="other")])
    read = await store.read(generation, "acme", ["3-0", "unknown", "1-0", "4-0", '"; 2-0', "2-0"])
    assert [chunk.id for chunk in read] == ["3-0", "1-0", "2-0"]
    assert await store.read(generation, "acme", []) == []


async def test_many_chunks_are_read_at_once(store: Store, generation: str) -> None:
    await store.upsert(generation, [row(1, part) for part in range(600)])
    asked = [f"1-{part}" for part in range(599, -1, -1)]
    assert [chunk.id for chunk in await store.read(generation, "acme", asked)] == asked


async def test_a_removed_revision_is_neither_found_nor_read(store: Store, generation: str) -> None:
    await store.upsert(generation, [row(n, part, terms="word") for n in (1, 2, 3) for part in (0, 1)])
    await store.remove(generation, [1, 3])

    assert await ids(store, generation, everyone()) == ["2-0", "2-1"]
    assert await ids(store, generation, everyone(), Keyword("word")) == ["2-0", "2-1"]
    assert await store.read(generation, "acme", ["1-0", "3-1"]) == []


async def test_many_revisions_are_removed_at_once(store: Store, generation: str) -> None:
    await store.upsert(generation, [row(n) for n in range(600)])
    await store.remove(generation, range(1, 600))
    assert await ids(store, generation, everyone(), limit=1000) == ["0-0"]


async def test_removing_what_is_not_there_is_no_error(store: Store, generation: str) -> None:
    await store.upsert(generation, [row(1)])
    await store.remove(generation, [2, 999])
    await store.remove(generation, [])
    await store.remove("feedfeedfeedfeed", [1])
    assert await ids(store, generation, everyone()) == ["1-0"]


async def test_a_generation_is_a_world_of_its_own(store: Store, generation: str) -> None:
    other = uuid.uuid4().hex[:16]
    await store.prepare(other, SPEC)
    await store.upsert(generation, [row(1)])
    await store.upsert(other, [row(1, text="other"), row(2)])
    await store.remove(other, [2])
    await store.drop(other)

    assert await ids(store, generation, everyone()) == ["1-0"]


async def test_preparing_again_keeps_what_is_there(store: Store, generation: str) -> None:
    await store.upsert(generation, [row(1)])
    await store.prepare(generation, SPEC)
    assert await ids(store, generation, everyone()) == ["1-0"]


async def test_vectors_come_by_the_hash_of_their_text_for_their_own_tenant(
    store: Store, generation: str
) -> None:
    mine, other = row(1, vector=near(0.25)), row(2, vector=near(0.5), tenant="umbrella")
    second = replace(row(1, 1), vector=near(0.75), chunk=replace(row(1, 1).chunk, content_hash="d" * 64))
    await store.upsert(generation, [mine, second, other])

    kept = await store.vectors(generation, "acme", ["1-0", "1-1", "2-0", "9-9"])

    assert {key: vector.tolist() for key, vector in kept.items()} == {
        mine.chunk.content_hash: mine.vector.tolist(),
        "d" * 64: second.vector.tolist(),
    }
    assert await store.vectors(generation, "acme", []) == {}


async def test_a_purge_changes_nothing_that_can_be_found(store: Store, generation: str) -> None:
    await store.upsert(generation, [row(1), row(2), row(3, 1)])
    await store.remove(generation, [2])

    await store.purge(generation)

    assert sorted(await ids(store, generation, everyone())) == ["1-0", "3-1"]
    await store.upsert(generation, [row(4)])
    assert sorted(await ids(store, generation, everyone(), Keyword("text"))) == ["1-0", "3-1", "4-0"]
    assert await store.purge(uuid.uuid4().hex[:16]) is True


async def test_a_dropped_generation_is_gone_until_it_is_prepared_again(store: Store, generation: str) -> None:
    await store.upsert(generation, [row(1)])
    await store.drop(generation)
    await store.drop(generation)
    with pytest.raises(StoreUnavailable, match=f"{generation} is not prepared"):
        await ids(store, generation, everyone())

    await store.prepare(generation, SPEC)
    assert await ids(store, generation, everyone()) == []
    await store.upsert(generation, [row(2)])
    assert await ids(store, generation, everyone()) == ["2-0"]

    await store.drop(generation)
    await store.prepare(generation, SPEC)
    await store.upsert(generation, [row(3)])
    assert await ids(store, generation, everyone()) == ["3-0"]


async def test_a_generation_that_was_never_prepared_is_a_fault(store: Store) -> None:
    unknown = uuid.uuid4().hex[:16]
    with pytest.raises(StoreUnavailable, match="not prepared"):
        await ids(store, unknown, everyone())
    with pytest.raises(StoreUnavailable, match="not prepared"):
        await store.read(unknown, "acme", ["1-0"])
    with pytest.raises(StoreUnavailable, match="not prepared"):
        await store.upsert(unknown, [row(1)])


# What a served store does


@pytest.mark.parametrize("make_store", SERVED, indirect=True)
async def test_another_client_sees_what_this_one_wrote(make_store: MakeStore) -> None:
    writer, reader = make_store(), make_store()
    generation = uuid.uuid4().hex[:16]
    await writer.prepare(generation, SPEC)
    try:
        await writer.upsert(generation, [row(1)])
        assert await ids(reader, generation, everyone()) == ["1-0"]
        await reader.prepare(generation, SPEC)
        await writer.remove(generation, [1])
        assert await ids(reader, generation, everyone()) == []
    finally:
        await writer.drop(generation)
        await writer.close()
        await reader.close()


@pytest.mark.parametrize("make_store", SERVED, indirect=True)
async def test_clients_that_prepare_a_generation_at_once_can_all_write_it(make_store: MakeStore) -> None:
    """Every process does, when an instance starts."""
    clients = [make_store() for _ in range(6)]
    generation = uuid.uuid4().hex[:16]
    await asyncio.gather(*(client.ping() for client in clients))
    await asyncio.gather(*(client.prepare(generation, SPEC) for client in clients))
    try:
        for revision, client in enumerate(clients):
            await client.upsert(generation, [row(revision)])
        found = await ids(clients[0], generation, everyone())
        assert sorted(found) == [f"{revision}-0" for revision in range(len(clients))]
    finally:
        await clients[0].drop(generation)
        for client in clients:
            await client.close()


@pytest.mark.parametrize("make_store", SERVED, indirect=True)
async def test_a_generation_that_another_client_dropped_is_prepared_again(make_store: MakeStore) -> None:
    """So is one in a store that lost its data: who writes it need not be started again."""
    writer, other = make_store(), make_store()
    generation = uuid.uuid4().hex[:16]
    await writer.prepare(generation, SPEC)
    await other.drop(generation)
    with pytest.raises(StoreUnavailable):
        await writer.upsert(generation, [row(1)])
    await writer.prepare(generation, SPEC)
    try:
        await writer.upsert(generation, [row(2)])
        assert await ids(writer, generation, everyone()) == ["2-0"]
    finally:
        await writer.drop(generation)
        await writer.close()
        await other.close()


@pytest.mark.parametrize("make_store", SERVED, indirect=True)
async def test_a_store_that_was_closed_can_be_opened_anew_with_all_rows(make_store: MakeStore) -> None:
    generation = uuid.uuid4().hex[:16]
    first = make_store()
    await first.prepare(generation, SPEC)
    await first.upsert(generation, [row(1)])
    await first.close()
    second = make_store()
    try:
        await second.ping()
        assert await ids(second, generation, everyone()) == ["1-0"]
    finally:
        await second.drop(generation)
        await second.close()


@pytest.mark.parametrize("make_store", SERVED, indirect=True)
async def test_text_that_is_no_unicode_is_refused_with_all_rows_of_its_call(
    store: Store, generation: str
) -> None:
    with pytest.raises(RowInvalid, match="'2-0'"):
        await store.upsert(generation, [row(1), row(2, text="\ud800")])
    assert await ids(store, generation, everyone()) == []


@pytest.mark.parametrize("answers", [False, True], ids=["nobody listens", "silent"])
async def test_every_call_to_a_store_that_is_away_is_a_typed_error_in_time(at: At, answers: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if not answers:
            server.close()
        store = at(f"http://127.0.0.1:{port}", 0.3)
        calls = [
            *(store.ping(), store.prepare(SPEC.generation, SPEC), store.upsert(SPEC.generation, [row(1)])),
            *(ids(store, SPEC.generation, everyone(), query) for query in (ANYTHING, Keyword("text"))),
            *(store.read(SPEC.generation, "acme", ["1-0"]), store.vectors(SPEC.generation, "acme", ["1-0"])),
            *(store.remove(SPEC.generation, [1]), store.purge(SPEC.generation), store.drop(SPEC.generation)),
        ]
        async with asyncio.timeout(30):
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        await store.close()
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * len(calls)
