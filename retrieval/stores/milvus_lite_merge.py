"""Merges of segments, for Milvus Lite's server, that keep no write waiting.

Milvus Lite 3.2 merges segments of a size on its background thread, and holds the lock that a flush needs for
as long as it reads, sorts and writes them: with 100 000 rows a write waits for tens of seconds, is given up
and sent again, which makes more to merge. Here the lock is held only to look at what there is, and for the
exchange. What is merged does not change meanwhile: segments are never written to, this thread is the only
one that takes them away (purges run on it too), and what deletes a row during its merge is newer than the
row, so that its mark is kept. Part of the server's process: only `milvus_lite` imports this.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from milvus_lite.constants import MAX_SEGMENT_ROWS

from retrieval.stores.milvus_lite_segments import replace

log = logging.getLogger(__name__)


def install(collections: Any) -> None:
    """Let Milvus Lite's collections be merged here."""
    collections._bg_compact_and_index = maintain


def maintain(collection: Any) -> None:
    """What Milvus Lite calls on the background thread after each flush."""
    try:
        for partition in collection._manifest.list_partitions():
            merge(collection, partition)
    except Exception:
        log.exception("segments could not be merged; tried again after the next flush")


def merge(collection: Any, partition: str) -> None:
    """Make one of several segments of a size, where there are so many, without the rows that are dead."""
    manager, manifest = collection._compaction_mgr, collection._manifest
    folder = str(Path(collection._data_dir) / "partitions" / partition)
    with collection._maintenance_lock:
        files = manifest.get_data_files(partition)
        segments = dict(collection._segment_cache)
        marks = collection._delta_index.frozen_copy()
    names = manager._select_target(manager._bucket_files(folder, files), len(files), folder)
    if names:
        rows = pa.concat_tables([segments[partition, name].table for name in names])
        live = manager._filter_deleted(manager._dedup_max_seq(rows), marks)
        replace(collection, partition, names, _parts(live))
        with collection._maintenance_lock:
            manager._gc_tombstones(manifest, collection._delta_index)


def _parts(rows: pa.Table) -> list[pa.Table]:
    """In the order in which they were written, no more of them in each than a segment may have."""
    in_order = rows.take(pc.sort_indices(rows, sort_keys=[("_seq", "ascending")]))
    return [in_order.slice(at, MAX_SEGMENT_ROWS) for at in range(0, len(in_order), MAX_SEGMENT_ROWS)]
