"""What every model promises, whether it is built in, scripted or behind a URL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace

import pytest

from eval.bench.paced import ECHO, PacedServer
from llm.breaker import Breaker
from llm.cache import Cached
from llm.extractive import Extractive
from llm.fallback import Fallback
from llm.outputs import MemoryOutputs
from llm.scripted import Script, Scripted
from llm.types import ChatModel, Passage
from llm.vllm import Vllm
from tests.calls import asked, drain, text
from tests.paced import serving

PASSAGES = (
    Passage(1, "Paid leave", "Every employee has 28 days of paid leave. Leave is asked for in the portal."),
    Passage(2, "Prices", "A station costs 2,150 EUR and is paid for within 30 days of the invoice."),
)
CALL = asked("How many days of paid leave does an employee have?", PASSAGES)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(PacedServer()) as address:
        yield address


MODELS: Mapping[str, Callable[[ChatModel], ChatModel]] = {
    "scripted": lambda served: Scripted(Script(pieces=("There are 28 days", " of paid leave. [1]"))),
    "extractive": lambda served: Extractive(),
    "vllm": lambda served: served,
    "wrapped": lambda served: Fallback(
        [Cached(Breaker(served), MemoryOutputs(), ttl=60, product="1"), Extractive()]
    ),
}
"""Each given one behind a URL. A new one needs a line here."""


@pytest.fixture(params=MODELS)
async def model(request: pytest.FixtureRequest, url: str) -> AsyncIterator[ChatModel]:
    served = Vllm(url, ECHO)
    yield MODELS[request.param](served)
    await served.aclose()


async def test_only_the_last_delta_says_that_the_output_is_finished(model: ChatModel) -> None:
    deltas = await drain(model, CALL)
    assert deltas[-1].finish == "stop"
    assert all(delta.finish is None for delta in deltas[:-1])


async def test_the_counts_are_known_at_the_end(model: ChatModel) -> None:
    last = (await drain(model, CALL))[-1]
    assert last.prompt_tokens is not None
    assert last.prompt_tokens > 0
    assert last.output_tokens is not None
    assert last.output_tokens > 0


async def test_every_delta_names_the_model_that_spoke(model: ChatModel) -> None:
    assert {delta.model for delta in await drain(model, CALL)} == {model.name}


async def test_the_answer_comes_from_the_passages_with_a_marker(model: ChatModel) -> None:
    answer = await text(model, CALL)
    assert "28 days" in answer
    assert "[1]" in answer
    assert "[2]" not in answer


async def test_the_same_question_gets_the_same_answer(model: ChatModel) -> None:
    assert await text(model, CALL) == await text(model, CALL)


async def test_a_stream_may_be_left_at_any_time_and_the_model_asked_again(model: ChatModel) -> None:
    async with aclosing(model.stream(CALL)) as deltas:
        await anext(deltas)
    assert "28 days" in await text(model, CALL)


async def test_streams_side_by_side_do_not_mix(model: ChatModel) -> None:
    async with aclosing(model.stream(CALL)) as one, aclosing(model.stream(CALL)) as other:
        first = [(await anext(one)).text, (await anext(other)).text]
        rest = ["".join([d.text async for d in one]), "".join([d.text async for d in other])]
    assert first[0] + rest[0] == first[1] + rest[1]


async def test_an_output_cut_at_the_token_limit_says_so(url: str) -> None:
    served = Vllm(url, "paced?length=3&finish=length")
    short = replace(CALL, sampling=replace(CALL.sampling, max_tokens=3))
    for model in (served, Extractive(), Scripted(Script(pieces=("a", "b", "c"), finish="length"))):
        assert (await drain(model, short))[-1].finish == "length"
    await served.aclose()
