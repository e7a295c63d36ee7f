"""The store in Milvus: Milvus Lite as a server, Milvus standalone or a cluster, told apart by its version.

The only module that imports pymilvus. One collection per generation. Milvus Lite 3.2 needs care that Milvus
does not: its searches, in `milvus_lite_search`, see what was flushed, so a write is acknowledged when a flush
holds it; and since each flush is a file, the writes of a process share theirs. Any number of processes may
write: `milvus_lite` lets them take turns.
"""

from __future__ import annotations

import asyncio
import logging
import re
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import grpc
import numpy as np
from pymilvus import AsyncMilvusClient, DataType, Function, FunctionType, MilvusException

from retrieval.errors import StoreUnavailable
from retrieval.stores.expressions import SLOTS, compile_filter, is_one_of
from retrieval.stores.filters import check
from retrieval.stores.memory import K1, B
from retrieval.stores.records import (
    FACT_BYTES,
    NAME_BYTES,
    NAMES,
    NUMBERS,
    READ,
    TEXT_BYTES,
    TEXTS,
    Record,
    to_chunk,
    to_record,
)
from retrieval.stores.rounds import Rounds
from retrieval.types import Chunk, Dense, Filter, Hit, IndexSpec, Query, Row, Vector

T = TypeVar("T")
_Request = Callable[[AsyncMilvusClient], Awaitable[T]]

_FAULTS = (MilvusException, grpc.RpcError, grpc.aio.UsageError, TimeoutError, OSError)
_NOT_FOUND = 100
_OLDEST = (2, 5)
"""The first Milvus with BM25."""
_VERSION = re.compile(r"(\d+)\.(\d+)")

_LAYOUT = "pl2"
"""Names the columns: a collection that was written with others is not read."""
_OLD_LAYOUTS = ("pl",)

_CREATION_LOOK = 0.05
"""Seconds between two looks whether a collection is there that another process makes."""

_PACKED = "packed"
"""The vector as text, on Milvus Lite, which hands out a text in a sixth of the time of a vector: 100 of 384
dimensions take 1.5 ms of processor time on both sides, not 9."""

_ROWS_A_REQUEST = 256
_NAMES_A_REQUEST = 256
_COMPACTION_LOOK = 0.2
_MOST_HITS = 16_384

# A channel of our own, which looks every second whether a lost server is back.
_CHANNEL = {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 1000,
}


@dataclass(frozen=True, slots=True)
class _Write:
    requests: tuple[_Request[object], ...]
    rows: int


class _Whole(str):
    """A text that pymilvus checks at once: it checks what it gets by iterating over it, and so each character
    of a text, which takes longer than everything else that it does with a row."""

    __slots__ = ()

    def __iter__(self) -> Iterator[str]:
        return iter((self,))


