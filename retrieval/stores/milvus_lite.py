"""Milvus Lite's server, for several writers and for searches that do not wait for them.

    python -m retrieval.stores.milvus_lite server --data-dir DIR --host HOST --port PORT

What Milvus Lite 3.2 stores is not changed. Searches and keyword scores are those of `milvus_lite_search`,
merges of segments those of `milvus_lite_merge`, and `compact` is that of `milvus_lite_purge`. Writes take
turns here: two at once break its log, whatever process they come from. A process of its own: nothing else of
the project may import this.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache, wraps
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
from milvus_lite import cmdline
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from milvus_lite.analyzer import protocol
from milvus_lite.engine import collection
from milvus_lite.engine.collection import Collection
from milvus_lite.exceptions import SchemaValidationError
from milvus_lite.schema import validation
from milvus_lite.schema.types import DataType
from milvus_lite.storage.delta_index import DeltaIndex
from milvus_lite.storage.memtable import MemTable

from retrieval.stores import milvus_lite_merge, milvus_lite_purge, milvus_lite_search

WRITES = ("insert", "upsert", "delete", "flush")
SWITCH = 0.0005
"""Seconds for which a thread may keep the interpreter from the others. With the usual 5 ms a search waits so
long for a write each time that it comes back from computing."""
TERMS = 2**17
"""Terms whose numbers are remembered: computing one takes a loop over its bytes."""

PINGS = (
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
"""pymilvus asks every ten seconds whether the server is there, which Milvus allows; a server with gRPC's
usual settings takes that for an attack, and hangs up."""


def main() -> int:
    """Milvus Lite's own command, changed."""
    sys.setswitchinterval(SWITCH)
    grpc.server = _patient(grpc.server)
    protocol.term_to_id = lru_cache(TERMS)(protocol.term_to_id)
    for name in WRITES:
        setattr(Collection, name, _in_turn(getattr(Collection, name)))
    MilvusServicer.Delete = _flushed_first(MilvusServicer.Delete)
    validation._find_float_vector = lambda schema: None
    collection.validate_record = _valid
    MemTable._build_data_table = _table
    milvus_lite_search.install(Collection, DeltaIndex)
    milvus_lite_merge.install(Collection)
    milvus_lite_purge.install()
    return int(cmdline.main() or 0)


def _patient(server: Callable[..., Any]) -> Callable[..., Any]:
    """Makes servers that let themselves be asked as often as `PINGS` say."""

    @wraps(server)
    def patient(pool: Any, *given: Any, options: Sequence[Any] = (), **named: Any) -> Any:
        return server(pool, *given, options=[*options, *PINGS], **named)

    return patient


def _in_turn(write: Callable[..., Any]) -> Callable[..., Any]:
    """One write at a time in each collection; one of them may call another."""

    @wraps(write)
    def in_turn(one: Any, *given: Any, **named: Any) -> Any:
        with vars(one).setdefault("writing", threading.RLock()):
            return write(one, *given, **named)

    return in_turn


def _valid(record: dict[str, Any], schema: Any, default_properties: Any = None) -> None:
    """Milvus Lite's checks, but for looking at each number of a vector: what came in by its protocol are
    numbers."""
    for field in schema.fields:
        if field.dtype == DataType.FLOAT_VECTOR and len(record.get(field.name) or ()) != field.dim:
            raise SchemaValidationError(f"vector field {field.name!r} expected dim {field.dim}")
    validation.validate_record(record, schema, default_properties)


def _table(memtable: Any, rows: Sequence[tuple[int, int]]) -> pa.Table:
    """These rows (batch, row) of what is in memory, as whole columns."""
    batches = memtable._insert_batches
    starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
    places = pa.array([starts[batch] + row for batch, row in rows], pa.int64())
    schema = memtable._data_schema
    return pa.Table.from_batches(batches).select(schema.names).take(places).cast(schema)


def _flushed_first(delete: Callable[..., Any]) -> Callable[..., Any]:
    """A delete by a condition finds what it is about by a search, which sees what is flushed."""

    @wraps(delete)
    def flushed_first(servicer: Any, request: Any, context: Any) -> Any:
        with suppress(Exception):  # The delete meets it too, and says it.
            servicer._get_collection(request, context).flush()
        return delete(servicer, request, context)

    return flushed_first


if __name__ == "__main__":
    sys.exit(main())
