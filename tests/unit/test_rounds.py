"""Writes that share a commit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from retrieval.errors import StoreUnavailable
from retrieval.stores.rounds import Rounds


class Log:
    """Notes what is committed, takes a moment for it, and knows whether two commits ever overlapped."""

    def __init__(self) -> None:
        self.commits: list[list[str]] = []
        self.overlapped = False
        self._busy = False

    async def commit(self, writes: Sequence[str]) -> None:
        self.overlapped |= self._busy
        self._busy = True
        await asyncio.sleep(0.01)
        self._busy = False
        if "bad" in writes:
            raise StoreUnavailable("refused")
        self.commits.append(list(writes))


async def test_a_single_write_is_committed_at_once() -> None:
    log = Log()
    rounds = Rounds(log.commit, rows=100, seconds=3600)
    await rounds.write("a", 1)
    assert log.commits == [["a"]]


async def test_writes_that_come_during_a_commit_share_the_next_and_none_overlap() -> None:
    log = Log()
    rounds = Rounds(log.commit, rows=100, seconds=0)
    first = asyncio.create_task(rounds.write("a", 1))
    await asyncio.sleep(0.005)
    await asyncio.gather(first, rounds.write("b", 1), rounds.write("c", 1))
    await rounds.write("d", 1)
    assert log.commits == [["a"], ["b", "c"], ["d"]]
    assert not log.overlapped


async def test_a_stream_of_writes_waits_for_time_or_rows() -> None:
    log = Log()
    rounds = Rounds(log.commit, rows=3, seconds=3600)
    await rounds.write("a", 1)
    waiting = asyncio.create_task(rounds.write("b", 2))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await rounds.write("c", 1)
    await waiting
    assert log.commits == [["a"], ["b", "c"]]


async def test_a_failed_commit_is_told_to_all_its_writers_and_to_no_other() -> None:
    log = Log()
    rounds = Rounds(log.commit, rows=2, seconds=3600)
    await rounds.write("a", 1)
    outcomes = await asyncio.gather(rounds.write("bad", 1), rounds.write("b", 1), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable, StoreUnavailable]
    await rounds.write("c", 2)
    assert log.commits == [["a"], ["c"]]


async def test_a_writer_that_gives_up_does_not_undo_the_others() -> None:
    log = Log()
    rounds = Rounds(log.commit, rows=100, seconds=0)
    impatient = asyncio.create_task(rounds.write("a", 1))
    patient = asyncio.create_task(rounds.write("b", 1))
    await asyncio.sleep(0.005)
    impatient.cancel()
    await patient
    assert log.commits == [["a", "b"]]
    with pytest.raises(asyncio.CancelledError):
        await impatient


async def test_closing_tells_those_who_wait() -> None:
    log = Log()
    rounds = Rounds(log.commit, rows=100, seconds=3600)
    await rounds.write("a", 1)
    waiting = asyncio.create_task(rounds.write("b", 1))
    await asyncio.sleep(0)
    await rounds.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await waiting
