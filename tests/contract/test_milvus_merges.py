"""A merge of Milvus Lite's segments keeps no write and no search waiting, and loses nothing that is done
meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app import embedded
from retrieval.stores.milvus import MilvusStore
from retrieval.types import Dense
from tests.conftest import _until_ready
from tests.contract.rows import SPEC, axis, everyone, near, row

PATIENCE = 120.0
FILES = 4
"""Of a size, which are merged."""

# The server, whose merges wait for a file before they write.
HELD = """
import sys, time
from pathlib import Path
from retrieval.stores import milvus_lite, milvus_lite_segments

write, folder = milvus_lite_segments.write_data_file, Path(sys.argv.pop())

def held(*given, **named):
    (folder / "begun").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    return write(*given, **named)

milvus_lite_segments.write_data_file = held
sys.exit(milvus_lite.main())
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[str]:
    """The address of a server whose first merge does not end before `go` is in the folder."""
    part = embedded.milvus(tmp_path / "milvus", embedded.free_port())
    command = [sys.executable, "-c", HELD, *part.command[3:], str(tmp_path)]
    log = tmp_path / "milvus.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **part.environment})
        try:
            asyncio.run(_until_ready(part, process, log))
            yield part.url
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.fixture
async def store(held: str) -> AsyncIterator[MilvusStore]:
    made = MilvusStore(held, timeout=PATIENCE, flush_seconds=0.0)
    await made.prepare(SPEC.generation, SPEC)
    yield made
    await made.close()


async def _found(store: MilvusStore) -> set[int]:
    """The revisions that a search finds."""
    hits = await store.search(SPEC.generation, Dense(axis(0)), everyone(), 50, frozenset())
    return {hit.chunk.revision for hit in hits}


def _files(folder: Path) -> list[Path]:
    return list((folder / "milvus").rglob("data_*.parquet"))


async def _until(done: Path | None, folder: Path) -> None:
    async with asyncio.timeout(PATIENCE):
        while not (done.exists() if done else len(_files(folder)) < FILES):
            await asyncio.sleep(0.05)


async def test_writes_removals_and_searches_go_on_while_segments_are_merged(
    store: MilvusStore, tmp_path: Path
) -> None:
    for revision in range(1, FILES + 1):
        await store.upsert(SPEC.generation, [row(revision, 0, vector=near(0.5))])
    await _until(tmp_path / "begun", tmp_path)
    async with asyncio.timeout(PATIENCE):
        await store.upsert(SPEC.generation, [row(9, 0, vector=near(0.5))])
        await store.remove(SPEC.generation, [2])
        assert await _found(store) == {1, 3, 4, 9}
    assert len(_files(tmp_path)) > FILES
    (tmp_path / "go").touch()
    await _until(None, tmp_path)
    assert await _found(store) == {1, 3, 4, 9}
