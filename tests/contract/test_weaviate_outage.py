"""The Weaviate store where its server is gone, silent or too old, and what it refuses."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import replace

import pytest
from weaviate.proto.v1 import batch_delete_pb2, batch_pb2

from app.settings import load_settings
from app.stores import open_store
from retrieval.errors import RowInvalid, StoreUnavailable
from retrieval.stores.weaviate import WeaviateStore
from retrieval.types import Keyword
from tests.contract.rows import ANYTHING, SPEC, everyone, row
from tests.losing import losing
from tests.weaviate_stand_in import MOST_AT_ONCE, Servicer, stand_in

GENERATION = SPEC.generation


async def found(store: WeaviateStore) -> set[int]:
    hits = await store.search(GENERATION, ANYTHING, everyone(), 100, frozenset())
    return {hit.chunk.revision for hit in hits}


async def test_every_call_to_a_server_that_is_gone_is_a_typed_error() -> None:
    with stand_in() as address:
        store = WeaviateStore(address.url, grpc_url=address.grpc_url, timeout=2)
        await store.prepare(GENERATION, SPEC)
        await store.upsert(GENERATION, [row(1)])
        assert await found(store) == {1}
    calls = [
        *(store.ping(), store.prepare(GENERATION, SPEC), store.upsert(GENERATION, [row(2)])),
        *(store.read(GENERATION, "acme", ["1-0"]), store.remove(GENERATION, [1]), store.drop(GENERATION)),
        store.search(GENERATION, Keyword("text"), everyone(), 5, frozenset()),
        found(store),
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * len(calls)
    await store.close()


async def test_the_settings_lead_to_it() -> None:
    with stand_in() as address:
        store = open_store(load_settings({}, weaviate_url=address.url, weaviate_grpc_url=address.grpc_url))
        await store.ping()
        await store.prepare(GENERATION, SPEC)
        await store.close()


async def test_a_silent_server_is_a_typed_error_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = WeaviateStore(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.3)
        async with asyncio.timeout(30):
            with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.3 s"):
                await store.ping()
        await store.close()


async def test_a_connection_that_leads_nowhere_is_given_up_for_another() -> None:
    with stand_in() as server:
        host, _, port = str(server.grpc_url).rpartition("//")[2].partition(":")
        async with losing(host, int(port)) as (address, lost):
            store = WeaviateStore(server.url, grpc_url=f"http://{address}", timeout=1.0)
            await store.prepare(GENERATION, SPEC)
            await store.upsert(GENERATION, [row(1)])
            lost.set()
            with pytest.raises(StoreUnavailable):
                await found(store)
            async with asyncio.timeout(20):
                while True:
                    with suppress(StoreUnavailable):
                        assert await found(store) == {1}
                        break
            await store.close()


async def test_a_server_that_cannot_negate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.weaviate_stand_in.VERSION", "1.32.9")
    with stand_in() as address:
        store = WeaviateStore(address.url, grpc_url=address.grpc_url)
        with pytest.raises(StoreUnavailable, match=r"1\.32\.9 is too old: 1\.33"):
            await store.ping()
        await store.close()


async def test_more_rows_than_a_server_deletes_at_once_are_removed() -> None:
    with stand_in() as address:
        store = WeaviateStore(address.url, grpc_url=address.grpc_url)
        await store.prepare(GENERATION, SPEC)
        await store.upsert(GENERATION, [row(1, n) for n in range(MOST_AT_ONCE + 10)] + [row(2)])
        await store.remove(GENERATION, [1])
        assert await store.read(GENERATION, "acme", [f"1-{n}" for n in range(600)]) == []
        assert await found(store) == {2}
        await store.close()


async def test_text_that_is_no_unicode_is_refused_whole() -> None:
    with stand_in() as address:
        store = WeaviateStore(address.url, grpc_url=address.grpc_url)
        await store.prepare(GENERATION, SPEC)
        good = row(2)
        bad = replace(good, chunk=replace(good.chunk, text="\ud800"))
        with pytest.raises(RowInvalid, match="text of chunk '2-0'"):
            await store.upsert(GENERATION, [row(1), bad])
        assert await found(store) == set()
        await store.close()


async def test_rows_that_a_server_did_not_write_or_remove_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer to the call as a whole is that all went well."""

    def unwritten(server: object, request: object, context: object) -> batch_pb2.BatchObjectsReply:
        error = batch_pb2.BatchObjectsReply.BatchError(index=0, error="the disk is full")
        return batch_pb2.BatchObjectsReply(errors=[error])

    def kept(server: object, request: object, context: object) -> batch_delete_pb2.BatchDeleteReply:
        return batch_delete_pb2.BatchDeleteReply(matches=1, failed=1)

    monkeypatch.setattr(Servicer, "BatchObjects", unwritten)
    monkeypatch.setattr(Servicer, "BatchDelete", kept)
    with stand_in() as address:
        store = WeaviateStore(address.url, grpc_url=address.grpc_url)
        await store.prepare(GENERATION, SPEC)
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            await store.upsert(GENERATION, [row(1), row(2)])
        with pytest.raises(StoreUnavailable, match="did not delete every row"):
            await store.remove(GENERATION, [1])
        await store.close()
