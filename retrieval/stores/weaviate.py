"""The store in Weaviate: one server, a cluster or Weaviate Cloud.

The only module that imports weaviate. One collection per generation; a row is an object whose UUID comes from
its chunk id, so that writing it again replaces it. `keys` holds what a row is found by: tenant, collection,
document, revision and the facts of `stores/facts`, each number and date with all its beginnings. So every
filter is a tree of `ContainsAny`, and a range is a few beginnings. What a caller wrote is hashed: nothing can
be injected, no field needs a column of its own, and Weaviate's trimming of texts changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import grpc
import httpx
import numpy as np
import weaviate
from weaviate.classes.data import DataObject
from weaviate.classes.init import AdditionalConfig, Auth, Timeout
from weaviate.classes.query import Filter as Term
from weaviate.classes.query import MetadataQuery
from weaviate.collections.classes.filters import FilterReturn
from weaviate.config import GrpcConfig
from weaviate.exceptions import WeaviateBaseError

from retrieval.errors import RowInvalid, StoreUnavailable
from retrieval.stores import facts
from retrieval.stores.filters import check
from retrieval.stores.memory import K1, B
from retrieval.stores.records import from_text, to_text
from retrieval.types import (
    And,
    Chunk,
    Condition,
    Dense,
    Exists,
    Filter,
    Hit,
    IndexSpec,
    Not,
    OneOf,
    Or,
    Query,
    Range,
    Row,
    Vector,
)

T = TypeVar("T")
_Request = Callable[[weaviate.WeaviateAsyncClient], Awaitable[T]]

_FAULTS = (WeaviateBaseError, grpc.RpcError, httpx.HTTPError, TimeoutError, OSError)

OLDEST = (1, 33)
"""The first version that knows `Not`."""

_ROWS_A_REQUEST = 256
_NAMES_A_REQUEST = 256
_MOST_HITS = 10_000  # What a server gives at once unless QUERY_MAXIMUM_RESULTS says otherwise.
_GRPC_PORT = 50051

_NAMESPACE = uuid.UUID("6f3b4c1e-4a57-5d0c-9a43-6a1d1f0c7e55")
_NOTHING = "-"
"""No row has this key."""

# A channel that looks every second whether a lost server is back.
_CHANNEL = [("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 1000)]


def _given_up_after(timeout: float) -> list[tuple[str, int]]:
    """A connection that leads nowhere, as when a machine is gone or an address has moved, is given up once it
    was silent for half of this while something was asked, and then for all of it. gRPC itself waits for a
    minute."""
    return [
        ("grpc.keepalive_time_ms", round(500 * timeout)),
        ("grpc.http2.ping_timeout_ms", round(1_000 * timeout)),
    ]


class WeaviateStore:
    """A `Store` in the Weaviate at `url`; connects when first used, and again when the connection was lost.

    `grpc_url` says where its gRPC listens, by default port 50051 of the same host. A request takes at most
    `timeout` seconds; a call of many requests ends with the first that fails.
    """

    def __init__(
        self, url: str, api_key: str | None = None, *, grpc_url: str | None = None, timeout: float = 5.0
    ) -> None:
        self._url = url
        self._grpc_url = grpc_url
        self._api_key = api_key
        self._timeout = timeout
        self._connecting = asyncio.Lock()
        self._client: weaviate.WeaviateAsyncClient | None = None
        # Every fault is raised; the client would also log each retry.
        logging.getLogger("weaviate-client").setLevel(logging.CRITICAL)

    async def prepare(self, generation: str, spec: IndexSpec) -> None:
        await self._ask(generation, partial(self._create, _collection(generation)))

    async def upsert(self, generation: str, rows: Sequence[Row]) -> None:
        objects = list({row.chunk.id: _object(row) for row in rows}.values())
        # A server that makes collections by itself would bring back one that is gone.
        if not await self._ask(generation, partial(self._exists, _collection(generation))):
            raise StoreUnavailable(_not_prepared(generation))
        for i in range(0, len(objects), _ROWS_A_REQUEST):
            part = objects[i : i + _ROWS_A_REQUEST]
            await self._ask(generation, partial(self._insert, _collection(generation), part))

    async def search(
        self, generation: str, query: Query, where: Filter, limit: int, exclude: frozenset[int]
    ) -> list[Hit]:
        check(where)
        asked = partial(self._search, _collection(generation), query, compile_filter(where, exclude))
        hits = await self._ask(generation, partial(asked, max(0, min(limit, _MOST_HITS))))
        return sorted(hits, key=lambda hit: (-hit.score, hit.chunk.id))

    async def read(self, generation: str, tenant: str, ids: Sequence[str]) -> list[Chunk]:
        found: dict[str, Chunk] = {}
        for i in range(0, max(len(ids), 1), _NAMES_A_REQUEST):
            named = ids[i : i + _NAMES_A_REQUEST]
            chunks = await self._ask(generation, partial(self._read, _collection(generation), named))
            found |= {chunk.id: chunk for chunk in chunks if chunk.tenant == tenant}
        return [found[name] for name in ids if name in found]

    async def vectors(self, generation: str, tenant: str, ids: Sequence[str]) -> dict[str, Vector]:
        found: dict[str, Vector] = {}
        for i in range(0, len(ids), _NAMES_A_REQUEST):
            named = ids[i : i + _NAMES_A_REQUEST]
            hits = await self._ask(generation, partial(self._vectors, _collection(generation), named))
            found |= {chunk.content_hash: vector for chunk, vector in hits if chunk.tenant == tenant}
        return found

    async def remove(self, generation: str, revisions: Collection[int]) -> None:
        gone = sorted(set(revisions))
        for i in range(0, len(gone), _NAMES_A_REQUEST):
            part = gone[i : i + _NAMES_A_REQUEST]
            await self._ask(generation, partial(self._delete, _collection(generation), part))

    async def purge(self, generation: str) -> bool:
        """Weaviate rewrites its files by itself, when enough of them is dead."""
        return not await self._ask(generation, partial(self._exists, _collection(generation)))

    async def drop(self, generation: str) -> None:
        await self._ask(generation, lambda client: client.collections.delete(_collection(generation)))

    async def ping(self) -> None:
        await self._ask("", lambda client: client.get_meta())

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    # Requests: each is one thing asked of Weaviate, and can be asked again.

    async def _create(self, name: str, client: weaviate.WeaviateAsyncClient) -> None:
        if await self._exists(name, client):
            return
        try:
            await client.collections.create_from_dict(_schema(name))
        except WeaviateBaseError:
            # Another process may have been quicker.
            if not await self._exists(name, client):
                raise

    async def _exists(self, name: str, client: weaviate.WeaviateAsyncClient) -> bool:
        return await client.collections.exists(name)

    async def _insert(
        self, name: str, objects: list[DataObject[Any, None]], client: weaviate.WeaviateAsyncClient
    ) -> None:
        written = await client.collections.use(name).data.insert_many(objects)
        if written.has_errors:
            first = next(iter(written.errors.values()))
            raise StoreUnavailable(f"Weaviate did not write every row: {first.message}")

    async def _search(
        self,
        name: str,
        query: Query,
        filters: FilterReturn,
        limit: int,
        client: weaviate.WeaviateAsyncClient,
    ) -> list[Hit]:
        # Without a limit or a word Weaviate would answer something else than nothing.
        nothing = limit == 0 or (not isinstance(query, Dense) and not query.terms.split())
        if nothing:
            await self._read(name, [], client)
            return []
        wanted: dict[str, Any] = {
            "limit": limit,
            "filters": filters,
            "include_vector": True,
            "return_properties": ["chunk"],
            "return_metadata": MetadataQuery(distance=True, score=True),
        }
        ask = client.collections.use(name).query
        if isinstance(query, Dense):
            found = await ask.near_vector(query.vector.tolist(), **wanted)
        else:
            found = await ask.bm25(query.terms, query_properties=["terms"], **wanted)
        return [_hit(one, dense=isinstance(query, Dense)) for one in found.objects]

    async def _read(self, name: str, ids: Sequence[str], client: weaviate.WeaviateAsyncClient) -> list[Chunk]:
        named = Term.by_id().contains_any([_uuid(one) for one in ids] or [_uuid(_NOTHING)])
        found = await client.collections.use(name).query.fetch_objects(
            filters=named, limit=max(len(ids), 1), return_properties=["chunk"]
        )
        return [from_text(str(one.properties["chunk"])) for one in found.objects]

    async def _vectors(
        self, name: str, ids: Sequence[str], client: weaviate.WeaviateAsyncClient
    ) -> list[tuple[Chunk, Vector]]:
        found = await client.collections.use(name).query.fetch_objects(
            filters=Term.by_id().contains_any([_uuid(one) for one in ids]),
            limit=len(ids),
            include_vector=True,
            return_properties=["chunk"],
        )
        return [
            (from_text(str(one.properties["chunk"])), np.asarray(one.vector["default"], np.float32))
            for one in found.objects
        ]

    async def _delete(self, name: str, revisions: list[int], client: weaviate.WeaviateAsyncClient) -> None:
        if not await self._exists(name, client):
            return
        where = _any_of(map(_revision, revisions))
        # A server deletes a bounded number of objects at once.
        while (gone := await client.collections.use(name).data.delete_many(where)).matches:
            if gone.failed:
                raise StoreUnavailable("Weaviate did not delete every row.")

    # How they are made.

    async def _ask(self, generation: str, request: _Request[T]) -> T:
        """Every request goes through here, so that it ends in time and its faults are translated."""
        try:
            async with asyncio.timeout(self._timeout):
                return await request(await self._connected())
        except _FAULTS as fault:
            raise StoreUnavailable(self._reason(generation, fault)) from fault

    async def _connected(self) -> weaviate.WeaviateAsyncClient:
        async with self._connecting:
            if self._client is None:
                client = self._made()
                try:
                    await client.connect()
                    _check_version(str((await client.get_meta())["version"]))
                except BaseException:
                    await client.close()
                    raise
                self._client = client
            return self._client

    def _made(self) -> weaviate.WeaviateAsyncClient:
        http, rpc = urlsplit(self._url), urlsplit(self._grpc_url or "")
        secure = (rpc.scheme or http.scheme) in ("https", "grpcs")
        return weaviate.use_async_with_custom(
            http_host=http.hostname or "",
            http_port=http.port or (443 if http.scheme == "https" else 80),
            http_secure=http.scheme == "https",
            grpc_host=rpc.hostname or http.hostname or "",
            grpc_port=rpc.port or (443 if self._grpc_url and secure else _GRPC_PORT),
            grpc_secure=secure,
            auth_credentials=Auth.api_key(self._api_key) if self._api_key else None,
            additional_config=AdditionalConfig(
                timeout=Timeout(init=self._timeout, query=self._timeout, insert=self._timeout),
                grpc_config=GrpcConfig(channel_options=[*_CHANNEL, *_given_up_after(self._timeout)]),
            ),
            # They would also ask the package index for the client's newest version.
            skip_init_checks=True,
        )

    def _reason(self, generation: str, fault: BaseException) -> str:
        if isinstance(fault, TimeoutError | httpx.TimeoutException):
            return f"Weaviate did not answer within {self._timeout:g} s."
        if "could not find class" in str(fault):
            return _not_prepared(generation)
        if isinstance(fault, WeaviateBaseError):
            return f"Weaviate failed: {fault.message}"
        return f"Weaviate failed: {type(fault).__name__}."


def compile_filter(where: Filter, exclude: Collection[int]) -> FilterReturn:
    """A checked filter as Weaviate's, without the rows of the revisions in `exclude`."""
    parts = [_any_of([_name("tenant", where.tenant)])]
    if where.groups is not None:
        parts.append(_any_of([facts.EVERYBODY, *map(facts.group, sorted(where.groups))]))
    if where.collections:
        parts.append(_any_of(_name("collection", one) for one in where.collections))
    if where.document_ids:
        parts.append(_any_of(_name("document", one) for one in where.document_ids))
    if where.where is not None:
        parts.append(_compiled(where.where))
    if exclude:
        parts.append(Term.not_(_any_of(map(_revision, sorted(exclude)))))
    return Term.all_of(parts)


