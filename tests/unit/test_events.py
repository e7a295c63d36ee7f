"""Server-sent events in pieces of any size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.events import LONGEST, Events, EventTooLong

STREAM = (
    '\ufeff: hi\r\ndata: {"a": "ü€😀"}\r\n\r\nevent: x\r\ndata:one\r\ndata: two\n\n\rdata: [DONE]\r\rdata: x'
).encode()
SAID = ['{"a": "ü€😀"}', "one\ntwo", "[DONE]"]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_are_the_same_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    events, said, before = Events(), list[str](), 0
    for cut in [*sorted(cuts), len(STREAM)]:
        said += events.feed(STREAM[before:cut])
        before = cut
    assert said == SAID


def test_events_come_out_of_single_bytes() -> None:
    events = Events()
    assert [data for byte in STREAM for data in events.feed(bytes([byte]))] == SAID


def test_an_event_that_never_ends_is_refused() -> None:
    events = Events()
    with pytest.raises(EventTooLong):
        for _ in range(LONGEST // 1000 + 2):
            events.feed(b"data: " + b"x" * 1000)