class MilvusStore:
    """A `Store` in the Milvus at `uri`; connects when first used, and again when the connection was lost.

    A request to Milvus takes at most `timeout` seconds; a call of many requests (an upsert of thousands of
    rows) ends with the first that fails. `flush_rows` and `flush_seconds` are for Milvus Lite: a write that
    follows a flush waits until so many seconds have passed since it, or so many rows are waiting, so that
    a stream of writes shares its flushes and a single write is not held up.
    """

    def __init__(
        self,
        uri: str,
        token: str | None = None,
        *,
        timeout: float = 5.0,
        flush_rows: int = 500,
        flush_seconds: float = 0.5,
    ) -> None:
        self._uri = uri
        self._token = token or ""
        self._timeout = timeout
        self._flush_rows = flush_rows
        self._flush_seconds = flush_seconds
        self._connecting = asyncio.Lock()
        self._client: AsyncMilvusClient | None = None
        self._lite = False
        self._rounds: dict[str, Rounds[_Write]] = {}
        self._prepared: set[str] = set()
        # Every fault is raised; pymilvus would also log each, with its stack.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)

    async def prepare(self, generation: str, spec: IndexSpec) -> None:
        if generation not in self._prepared:
            await self._ask(generation, partial(self._create, _collection(generation), spec.dimension))
            self._prepared.add(generation)

    async def upsert(self, generation: str, rows: Sequence[Row]) -> None:
        records = list({row.chunk.id: to_record(row) for row in rows}.values())
        parts = (records[i : i + _ROWS_A_REQUEST] for i in range(0, len(records), _ROWS_A_REQUEST))
        requests = tuple(partial(self._upsert, _collection(generation), part) for part in parts)
        await self._write(generation, _Write(requests, len(records)))

    async def search(
        self, generation: str, query: Query, where: Filter, limit: int, exclude: frozenset[int]
    ) -> list[Hit]:
        check(where)
        dense = isinstance(query, Dense)
        arguments = {
            "data": [query.vector if isinstance(query, Dense) else query.terms],
            "anns_field": "vector" if dense else "sparse",
            "search_params": {"metric_type": "COSINE" if dense else "BM25"},
            "filter": compile_filter(where, exclude),
            "limit": min(limit, _MOST_HITS),
        }
        found = await self._ask(generation, partial(self._search, _collection(generation), arguments))
        # Milvus gives BM25 scores as they are, Milvus Lite below zero.
        score = float if dense else abs
        hits = [Hit(to_chunk(hit["entity"]), score(hit["distance"]), _vector(hit["entity"])) for hit in found]
        return sorted(hits, key=lambda hit: (-hit.score, hit.chunk.id))

    async def read(self, generation: str, tenant: str, ids: Sequence[str]) -> list[Chunk]:
        found: dict[str, Chunk] = {}
        for i in range(0, len(ids), _NAMES_A_REQUEST):
            # By primary key alone: with a second condition Milvus Lite visits every row.
            named = is_one_of("id", ids[i : i + _NAMES_A_REQUEST])
            records = await self._ask(generation, partial(self._query, _collection(generation), named, READ))
            found |= {record["id"]: to_chunk(record) for record in records if record["tenant"] == tenant}
        return [found[name] for name in ids if name in found]

    async def vectors(self, generation: str, tenant: str, ids: Sequence[str]) -> dict[str, Vector]:
        fields = [*READ, _PACKED if await self._is_lite() else "vector"]
        found: dict[str, Vector] = {}
        for i in range(0, len(ids), _NAMES_A_REQUEST):
            named = is_one_of("id", ids[i : i + _NAMES_A_REQUEST])
            records = await self._ask(
                generation, partial(self._query, _collection(generation), named, fields)
            )
            found |= {
                to_chunk(record).content_hash: _vector(record)
                for record in records
                if record["tenant"] == tenant
            }
        return found

    async def remove(self, generation: str, revisions: Collection[int]) -> None:
        gone = sorted(set(revisions))
        parts = (gone[i : i + _NAMES_A_REQUEST] for i in range(0, len(gone), _NAMES_A_REQUEST))
        requests = tuple(partial(self._delete, _collection(generation), part) for part in parts)
        await self._write(generation, _Write(requests, 0))

    async def purge(self, generation: str) -> bool:
        """Milvus compacts, and collects what it dropped when it likes; Milvus Lite is done at the end."""
        name = _collection(generation)
        lite = await self._is_lite()
        if not await self._ask(generation, partial(self._has, name)):
            return True
        # What is not flushed is not purged.
        await self._write(generation, _Write((partial(self._flush, name),), 0))
        number = await self._ask(generation, lambda client: client.compact(name, timeout=self._timeout))
        # The server is asked, since it tells nobody.
        while lite and await self._ask(generation, partial(self._compacting, number)):  # noqa: ASYNC110
            await asyncio.sleep(_COMPACTION_LOOK)
        return lite

    async def drop(self, generation: str) -> None:
        self._prepared.discard(generation)
        await self._ask(generation, partial(self._drop, _collection(generation)))

    async def ping(self) -> None:
        await self._ask("", lambda client: client.get_server_version(timeout=self._timeout))

    async def close(self) -> None:
        """Writes that wait for their flush are given up."""
        for rounds in self._rounds.values():
            await rounds.close()
        if self._client is not None:
            await self._client.close()
            self._client = None

    # Requests: each is one thing asked of Milvus, and can be asked again.

    async def _create(self, name: str, dimension: int, client: AsyncMilvusClient) -> None:
        if not await client.has_collection(name, timeout=self._timeout):
            await self._refuse_old_layouts(name, client)
            schema = _schema(dimension, lite=self._lite)
            try:
                await client.create_collection(
                    name, schema=schema, consistency_level="Strong", timeout=self._timeout
                )
            except MilvusException as fault:
                # Another process may have been quicker, or be about it.
                while not await self._has(name, client):
                    if "exist" not in str(fault.message):
                        raise
                    await asyncio.sleep(_CREATION_LOOK)
        # Milvus Lite searches without: an index there is a second copy of the vectors on disk, its BM25
        # parameters do not arrive, and a server that restarts forgets that the collection was loaded.
        for field, index in ({} if self._lite else _indexes()).items():
            if not await client.list_indexes(name, field_name=field):
                wanted = client.prepare_index_params()
                wanted.add_index(field, index_name=field, **index)
                await client.create_index(name, wanted, timeout=self._timeout)
        await client.load_collection(name, timeout=self._timeout)

    async def _refuse_old_layouts(self, name: str, client: AsyncMilvusClient) -> None:
        """An index that an earlier version wrote would seem empty."""
        for layout in _OLD_LAYOUTS:
            old = name.replace(_LAYOUT, layout, 1)
            if await client.has_collection(old, timeout=self._timeout):
                raise StoreUnavailable(
                    f"The collection {old} in Milvus was written by an earlier version. Start with an empty "
                    "Milvus and hand the documents in again."
                )

    async def _upsert(self, name: str, records: list[Record], client: AsyncMilvusClient) -> None:
        long = [{name: _Whole(record[name]) for name in TEXTS} for record in records]
        if self._lite:
            for texts, record in zip(long, records, strict=True):
                texts[_PACKED] = _Whole(_packed(record["vector"]))
        data = [record | texts for record, texts in zip(records, long, strict=True)]
        await client.upsert(name, data, timeout=self._timeout)

    async def _search(self, name: str, arguments: Record, client: AsyncMilvusClient) -> Sequence[Record]:
        if arguments["limit"] <= 0:
            return []
        vector = _PACKED if self._lite else "vector"
        found = await client.search(name, output_fields=[*READ, vector], timeout=self._timeout, **arguments)
        return list(found[0])

    async def _query(
        self, name: str, expression: str, fields: list[str], client: AsyncMilvusClient
    ) -> Sequence[Record]:
        found = await client.query(name, filter=expression, output_fields=fields, timeout=self._timeout)
        return list(found)

    async def _delete(self, name: str, revisions: list[int], client: AsyncMilvusClient) -> None:
        expression = f"revision in {revisions}"
        with _missing_is_fine():
            await client.delete(name, filter=expression, timeout=self._timeout)
            if self._lite:  # Only what is flushed is seen to be gone.
                await self._flush(name, client)
            # pymilvus's async delete does not report a refusal, so look.
            if await self._query(name, expression, ["id"], client):
                raise StoreUnavailable("Milvus did not delete every row.")

    async def _has(self, name: str, client: AsyncMilvusClient) -> bool:
        return bool(await client.has_collection(name, timeout=self._timeout))

    async def _compacting(self, number: int, client: AsyncMilvusClient) -> bool:
        return str(await client.get_compaction_state(number, timeout=self._timeout)) != "Completed"

    async def _drop(self, name: str, client: AsyncMilvusClient) -> None:
        with _missing_is_fine():
            await client.drop_collection(name, timeout=self._timeout)

    async def _flush(self, name: str, client: AsyncMilvusClient) -> None:
        with _missing_is_fine():
            await client.flush(name, timeout=self._timeout)

    # How they are made.

    async def _is_lite(self) -> bool:
        if self._client is None:
            await self.ping()
        return self._lite

    async def _write(self, generation: str, write: _Write) -> None:
        if not await self._is_lite():
            await self._commit(generation, [write])
        elif write.requests:
            rounds = self._rounds.get(generation) or Rounds(
                partial(self._commit, generation), rows=self._flush_rows, seconds=self._flush_seconds
            )
            await self._rounds.setdefault(generation, rounds).write(write, write.rows)

    async def _commit(self, generation: str, writes: Sequence[_Write]) -> None:
        for write in writes:
            for request in write.requests:
                await self._ask(generation, request)
        if self._lite:
            await self._ask(generation, partial(self._flush, _collection(generation)))

    async def _ask(self, generation: str, request: _Request[T]) -> T:
        """Every request goes through here, so that it ends in time and its faults are translated."""
        try:
            async with asyncio.timeout(self._timeout):
                return await request(await self._connected())
        except _FAULTS as fault:
            # It may come back without its data.
            self._prepared.discard(generation)
            raise StoreUnavailable(self._reason(generation, fault)) from fault

    async def _connected(self) -> AsyncMilvusClient:
        async with self._connecting:
            if self._client is None:
                client = AsyncMilvusClient(
                    self._uri,
                    token=self._token,
                    timeout=self._timeout,
                    dedicated=True,
                    # A connection that leads nowhere, as when a machine is gone or an address has moved, is
                    # given up so soon; gRPC itself waits a minute.
                    grpc_options=_CHANNEL | {"grpc.http2.ping_timeout_ms": round(2_000 * self._timeout)},
                )
                version = str(await client.get_server_version(timeout=self._timeout))
                self._lite = version.startswith("milvus_lite")
                if not self._lite and _too_old(version):
                    await client.close()
                    raise StoreUnavailable(
                        f"Milvus {version.removeprefix('v')} has no keyword search (BM25): run 2.5 or newer."
                    )
                self._client = client
            return self._client

    def _reason(self, generation: str, fault: BaseException) -> str:
        if isinstance(fault, TimeoutError):
            return f"Milvus did not answer within {self._timeout:g} s."
        if isinstance(fault, MilvusException) and fault.code == _NOT_FOUND:
            return f"The generation {generation} is not prepared in Milvus."
        if isinstance(fault, MilvusException):
            return f"Milvus failed: {fault.message}"
        return f"Milvus failed: {type(fault).__name__}."