def _compiled(condition: Condition) -> FilterReturn:
    match condition:
        case And(conditions):
            return Term.all_of([_compiled(one) for one in conditions])
        case Or(conditions):
            return Term.any_of([_compiled(one) for one in conditions])
        case Not(inner):
            return Term.not_(_compiled(inner))
        case Exists(field):
            return _any_of([facts.named(field)])
        case OneOf(field, values):
            return _any_of(facts.equal(field, value) for value in values)
        case Range():
            return _any_of(facts.prefixes(*facts.interval(condition)))


def _any_of(keys: Iterable[str]) -> FilterReturn:
    return Term.by_property("keys").contains_any(list(keys) or [_NOTHING])


def _keys(chunk: Chunk) -> list[str]:
    """What a row is found by; of what can lie in a range every beginning, down to the field itself."""
    ranked = [fact[:size] for fact in facts.ranked(chunk) for size in range(facts.BARE, len(fact) + 1)]
    return sorted(
        {
            _name("tenant", chunk.tenant),
            _name("collection", chunk.collection),
            _name("document", chunk.document_id),
            _revision(chunk.revision),
            *facts.rights(chunk),
            *map(facts.named, chunk.metadata),
            *facts.unranked(chunk),
            *ranked,
        }
    )


def _name(what: str, text: str) -> str:
    return f"{what[0]}.{facts.digest(text)}"


