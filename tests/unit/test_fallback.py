"""The next model answers when one cannot begin, and never in the middle of an answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator

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


async def test_the_next_model_gets_the_time_that_is_left() -> None:
    first = Scripted(Script(pace=0.0, error=ModelUnavailable("x")))
    second = Scripted()
    await text(Fallback([first, second]), call(timeout=5.0))
    assert 0 < second.calls[0].timeout <= 5.0


async def test_closing_the_stream_closes_the_models() -> None:
    second = Scripted(Script(pieces=("a", "b")))
    stream = Fallback([failing(ModelUnavailable("x")), second]).stream(call())
    await anext(stream)
    assert second.running == 1
    await stream.aclose()
    assert second.running == 0