def _too_old(version: str) -> bool:
    """A version that cannot be read is taken for a new one."""
    found = _VERSION.search(version)
    return found is not None and (int(found[1]), int(found[2])) < _OLDEST


@contextmanager
def _missing_is_fine() -> Iterator[None]:
    try:
        yield
    except MilvusException as fault:
        if fault.code != _NOT_FOUND:
            raise


def _packed(vector: Vector) -> str:
    return b64encode(np.asarray(vector, "<f4").tobytes()).decode()


def _vector(record: Record) -> Vector:
    if _PACKED in record:
        return np.frombuffer(b64decode(record[_PACKED]), "<f4")
    return np.asarray(record["vector"], np.float32)


def _collection(generation: str) -> str:
    return f"{_LAYOUT}_{generation}"


def _schema(dimension: int, *, lite: bool) -> Any:
    schema = AsyncMilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    for name in NAMES:
        schema.add_field(name, DataType.VARCHAR, max_length=NAME_BYTES, is_primary=name == "id")
    for name in NUMBERS:
        schema.add_field(name, DataType.INT64)
    for name in SLOTS:
        schema.add_field(name, DataType.VARCHAR, max_length=FACT_BYTES)
    # The standard tokenizer, the only one on both, leaves terms of letters and digits as they are.
    analyzed = {"enable_analyzer": True, "analyzer_params": {"tokenizer": "standard"}}
    for name in TEXTS:
        options = analyzed if name == "terms" else {}
        schema.add_field(name, DataType.VARCHAR, max_length=TEXT_BYTES, **options)
    if lite:
        schema.add_field(_PACKED, DataType.VARCHAR, max_length=TEXT_BYTES)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(Function("bm25", FunctionType.BM25, ["terms"], ["sparse"]))
    return schema


def _indexes() -> dict[str, Record]:
    return {
        "vector": {"index_type": "AUTOINDEX", "metric_type": "COSINE"},
        **{slot: {"index_type": "INVERTED"} for slot in SLOTS},
        "sparse": {
            "index_type": "SPARSE_INVERTED_INDEX",
            "metric_type": "BM25",
            "params": {"bm25_k1": K1, "bm25_b": B},
        },
    }
