"""The next model answers when one cannot begin, and never in the middle of an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from llm.errors import LlmError, ModelOverloaded, ModelRejected, ModelTimeout, ModelUnavailable, StreamBroken
from llm.fallback import Fallback
from llm.scripted import Script, Scripted
from llm.types import Call, Delta
from tests.calls import call, drain, text


def failing(error: LlmError, *pieces: str) -> Scripted:
    return Scripted(Script(pieces=pieces, error=error), name="first")


@pytest.mark.parametrize(
    "error", [ModelUnavailable("x"), ModelOverloaded("x"), ModelTimeout("x"), ModelRejected("too long")]
)
async def test_the_next_model_answers_when_the_first_cannot(error: LlmError) -> None:
    second = Scripted(Script(pieces=("Hi",)), name="second")
    deltas = await drain(Fallback([failing(error), second]), call())
    assert {d.model for d in deltas} == {"second"}
    assert deltas[0].text == "Hi"


async def test_an_answer_that_breaks_off_is_not_begun_again() -> None:
    second = Scripted(name="second")
    stream = Fallback([failing(StreamBroken("gone"), "Hel"), second]).stream(call())
    assert (await anext(stream)).text == "Hel"
    with pytest.raises(StreamBroken):
        await anext(stream)
    assert second.calls == []


async def test_not_even_a_model_that_reports_it_wrongly_gets_a_second_beginning() -> None:
    class Rude:
        name = "rude"

        async def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
            yield Delta(text="Hel", model=self.name)
            raise ModelUnavailable("too late to say")

    second = Scripted(name="second")
    with pytest.raises(ModelUnavailable):
        await drain(Fallback([Rude(), second]), call())
    assert second.calls == []


async def test_when_all_fail_the_first_models_error_is_told() -> None:
    models = [failing(ModelOverloaded("busy", 3.0)), failing(ModelUnavailable("down"))]
    with pytest.raises(ModelOverloaded) as caught:
        await text(Fallback(models), call())
    assert caught.value.retry_after == 3.0


class Slow(Scripted):
    """Takes a while to begin, or to say that it cannot."""

    async def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        await asyncio.sleep(0.1)
        async for delta in super().stream(call):
            yield delta


SLOWLY_DOWN = Script(error=ModelUnavailable("down"))


async def test_what_a_model_took_in_vain_is_taken_off_the_time_of_the_next() -> None:
    second = Scripted()
    await text(Fallback([Slow(SLOWLY_DOWN), second]), call(timeout=5.0))
    assert second.calls[0].timeout <= 4.9


async def test_when_the_time_is_over_no_other_model_is_asked() -> None:
    second = Scripted()
    with pytest.raises(ModelUnavailable):
        await text(Fallback([Slow(SLOWLY_DOWN), second]), call(timeout=0.05))
    assert second.calls == []


@pytest.mark.parametrize(("spare", "asked"), [(0, [1, 0, 0]), (1, [0, 1, 0]), (2, [0, 0, 1]), (9, [0, 0, 1])])
async def test_models_are_spared_from_the_front_and_the_last_one_never(spare: int, asked: list[int]) -> None:
    models = [Scripted() for _ in asked]
    await text(Fallback(models), replace(call(), spare=spare))
    assert [len(model.calls) for model in models] == asked


async def test_closing_the_stream_closes_the_models() -> None:
    second = Scripted(Script(pieces=("a", "b")))
    stream = Fallback([failing(ModelUnavailable("x")), second]).stream(call())
    await anext(stream)
    assert second.running == 1
    await stream.aclose()
    assert second.running == 0


async def test_the_next_model_has_all_the_time_that_is_left() -> None:
    second = Scripted(name="second")
    await drain(Fallback([failing(ModelUnavailable("x")), second]), call(timeout=100.0))
    assert 90.0 < second.calls[0].timeout <= 100.0
