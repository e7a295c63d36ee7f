"""What only the Milvus store refuses: what its columns cannot hold, and an index of an earlier version."""

from __future__ import annotations

import uuid

import pytest
from pymilvus import AsyncMilvusClient, DataType

from retrieval.errors import RowInvalid, StoreUnavailable
from retrieval.stores.milvus import MilvusStore
from tests.contract.rows import SPEC, everyone, ids, row


async def test_a_row_that_milvus_cannot_hold_is_refused_whole(milvus_uri: str) -> None:
    milvus = MilvusStore(milvus_uri)
    generation = uuid.uuid4().hex[:16]
    await milvus.prepare(generation, SPEC)
    try:
        for bad in (row(2, text="é" * 40_000), row(2, text="\ud800")):
            with pytest.raises(RowInvalid, match="text of chunk '2-0'"):
                await milvus.upsert(generation, [row(1), bad])
        await milvus.upsert(generation, [row(3, text="é" * 32_767)])
        assert await ids(milvus, generation, everyone()) == ["3-0"]
    finally:
        await milvus.drop(generation)
        await milvus.close()


async def test_more_numbers_than_milvus_can_compare_are_refused(milvus_uri: str) -> None:
    milvus = MilvusStore(milvus_uri)
    with pytest.raises(RowInvalid, match="17 numbers and dates"):
        await milvus.upsert("any", [row(1, metadata={f"n{n}": n for n in range(17)})])
    await milvus.close()


async def test_an_index_of_an_earlier_version_is_refused_and_does_not_seem_empty(milvus_uri: str) -> None:
    generation = uuid.uuid4().hex[:16]
    async with AsyncMilvusClient(milvus_uri) as client:
        schema = client.create_schema()
        schema.add_field("id", DataType.VARCHAR, max_length=8, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
        await client.create_collection(f"pl_{generation}", schema=schema)
        milvus = MilvusStore(milvus_uri)
        with pytest.raises(StoreUnavailable, match="written by an earlier version"):
            await milvus.prepare(generation, SPEC)
        await milvus.close()
        await client.drop_collection(f"pl_{generation}")
