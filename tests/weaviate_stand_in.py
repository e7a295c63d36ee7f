"""A stand-in for Weaviate, not Weaviate: the part of its REST and gRPC protocol that `WeaviateStore` speaks,
answered from memory, so that the adapter can be tried over the wire where no server can be had.

It knows nothing of the adapter but what arrives. Where Weaviate's behaviour matters, its source was followed:
texts of `field` tokenization are trimmed and those of `whitespace` split, BM25 has no factor k1 + 1, cosine
is told as a distance, a collection that is missing is made by an insert and an error for a search, an equal
UUID replaces, and a delete takes a bounded number of objects. It is exact where Weaviate's HNSW approximates.

"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import grpc
import numpy as np
from weaviate.proto.v1 import base_pb2, batch_delete_pb2, batch_pb2, search_get_pb2, weaviate_pb2_grpc

VERSION = "1.33.0"
MOST_AT_ONCE = 500
"""A server deletes at most 10 000 objects at once; fewer here, so that a test meets it."""


@dataclass(frozen=True, slots=True)
class Address:
    """Of a Weaviate, real or stood in for."""

    url: str
    grpc_url: str | None


@dataclass(slots=True)
class Thing:
    properties: Mapping[str, Any]
    vector: Any


@dataclass(slots=True)
class Class:
    schema: Mapping[str, Any]
    things: dict[str, Thing] = field(default_factory=dict)

    def tokenization(self, name: str) -> str:
        (found,) = (one for one in self.schema["properties"] if one["name"] == name)
        return str(found["tokenization"])


class Refused(Exception):
    """What the server answers with an error."""


class Database:
    def __init__(self) -> None:
        self.classes: dict[str, Class] = {}
        self.lock = Lock()

    def of(self, name: str) -> Class:
        try:
            return self.classes[name]
        except KeyError:
            raise Refused(f"could not find class {name} in schema") from None

    def matching(self, name: str, filters: Any) -> dict[str, Thing]:
        kind = self.of(name)
        return {key: thing for key, thing in kind.things.items() if _holds(kind, key, thing, filters)}


def _holds(kind: Class, key: str, thing: Thing, asked: Any) -> bool:
    operator = base_pb2.Filters
    if asked.operator == operator.OPERATOR_AND:
        return all(_holds(kind, key, thing, one) for one in asked.filters)
    if asked.operator == operator.OPERATOR_OR:
        return any(_holds(kind, key, thing, one) for one in asked.filters)
    if asked.operator == operator.OPERATOR_NOT:
        (inner,) = asked.filters
        return not _holds(kind, key, thing, inner)
    if asked.operator != operator.OPERATOR_CONTAINS_ANY:
        raise Refused(f"the stand-in knows no operator {asked.operator}")
    wanted = list(asked.value_text_array.values)
    if not wanted:
        raise Refused("got ContainsAny without values")
    if asked.target.property == "_id":
        return key in wanted
    assert kind.tokenization(asked.target.property) == "field"
    stored = thing.properties.get(asked.target.property) or []
    return not {one.strip() for one in stored}.isdisjoint(one.strip() for one in wanted)


def _nearest(kind: Class, found: dict[str, Thing], query: Any) -> dict[str, float]:
    assert kind.schema["vectorIndexConfig"]["distance"] == "cosine"
    (given,) = query.vectors or [None]
    packed = given.vector_bytes if given else query.vector_bytes
    vector = np.frombuffer(packed, "<f4").astype(np.float64)
    return {key: 1 - _cosine(vector, thing.vector) for key, thing in found.items()}


def _cosine(one: Any, other: Any) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def _bm25(kind: Class, found: dict[str, Thing], query: Any) -> dict[str, float]:
    """Statistics over the whole class, as the inverted index has them; scores of what the filter lets by."""
    (name,) = query.properties
    assert kind.tokenization(name) == "whitespace"
    settings = kind.schema["invertedIndexConfig"]["bm25"]
    counts = {key: Counter(str(thing.properties.get(name, "")).split()) for key, thing in kind.things.items()}
    average = sum(count.total() for count in counts.values()) / max(len(counts), 1)
    scores: dict[str, float] = {}
    for term, times in Counter(query.query.split()).items():
        holders = [key for key, count in counts.items() if term in count]
        idf = math.log(1 + (len(counts) - len(holders) + 0.5) / (len(holders) + 0.5))
        for key in holders:
            if key in found:
                frequency, length = counts[key][term], counts[key].total()
                norm = settings["k1"] * (1 - settings["b"] + settings["b"] * length / average)
                scores[key] = scores.get(key, 0) + times * idf * frequency / (frequency + norm)
    return scores


class Servicer(weaviate_pb2_grpc.WeaviateServicer):
    def __init__(self, database: Database) -> None:
        self._database = database

    def Search(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        try:
            with self._database.lock:
                return self._searched(request)
        except Refused as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))

    def _searched(self, request: Any) -> Any:
        kind = self._database.of(request.collection)
        found = self._database.matching(request.collection, request.filters)
        told: dict[str, float] = dict.fromkeys(found, 0.0)
        if request.HasField("near_vector"):
            told = _nearest(kind, found, request.near_vector)
        elif request.HasField("bm25_search"):
            told = {key: -score for key, score in _bm25(kind, found, request.bm25_search).items()}
        best = sorted(told, key=told.__getitem__)[: request.limit]
        return search_get_pb2.SearchReply(
            results=[_result(request, key, found[key], told[key]) for key in best]
        )

    def BatchObjects(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        with self._database.lock:
            for one in request.objects:
                kind = self._database.classes.setdefault(one.collection, Class({"properties": []}))
                packed = one.vectors[0].vector_bytes if one.vectors else one.vector_bytes
                vector = np.frombuffer(packed, "<f4").astype(np.float64)
                kind.things[one.uuid] = Thing(_properties(one.properties), vector)
        return batch_pb2.BatchObjectsReply()

    def BatchDelete(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        try:
            with self._database.lock:
                found = list(self._database.matching(request.collection, request.filters))[:MOST_AT_ONCE]
                for key in found:
                    del self._database.classes[request.collection].things[key]
        except Refused as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        return batch_delete_pb2.BatchDeleteReply(matches=len(found), successful=len(found))


def _properties(sent: Any) -> dict[str, Any]:
    lists = {one.prop_name: list(one.values) for one in sent.text_array_properties}
    return {**lists, **{name: value.string_value for name, value in sent.non_ref_properties.fields.items()}}


def _result(request: Any, key: str, thing: Thing, told: float) -> Any:
    result = search_get_pb2.SearchResult()
    result.metadata.id = key
    if request.metadata.vector:
        result.metadata.vector_bytes = thing.vector.astype("<f4").tobytes()
    if request.HasField("near_vector"):
        result.metadata.distance, result.metadata.distance_present = told, True
    else:
        result.metadata.score, result.metadata.score_present = -told, True
    for name in request.properties.non_ref_properties:
        result.properties.non_ref_props.fields[name].text_value = thing.properties[name]
    return result


def _handler(database: Database) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/v1/meta":
                self._answer(200, {"version": VERSION, "grpcMaxMessageSize": 104_858_000})
            elif self.path == "/v1/.well-known/ready":
                self._answer(200, {})
            else:
                kind = database.classes.get(self.path.removeprefix("/v1/schema/"))
                self._answer(200, kind.schema) if kind else self._answer(404, {})

        def do_POST(self) -> None:
            schema = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with database.lock:
                if self.path != "/v1/schema" or schema["class"] in database.classes:
                    self._answer(422, {"error": [{"message": "class already exists"}]})
                else:
                    database.classes[schema["class"]] = Class(schema)
                    self._answer(200, schema)

        def do_DELETE(self) -> None:
            with database.lock:
                database.classes.pop(self.path.removeprefix("/v1/schema/"), None)
            self._answer(200, {})

        def _answer(self, status: int, body: Any) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            """Not on the terminal of the tests."""

    return Handler


@contextmanager
def stand_in() -> Iterator[Address]:
    """It listens on loopback until the block ends."""
    database = Database()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(database))
    thread = Thread(target=http.serve_forever, args=(0.05,), daemon=True)
    rpc = grpc.server(ThreadPoolExecutor(4))
    weaviate_pb2_grpc.add_WeaviateServicer_to_server(Servicer(database), rpc)  # type: ignore[no-untyped-call]
    port = rpc.add_insecure_port("127.0.0.1:0")
    thread.start()
    rpc.start()
    try:
        yield Address(f"http://127.0.0.1:{http.server_port}", f"http://127.0.0.1:{port}")
    finally:
        rpc.stop(None).wait()
        http.shutdown()
        http.server_close()
        thread.join()
