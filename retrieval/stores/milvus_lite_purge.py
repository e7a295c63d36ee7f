"""Deletion from the disk, for Milvus Lite's server: `compact` rewrites what holds deleted rows.

Milvus Lite 3.2 marks rows as deleted, and merges segments only when there are several of a size, so a deleted
text may stay in its files for good; its own `compact` does nothing. Here each segment that has a dead row is
written anew without it (`milvus_lite_segments`): whenever the process is killed, one of the two is whole and
named, and the other is cleared away at the next start. Searches go on in the segments that they began with.
Part of the server's process: only `milvus_lite` imports this.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from retrieval.stores.milvus_lite_segments import remove, replace

LONGEST_PAUSE = 0.5
"""Seconds between two segments, at most: as long as the last one took, so that searches get their share."""
_REMEMBERED = 1_000


class Purges:
    """What `compact` began, by number. Each runs on its collection's own background thread, where Milvus Lite
    merges segments too, so that never two change the same files."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._begun: dict[int, Future[int]] = {}
        self._lock = threading.Lock()

    def start(self, collection: Any) -> int:
        with self._lock:
            number = next(self._numbers)
            self._begun[number] = collection._bg_executor.submit(purge, collection)
            self._begun.pop(number - _REMEMBERED, None)
            return number

    def done(self, number: int) -> bool:
        """Raises what a purge raised, and `LookupError` for one of before a restart."""
        begun = self._begun.get(number)
        if begun is None:
            raise LookupError(f"compaction {number} is not known: the server was started again")
        return begun.done() and begun.result() >= 0


def install() -> None:
    """Let the server's `compact` purge."""
    purges = Purges()

    def compact(servicer: Any, request: Any, context: Any) -> Any:
        try:
            number = purges.start(servicer._get_collection(request, context))
        except Exception as error:  # noqa: BLE001  (it ends as the answer)
            return milvus_pb2.ManualCompactionResponse(status=_failed(error))
        return milvus_pb2.ManualCompactionResponse(status=common_pb2.Status(), compactionID=number)

    def state(servicer: Any, request: Any, context: Any) -> Any:
        states = common_pb2.CompactionState
        try:
            now = states.Completed if purges.done(request.compactionID) else states.Executing
        except Exception as error:  # noqa: BLE001
            return milvus_pb2.GetCompactionStateResponse(status=_failed(error))
        return milvus_pb2.GetCompactionStateResponse(status=common_pb2.Status(), state=now)

    MilvusServicer.ManualCompaction = compact
    MilvusServicer.GetCompactionState = state


def _failed(error: Exception) -> Any:
    return common_pb2.Status(
        error_code=common_pb2.ErrorCode.UnexpectedError, code=1, reason=f"{type(error).__name__}: {error}"
    )


def purge(collection: Any) -> int:
    """Rewrite every segment that holds a dead row; how many rows that was. Runs on the background thread;
    what is written meanwhile is left for the next purge."""
    manifest = collection._manifest
    with collection._maintenance_lock:
        segments = dict(collection._segment_cache)
        marks = collection._delta_index.frozen_copy()
        delta_files = manifest.get_all_delta_files()
    dead = _dead(segments, marks.snapshot)
    for key, rows in dead.items():
        began = time.monotonic()
        live = np.ones(len(segments[key].pks), bool)
        live[sorted(rows)] = False
        partition, name = key
        kept = [segments[key].table.filter(pa.array(live))] if live.any() else []
        replace(collection, partition, [name], kept)
        time.sleep(min(LONGEST_PAUSE, time.monotonic() - began))
    _forget_marks(collection, marks.snapshot, delta_files)
    return sum(map(len, dead.values()))


def _dead(segments: Mapping[Any, Any], marks: Mapping[Any, int]) -> dict[Any, set[int]]:
    """The rows of each segment that were deleted, or replaced by a newer one."""
    dead: dict[Any, set[int]] = defaultdict(set)
    for name, number in marks.items():
        for key, segment in segments.items():
            row = segment.pk_to_row.get(name)
            if row is not None and segment.seqs[row] < number:
                dead[key].add(row)
    names = [segment.pk_to_row.keys() for segment in segments.values()]
    if len(set().union(*names)) < sum(map(len, names)):
        newest: dict[Any, tuple[int, Any, int]] = {}
        for key, segment in segments.items():
            for name, row in segment.pk_to_row.items():
                this = (int(segment.seqs[row]), key, row)
                other = newest.setdefault(name, this)
                if other is not this:
                    (_, place, older), newest[name] = sorted((this, other))
                    dead[place].add(older)
    return dict(dead)


def _forget_marks(
    collection: Any, marks: Mapping[Any, int], delta_files: Mapping[str, Sequence[str]]
) -> None:
    """No row is left that these marks could be about: drop them, and the files that hold them."""
    manifest = collection._manifest
    with collection._maintenance_lock:
        kept = collection._delta_index._map
        for name, number in marks.items():
            if kept.get(name) == number:
                del kept[name]
        for partition, files in delta_files.items():
            manifest.remove_delta_files(partition, list(files))
        if any(delta_files.values()):
            manifest.save()
    for partition, files in delta_files.items():
        for name in files:
            remove(Path(collection._data_dir) / "partitions" / partition / name)
