"""What was removed leaves the disk, where Milvus Lite's files are looked through; searches and writes go on,
and a server that is killed has lost nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from app import embedded
from retrieval.errors import StoreUnavailable
from retrieval.stores.milvus import MilvusStore
from retrieval.types import Dense, IndexSpec, Keyword, Row
from tests.conftest import _until_ready
from tests.contract.rows import SPEC, axis, everyone, near, row

CANARY = "zanzibarquokka"


def planted(revision: int, rows: int = 1, text: str = "plain words") -> list[Row]:
    return [
        row(revision, n, text=f"{text} {revision} {n}", terms=f"{text} {revision}", vector=near(0.5))
        for n in range(rows)
    ]


def texts_in(folder: Path) -> str:
    """Every byte of every file below, and every value of every column of those that are compressed."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            found.append(path.read_bytes().decode("latin-1"))
            if path.suffix == ".parquet":
                found.append(str(pq.read_table(path).to_pydict()))
    return "\n".join(found)


@contextmanager
def server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    part = embedded.milvus(folder, port)
    with (folder.parent / "milvus.log").open("ab") as log:
        process = subprocess.Popen(
            part.command, stdout=log, stderr=log, env={**os.environ, **part.environment}
        )
        try:
            asyncio.run(_until_ready(part, process, folder.parent / "milvus.log"))
            yield process
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lite") / "milvus"


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    number = embedded.free_port()
    with server(folder, number):
        yield number


@pytest.fixture
async def store(port: int) -> AsyncIterator[MilvusStore]:
    store = MilvusStore(f"http://127.0.0.1:{port}", flush_seconds=0.01)
    yield store
    await store.close()


async def found(store: MilvusStore, generation: str, terms: str = "") -> set[str]:
    query = Keyword(terms) if terms else Dense(axis(0))
    hits = await store.search(generation, query, everyone(), 10_000, frozenset())
    return {hit.chunk.id for hit in hits}


async def test_removed_rows_leave_the_files_and_the_others_stay(store: MilvusStore, folder: Path) -> None:
    generation = uuid.uuid4().hex[:16]
    await store.prepare(generation, SPEC)
    await store.upsert(generation, [*planted(1, 3), *planted(2, 2, CANARY)])
    await store.upsert(generation, [*planted(3, 2, CANARY), *planted(4, 2)])
    # Its index is in memory by now, and must be the right one afterwards.
    before = await store.search(generation, Keyword("plain"), everyone(), 10, frozenset())
    await store.remove(generation, [2, 3])
    assert CANARY in texts_in(folder)

    assert await store.purge(generation) is True

    assert CANARY not in texts_in(folder)
    assert await found(store, generation) == {"1-0", "1-1", "1-2", "4-0", "4-1"}
    assert await found(store, generation, CANARY) == set()
    after = await store.search(generation, Keyword("plain"), everyone(), 10, frozenset())
    assert {hit.chunk.id for hit in after} == {hit.chunk.id for hit in before}
    await store.drop(generation)


async def test_scores_after_a_purge_are_those_of_an_index_that_never_held_the_rows(
    store: MilvusStore,
) -> None:
    purged, fresh = uuid.uuid4().hex[:16], uuid.uuid4().hex[:16]
    kept = [*planted(1, 3, "some rare words"), *planted(4, 2, "words")]
    for generation, rows in ((purged, [*kept, *planted(2, 4, "rare")]), (fresh, kept)):
        await store.prepare(generation, SPEC)
        await store.upsert(generation, rows)
    await found(store, purged, "rare words")
    await store.remove(purged, [2])
    await store.purge(purged)
    told = [
        await store.search(one, Keyword("rare words"), everyone(), 9, frozenset()) for one in (purged, fresh)
    ]
    assert [hit.chunk.id for hit in told[0]] == [hit.chunk.id for hit in told[1]]
    assert [hit.score for hit in told[0]] == pytest.approx([hit.score for hit in told[1]])
    await store.drop(purged)
    await store.drop(fresh)


async def test_searches_and_writes_go_on_while_a_purge_runs(store: MilvusStore) -> None:
    generation, stays = uuid.uuid4().hex[:16], {f"1-{n}" for n in range(50)}
    await store.prepare(generation, SPEC)
    await store.upsert(generation, planted(1, 50))
    for revision in range(100, 110):
        await store.upsert(generation, planted(revision, 100))
    await store.remove(generation, range(100, 110))
    purging = asyncio.create_task(store.purge(generation))
    written = 0
    while not purging.done():
        written += 1
        await store.upsert(generation, planted(200 + written))
        assert stays <= await found(store, generation), "a row that was there all the while was missed"
    assert await purging is True
    later = {f"{200 + n}-0" for n in range(1, written + 1)}
    assert await found(store, generation) == stays | later
    await store.drop(generation)


async def test_killed_in_the_middle_of_a_purge_nothing_is_lost(tmp_path: Path) -> None:
    folder, port, generation = tmp_path / "milvus", embedded.free_port(), "0123456789abcdef"
    store = MilvusStore(f"http://127.0.0.1:{port}", flush_seconds=0.01)
    spec: IndexSpec = replace(SPEC)
    for kill_after in (0.0, 0.05, 0.2):
        with await asyncio.to_thread(_started, folder, port) as process:
            await store.prepare(generation, spec)
            await store.upsert(generation, planted(1, 20))
            for revision in range(2, 6):
                await store.upsert(generation, [*planted(revision, 50, CANARY), *planted(10 + revision, 5)])
            await store.remove(generation, range(2, 6))
            purging = asyncio.create_task(store.purge(generation))
            await asyncio.sleep(kill_after)
            process.send_signal(signal.SIGKILL)
            with pytest.raises((StoreUnavailable, AssertionError)):
                await purging
                raise AssertionError("it was quicker than the kill")
        with await asyncio.to_thread(_started, folder, port):
            await _until_back(store, generation, spec)
            kept = {f"1-{n}" for n in range(20)} | {f"{10 + r}-{n}" for r in range(2, 6) for n in range(5)}
            assert await found(store, generation) == kept
            assert await store.purge(generation) is True
            assert CANARY not in texts_in(folder)
    await store.close()


async def _until_back(store: MilvusStore, generation: str, spec: IndexSpec) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            return await store.prepare(generation, spec)
        except StoreUnavailable:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.1)


def _started(folder: Path, port: int) -> _Server:
    return _Server(folder, port)


class _Server:
    """`server`, entered in a thread: it waits with an event loop of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self._context = server(folder, port)
        self._process = self._context.__enter__()

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._process

    def __exit__(self, *raised: object) -> None:
        self._context.__exit__(None, None, None)
