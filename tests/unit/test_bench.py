"""Measurements that could flatter are worse than none: overlaps count once, and waiting counts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from eval.bench.corpus import Corpus
from eval.bench.load import at_rate, latencies, one_by_one
from eval.bench.standins import Intervals
from eval.bench.streams import told
from eval.bench.wire import Connection, Reply, WireError


def test_times_of_parts_that_work_side_by_side_count_once() -> None:
    spans = {"store": [(0.0, 2.0), (1.0, 3.0)], "model": [(2.5, 4.0), (6.0, 7.0)], "embedding": [(9.0, 9.5)]}
    intervals = Intervals(spans)
    assert intervals.of("store") == 3.0
    assert intervals.of("store", "model") == 5.0
    assert intervals.of("store", "model", "embedding") == 5.5
    assert Intervals().of("store") == 0.0


def test_failures_are_counted_and_do_not_make_the_rest_look_slow_or_fast() -> None:
    told = latencies([0.001, 0.002, 0.003], failed=2, elapsed=0.5)
    assert (told.requests, told.failed, told.p50, told.rate) == (3, 2, 2.0, 6.0)


def test_the_same_number_draws_the_same_question() -> None:
    one, other = Corpus(20), Corpus(20)
    assert one.question(3) == other.question(3) != one.question(4)
    assert [d["text"] for batch in one.batches() for d in batch] == [
        d["text"] for batch in other.batches() for d in batch
    ]


def _chunk(content: str) -> bytes:
    return b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % content.encode()


def _streamed(*pieces: tuple[float, bytes], status: int = 200) -> Reply:
    return Reply(sent=1.0, status=status, first=pieces[0][0], last=pieces[-1][0], pieces=list(pieces))


END = b'data: {"choices":[],"usage":{"completion_tokens":3}}\n\ndata: [DONE]\n\n'


def test_the_first_token_counts_when_its_text_comes_and_from_when_it_was_due() -> None:
    told_apart = _streamed((2.0, _chunk("")), (3.0, _chunk("one ")), (4.0, _chunk("two") + END))
    assert told(told_apart, 0.5).first == 2.5
    together = _streamed((2.0, _chunk("") + _chunk("one ")), (4.0, _chunk("two") + END))
    assert told(together, 0.5).first == 1.5
    one, text, more = _chunk("one ").partition(b'"content":')
    cut = _streamed((2.0, one + text), (3.0, more), (4.0, END))
    assert told(cut, 0.5).first == 2.5


def test_an_answer_that_broke_off_or_was_made_with_less_is_not_whole() -> None:
    whole = told(_streamed((1.0, _chunk("one two") + END)), 0.0)
    assert (whole.whole, whole.text, whole.tokens) == (True, "one two", 3)
    less = b'data: {"choices":[],"plumbline":{"degraded":["model:extractive"]}}\n\n'
    assert not told(_streamed((1.0, _chunk("one two") + less + END)), 0.0).whole
    assert not told(_streamed((1.0, _chunk("one"))), 0.0).whole
    assert not told(_streamed((1.0, b'{"error": {}}'), status=429), 0.0).whole


@contextlib.asynccontextmanager
async def _server(pause: float) -> AsyncIterator[str]:
    """Answers each request after a pause, one after the other over all connections."""
    turn = asyncio.Lock()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0]))
                async with turn:
                    await asyncio.sleep(pause)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _ask(connection: Connection, n: int) -> Reply:
    return await connection.post("/", b"{}")


async def test_an_open_loop_counts_the_time_that_requests_were_kept_waiting() -> None:
    async with _server(0.05) as url, Connection(url) as one, Connection(url) as other:
        told = await at_rate([one, other], _ask, rate=200, requests=12)
    # Due within a tenth of a second, served one every 50 ms: the last waited for all before it.
    assert max(seconds for seconds, _ in told) > 0.3
    assert all(reply.status == 200 and reply.body == b"ok" for _, reply in told)


async def test_a_connection_that_the_server_closed_is_opened_again() -> None:
    async with _server(0.0) as url, Connection(url) as connection:
        first = await one_by_one(connection, _ask, range(2))
        transport = connection._transport
        assert transport is not None
        transport.abort()
        await asyncio.sleep(0)
        again = await connection.post("/", b"{}")
    assert [reply.status for reply in (*first, again)] == [200, 200, 200]
    assert first[0].sent <= first[0].first <= first[0].last <= time.perf_counter()


async def test_nobody_there_is_said_in_a_sentence() -> None:
    with pytest.raises(WireError, match="Nothing answers at"):
        async with Connection("http://127.0.0.1:1"):
            pass
