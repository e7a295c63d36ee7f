"""Several processes write one Milvus Lite, as workers do, while others search and delete in it."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval.stores.milvus import MilvusStore
from retrieval.types import Keyword, Query, Row
from tests.contract.rows import ANYTHING, DIMENSION, SPEC, everyone, row
from tests.contract.test_milvus_outage import GENERATION, Server

WRITERS = 3
ROUNDS = 8
ROWS = 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    started = Server(tmp_path / "milvus")
    yield started
    started.kill()


def _rows(revision: int) -> list[Row]:
    one = row(revision)
    dice = np.random.default_rng(revision)
    return [
        Row(
            chunk=replace(one.chunk, id=f"{revision}-{n}", ordinal=n),
            vector=dice.standard_normal(DIMENSION).astype(np.float32),
            terms=f"word r{revision} n{n}",
        )
        for n in range(ROWS)
    ]


async def _all(store: MilvusStore, query: Query, revisions: Sequence[int]) -> dict[int, int]:
    """How many rows of each of these revisions are found."""
    hits = await store.search(GENERATION, query, everyone(), 16_000, frozenset())
    found = [hit.chunk.revision for hit in hits]
    return {revision: found.count(revision) for revision in revisions if revision in found}


async def _write(url: str, number: int) -> list[str]:
    store = MilvusStore(url, flush_seconds=0.02)
    wrong = []
    try:
        await store.prepare(GENERATION, SPEC)
        for turn in range(ROUNDS):
            kept, gone = 1_000 * number + 2 * turn, 1_000 * number + 2 * turn + 1
            await asyncio.gather(store.upsert(GENERATION, _rows(kept)), store.upsert(GENERATION, _rows(gone)))
            await store.remove(GENERATION, [gone])
            for query in (ANYTHING, Keyword("word")):
                found = await _all(store, query, [kept, gone])
                if found != {kept: ROWS}:
                    wrong.append(f"{type(query).__name__}: {found} of {kept}, without {gone}")
    finally:
        await store.close()
    return wrong


def _in_a_process(url: str, number: int) -> list[str]:
    return asyncio.run(_write(url, number))


async def test_what_several_processes_write_is_whole_at_once_and_after_a_kill(server: Server) -> None:
    await server.start()
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(WRITERS, multiprocessing.get_context("spawn")) as pool:
        calls = (loop.run_in_executor(pool, _in_a_process, server.url, number) for number in range(WRITERS))
        assert await asyncio.gather(*calls) == [[]] * WRITERS
    server.kill()
    await server.start()
    kept = [1_000 * number + 2 * turn for number in range(WRITERS) for turn in range(ROUNDS)]
    store = MilvusStore(server.url)
    try:
        for query in (ANYTHING, Keyword("word")):
            hits = await store.search(GENERATION, query, everyone(), 16_000, frozenset())
            assert len(hits) == len(kept) * ROWS
            assert {hit.chunk.revision for hit in hits} == set(kept)
    finally:
        await store.close()


async def test_a_row_scores_the_same_however_its_neighbours_were_flushed_and_merged(server: Server) -> None:
    await server.start()
    store = MilvusStore(server.url, flush_seconds=0.0)
    try:
        await store.prepare(GENERATION, SPEC)
        # Each a segment of its own; then they are merged behind our backs.
        for revision in range(1, 13):
            await store.upsert(GENERATION, _rows(revision)[:3])
        await store.remove(GENERATION, [5, 6])
        scores = set[tuple[float, ...]]()
        for _ in range(20):
            hits = await store.search(GENERATION, Keyword("word r7"), everyone(), 100, frozenset())
            assert {hit.chunk.revision for hit in hits} == set(range(1, 13)) - {5, 6}
            assert [hit.chunk.revision for hit in hits[:3]] == [7, 7, 7]
            scores.add(tuple(round(hit.score, 6) for hit in hits[:1]))
            await asyncio.sleep(0.05)
        assert len(scores) <= 2  # Deleted rows count until they are merged away.
    finally:
        await store.close()
