"""The Milvus store while its server is killed, restarted, frozen, or was never there."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from pymilvus import AsyncMilvusClient
from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc

from app import embedded
from retrieval.errors import StoreUnavailable
from retrieval.stores.milvus import MilvusStore
from retrieval.types import Keyword, Query
from tests.contract.rows import ANYTHING, SPEC, everyone, row
from tests.losing import losing

GENERATION = SPEC.generation
QUERIES: list[Query] = [ANYTHING, Keyword("text")]

SILENT_PINGS = {"grpc.http2.max_pings_without_data": 0, "grpc.keepalive_permit_without_calls": 1}


class Server:
    """A Milvus Lite of this test's own, always on the same port and folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = embedded.free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        part = embedded.milvus(self._folder, self._port)
        environment = {**os.environ, **part.environment}
        self._process = subprocess.Popen(
            part.command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        async with asyncio.timeout(60):
            while not await self._ready(part):
                await asyncio.sleep(0.1)

    def signal(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    async def _ready(self, part: embedded.Part) -> bool:
        try:
            await part.ready()
        except Exception:
            return False
        return True


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "milvus")
    yield server
    server.kill()


async def found(store: MilvusStore, query: Query) -> set[int]:
    hits = await store.search(GENERATION, query, everyone(), 100, frozenset())
    return {hit.chunk.revision for hit in hits}


async def until_found(store: MilvusStore, query: Query) -> set[int]:
    """What is found once the store answers again, which is soon; half a minute is for a busy machine."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await found(store, query)
            except StoreUnavailable:
                await asyncio.sleep(0.1)


async def test_a_killed_milvus_is_a_typed_error_and_recovers_by_itself(server: Server) -> None:
    await server.start()
    writer, reader = MilvusStore(server.url), MilvusStore(server.url)
    try:
        await writer.prepare(GENERATION, SPEC)
        await writer.upsert(GENERATION, [row(1)])
        assert await found(reader, QUERIES[0]) == {1}

        for life in (2, 3):
            server.kill()
            calls = [
                writer.upsert(GENERATION, [row(99)]),
                writer.remove(GENERATION, [99]),
                reader.read(GENERATION, "acme", ["1-0"]),
                reader.ping(),
                *(found(reader, query) for query in QUERIES * 3),
            ]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * len(calls)

            await server.start()
            expected = set(range(1, life))
            for query in QUERIES:
                assert await until_found(reader, query) == expected
            await writer.upsert(GENERATION, [row(life)])
            assert await found(reader, QUERIES[1]) == {*expected, life}
    finally:
        await writer.close()
        await reader.close()


async def test_nothing_acknowledged_is_lost_when_milvus_is_killed_while_it_is_written(
    server: Server,
) -> None:
    await server.start()
    store = MilvusStore(server.url)
    acknowledged: set[int] = set()

    async def lane(first: int) -> None:
        for revision in range(first, first + 200):
            await store.upsert(GENERATION, [row(revision)])
            acknowledged.add(revision)

    try:
        await store.prepare(GENERATION, SPEC)
        lanes = [asyncio.create_task(lane(first)) for first in (1000, 2000, 3000)]
        while len(acknowledged) < 6:
            await asyncio.sleep(0.01)
        server.kill()
        outcomes = await asyncio.gather(*lanes, return_exceptions=True)
        assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)

        await server.start()
        for query in QUERIES:
            assert await until_found(store, query) >= acknowledged
    finally:
        await store.close()


async def test_a_frozen_milvus_is_a_typed_error_in_time(server: Server) -> None:
    await server.start()
    writer, store = MilvusStore(server.url), MilvusStore(server.url, timeout=0.5)
    try:
        await writer.prepare(GENERATION, SPEC)
        await writer.upsert(GENERATION, [row(1)])
        assert await until_found(store, QUERIES[0]) == {1}
        server.signal(signal.SIGSTOP)
        async with asyncio.timeout(30):
            for call in (found(store, QUERIES[0]), store.upsert(GENERATION, [row(2)]), store.ping()):
                with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.5 s"):
                    await call
        server.signal(signal.SIGCONT)
        assert await until_found(store, QUERIES[1]) >= {1}
    finally:
        await writer.close()
        await store.close()


async def test_a_milvus_that_comes_later_is_used_when_it_is_there(server: Server) -> None:
    store = MilvusStore(server.url)
    try:
        with pytest.raises(StoreUnavailable):
            await store.ping()
        with pytest.raises(StoreUnavailable):
            await store.prepare(GENERATION, SPEC)
        await server.start()
        await store.prepare(GENERATION, SPEC)
        await store.upsert(GENERATION, [row(1)])
        assert await found(store, QUERIES[0]) == {1}
    finally:
        await store.close()


async def test_a_write_that_waits_for_its_flush_is_told_when_the_store_closes(server: Server) -> None:
    await server.start()
    store = MilvusStore(server.url, flush_seconds=60)
    await store.prepare(GENERATION, SPEC)
    await store.upsert(GENERATION, [row(1)])
    waiting = asyncio.create_task(store.upsert(GENERATION, [row(2)]))
    await asyncio.sleep(0.1)
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await waiting


async def test_enough_waiting_rows_do_not_wait_for_the_time_to_pass(server: Server) -> None:
    await server.start()
    store = MilvusStore(server.url, flush_rows=3, flush_seconds=3600)
    try:
        await store.prepare(GENERATION, SPEC)
        async with asyncio.timeout(30):
            await store.upsert(GENERATION, [row(1)])
            await asyncio.gather(*(store.upsert(GENERATION, [row(revision)]) for revision in (2, 3, 4)))
        assert await found(store, QUERIES[0]) == {1, 2, 3, 4}
    finally:
        await store.close()


async def test_a_connection_that_leads_nowhere_is_given_up_for_another(milvus_uri: str) -> None:
    host, _, port = milvus_uri.removeprefix("http://").partition(":")
    async with losing(host, int(port)) as (address, lost):
        store = MilvusStore(f"http://{address}", timeout=1.0)
        await store.ping()
        lost.set()
        with pytest.raises(StoreUnavailable):
            await store.ping()
        async with asyncio.timeout(20):
            while True:
                with suppress(StoreUnavailable):
                    await store.ping()
                    break
        await store.close()


async def test_a_deletion_that_milvus_refuses_without_a_word_is_a_fault(
    milvus_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows would be taken to be gone. pymilvus does not look at the answer."""
    store, generation = MilvusStore(milvus_uri), uuid.uuid4().hex[:16]

    async def refused(*asked: object, **how: object) -> dict[str, int]:
        return {"delete_count": 0}

    try:
        await store.prepare(generation, SPEC)
        await store.upsert(generation, [row(1)])
        with monkeypatch.context() as patched:
            patched.setattr(AsyncMilvusClient, "delete", refused)
            with pytest.raises(StoreUnavailable, match="did not delete every row"):
                await store.remove(generation, [1])
        await store.remove(generation, [1])
        assert await store.read(generation, "acme", ["1-0"]) == []
    finally:
        await store.drop(generation)
        await store.close()


class Old(milvus_pb2_grpc.MilvusServiceServicer):  # type: ignore[misc]
    """A Milvus as far as it tells its version; 2.3 refuses indexes of ours with words that say nothing."""

    async def Connect(self, request: Any, context: Any) -> Any:  # noqa: N802  (theirs)
        return milvus_pb2.ConnectResponse()

    async def GetVersion(self, request: Any, context: Any) -> Any:  # noqa: N802
        return milvus_pb2.GetVersionResponse(version="v2.3.5")


async def test_a_milvus_without_keyword_search_is_refused_by_its_version() -> None:
    server = grpc.aio.server()
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(Old(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    store = MilvusStore(f"http://127.0.0.1:{port}")
    try:
        for call in (store.ping(), store.prepare(GENERATION, SPEC)):
            with pytest.raises(StoreUnavailable, match=r"Milvus 2\.3\.5 has no keyword search"):
                await call
    finally:
        await store.close()
        await server.stop(None)


async def test_a_client_that_asks_often_whether_the_server_is_there_is_not_hung_up_on(
    milvus_uri: str,
) -> None:
    """The third ping that comes too soon ends a connection: of pymilvus's, within a minute of silence."""
    often = {**SILENT_PINGS, "grpc.keepalive_time_ms": 1_200}
    async with grpc.aio.insecure_channel(milvus_uri.removeprefix("http://"), list(often.items())) as channel:
        await asyncio.wait_for(channel.channel_ready(), 20)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(channel.wait_for_state_change(grpc.ChannelConnectivity.READY), 7)
