"""Segments put into the place of others, for Milvus Lite's server.

The lock that flushes need is held for the exchange alone: what takes long, writing the new segments, reading
them and computing what searches want of them, is done before. A new file is on the disk before the manifest
names it, and the old ones are removed afterwards. Part of the server's process: only what `milvus_lite`
installs imports this.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from milvus_lite.engine.compaction import CompactionManager
from milvus_lite.storage.data_file import write_data_file
from milvus_lite.storage.segment import Segment

from retrieval.stores.milvus_lite_search import prepared


def replace(collection: Any, partition: str, names: Sequence[str], tables: Sequence[pa.Table]) -> None:
    """Put segments of these rows into the place of those in the files named. Runs on the collection's
    background thread, the only one that takes segments away."""
    manifest = collection._manifest
    folder = Path(collection._data_dir) / "partitions" / partition
    written = {}
    for rows in tables:
        name = _write(rows, folder)
        written[partition, name] = _read(collection, partition, name)
    with prepared(collection, written.values()), collection._maintenance_lock:
        manifest.remove_data_files(partition, list(names))
        for _, name in written:
            manifest.add_data_file(partition, name)
        collection._segment_cache |= written
        manifest.save()
        collection._refresh_segment_cache()
    for name in names:
        remove(folder / name)


def _write(rows: pa.Table, folder: Path) -> str:
    """A data file of these rows, on the disk; its name within the partition's folder."""
    numbers = rows.column("_seq").to_pylist()
    lowest, highest = CompactionManager._pick_unique_seq_range(str(folder), min(numbers), max(numbers))
    name = str(write_data_file(rows, str(folder), seq_min=lowest, seq_max=highest))
    _sync(folder / name)
    _sync((folder / name).parent)
    return name


def _read(collection: Any, partition: str, name: str) -> Any:
    return Segment.load(
        file_path=str(Path(collection._data_dir) / "partitions" / partition / name),
        partition=partition,
        pk_field=collection._pk_name,
        vector_field=collection._vector_name,
    )


def remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
