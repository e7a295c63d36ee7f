"""A model that is down is left alone, and is noticed when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from llm.breaker import Breaker
from llm.errors import (
    LlmError,
    ModelOverloaded,
    ModelRejected,
    ModelTimeout,
    ModelUnavailable,
    PromptInvalid,
    StreamBroken,
)
from llm.scripted import Script, Scripted
from llm.types import Call, Delta
from tests.calls import becomes, call, drain

DOWN = Script(error=ModelUnavailable("down"))
UP = Script(pieces=("Hi",))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def fail(breaker: Breaker, times: int, error: type[LlmError] = ModelUnavailable) -> None:
    for _ in range(times):
        with pytest.raises(error):
            await drain(breaker, call())


async def test_a_model_that_keeps_failing_is_no_longer_asked() -> None:
    model, clock = Scripted(DOWN), Clock()
    breaker = Breaker(model, failures=3, clock=clock)
    await fail(breaker, 10)
    assert len(model.calls) == 3
    assert breaker.state == "open"


async def test_the_first_word_after_the_outage_lets_everybody_in_again() -> None:
    model, clock = Scripted(DOWN, DOWN, DOWN, UP), Clock()
    breaker = Breaker(model, failures=3, reset=2.0, clock=clock)
    await fail(breaker, 4)
    clock.now += 2.0
    async with aclosing(breaker.stream(call())) as deltas:
        await anext(deltas)
        assert breaker.state == "closed"
    await drain(breaker, call())
    assert len(model.calls) == 5


async def test_one_call_at_a_time_looks_whether_the_model_is_back() -> None:
    model, clock = Scripted(DOWN), Clock()
    breaker = Breaker(model, failures=3, reset=2.0, clock=clock)
    await fail(breaker, 3)
    for _ in range(4):
        clock.now += 2.0
        await fail(breaker, 5)
    assert len(model.calls) == 3 + 4


async def test_a_probe_that_is_given_up_does_not_block_the_next() -> None:
    model, clock = Scripted(DOWN, Script(pieces=("late",), pace=60.0), UP), Clock()
    breaker = Breaker(model, failures=1, reset=2.0, clock=clock)
    await fail(breaker, 1)
    clock.now += 2.0
    probe = asyncio.create_task(drain(breaker, call()))
    assert await becomes(lambda: model.running == 1)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    clock.now += 2.0
    assert (await drain(breaker, call()))[-1].finish == "stop"


async def test_failures_with_successes_between_them_do_not_open_it() -> None:
    model = Scripted(*[DOWN, DOWN, UP] * 4)
    breaker = Breaker(model, failures=3, clock=Clock())
    for _ in range(4):
        await fail(breaker, 2)
        await drain(breaker, call())
    assert breaker.state == "closed"


async def test_failures_far_apart_do_not_open_it() -> None:
    clock = Clock()
    breaker = Breaker(Scripted(DOWN), failures=3, window=10.0, clock=clock)
    for _ in range(9):
        await fail(breaker, 1)
        clock.now += 6.0
    assert breaker.state == "closed"


async def test_streams_that_break_off_open_it() -> None:
    breaker = Breaker(Scripted(Script(pieces=("H",), error=StreamBroken("gone"))), failures=3, clock=Clock())
    await fail(breaker, 3, StreamBroken)
    assert breaker.state == "open"


@pytest.mark.parametrize("error", [ModelRejected("too long"), ModelOverloaded("busy", 1.0)])
async def test_a_model_that_answers_is_not_down(error: LlmError) -> None:
    breaker = Breaker(Scripted(Script(error=error)), failures=1, clock=Clock())
    await fail(breaker, 3, type(error))
    assert breaker.state == "closed"


async def test_an_impatient_caller_cannot_take_the_model_from_the_others() -> None:
    breaker = Breaker(Scripted(Script(error=ModelTimeout("slow"))), failures=1, clock=Clock())
    for _ in range(3):
        with pytest.raises(ModelTimeout):
            await drain(breaker, call(timeout=0.1))
    assert breaker.state == "closed"


async def test_closing_a_stream_closes_the_models() -> None:
    model = Scripted(Script(pieces=("a", "b")))
    stream = Breaker(model).stream(call())
    await anext(stream)
    assert model.running == 1
    await stream.aclose()
    assert model.running == 0


async def test_a_stream_that_the_callers_own_time_cut_off_does_not_blame_the_model() -> None:
    clock = Clock()

    class CutOff(Scripted):
        takes = 0.0

        async def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
            yield Delta(text="half", model=self.name)
            clock.now += self.takes
            raise StreamBroken("gone")

    model, states = CutOff(), list[str]()
    breaker = Breaker(model, failures=3, window=1_000.0, clock=clock)
    for model.takes in (call().timeout, call().timeout - 1):
        await fail(breaker, 3, StreamBroken)
        states.append(breaker.state)
    assert states == ["closed", "open"]


class Hanging(Scripted):
    """Is down, and tells its first caller so only when it is let."""

    def __init__(self) -> None:
        super().__init__(DOWN)
        self.asked = 0
        self.let = asyncio.Event()

    async def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        self.asked += 1
        if self.asked == 1:
            await self.let.wait()
        async for delta in super().stream(call):
            yield delta


async def test_calls_that_fail_late_put_the_next_look_off_no_further() -> None:
    model, clock = Hanging(), Clock()
    breaker = Breaker(model, failures=1, reset=2.0, clock=clock)
    slow = asyncio.create_task(drain(breaker, call()))
    assert await becomes(lambda: model.asked == 1)
    await fail(breaker, 1)
    clock.now += 1.5
    model.let.set()
    with pytest.raises(ModelUnavailable):
        await slow
    clock.now += 0.5
    assert breaker.due


async def test_what_is_wrong_with_a_release_says_nothing_of_the_model() -> None:
    breaker = Breaker(Scripted(Script(error=PromptInvalid("no placeholder"))), failures=1)
    await fail(breaker, 5, PromptInvalid)
    assert breaker.state == "closed"