def _revision(number: int) -> str:
    return f"r.{number}"


def _object(row: Row) -> DataObject[Any, None]:
    """Raises `RowInvalid` for text that is not valid Unicode."""
    text = to_text(row.chunk)
    for name, value in (("text", text), ("terms", row.terms)):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RowInvalid(f"The {name} of chunk {row.chunk.id!r} is not valid Unicode.") from None
    properties = {"keys": _keys(row.chunk), "terms": row.terms, "chunk": text}
    return DataObject(properties=properties, uuid=_uuid(row.chunk.id), vector=row.vector.tolist())


def _uuid(chunk_id: str) -> uuid.UUID:
    return uuid.uuid5(_NAMESPACE, chunk_id)


def _hit(found: Any, *, dense: bool) -> Hit:
    """Weaviate tells a cosine distance, and BM25 without the constant factor of the textbook."""
    told = found.metadata
    score = 1 - told.distance if dense else told.score * (K1 + 1)
    vector = np.asarray(found.vector["default"], np.float32)
    return Hit(from_text(str(found.properties["chunk"])), float(score), vector)


def _collection(generation: str) -> str:
    """The number tells the layout: objects that were written with another one are not read."""
    return f"Plumbline1_{generation}"


def _not_prepared(generation: str) -> str:
    return f"The generation {generation} is not prepared in Weaviate."


def _check_version(version: str) -> None:
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        raise StoreUnavailable(
            f"Weaviate {version} is too old: {'.'.join(map(str, OLDEST))} is the first that filters by `not`."
        )


def _schema(name: str) -> dict[str, Any]:
    """Only `keys` is filtered by and only `terms` is searched in; terms are split at white space and kept as
    the analyzer wrote them."""
    unsearched = {"dataType": ["text"], "indexFilterable": False, "indexSearchable": False}
    return {
        "class": name,
        "vectorizer": "none",
        "vectorIndexType": "hnsw",
        "vectorIndexConfig": {"distance": "cosine"},
        "invertedIndexConfig": {"bm25": {"k1": K1, "b": B}, "stopwords": {"preset": "none"}},
        "properties": [
            {
                "name": "keys",
                "dataType": ["text[]"],
                "tokenization": "field",
                "indexFilterable": True,
                "indexSearchable": False,
            },
            {**unsearched, "name": "terms", "tokenization": "whitespace", "indexSearchable": True},
            {**unsearched, "name": "chunk"},
        ],
    }
