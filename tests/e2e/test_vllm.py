"""The streaming client against a real vLLM with a tiny model of random weights."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from llm.errors import ModelRejected, StreamBroken
from llm.vllm import Vllm
from tests.calls import call, drain, endless
from tests.vllm_server import VllmServer

# Starting vLLM takes minutes on a busy machine, and the first test waits for it.
pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(600)]


async def settled(server: VllmServer, name: str, value: float) -> float:
    end = time.monotonic() + 30
    while (now := await asyncio.to_thread(server.metric, name)) != value and time.monotonic() < end:
        await asyncio.sleep(0.1)
    return now


@pytest.fixture
async def model(vllm_server: VllmServer) -> AsyncIterator[Vllm]:
    client = Vllm(vllm_server.url, vllm_server.model)
    yield client
    await client.aclose()


async def test_an_answer_streams_piece_by_piece_with_its_counts(model: Vllm) -> None:
    deltas = await drain(model, call("How many days of leave are there?", tokens=32))
    assert len([d for d in deltas if d.text]) > 1
    assert deltas[-1].finish == "length"
    assert deltas[-1].output_tokens == 32
    assert (deltas[-1].prompt_tokens or 0) > 5
    assert [d.finish for d in deltas[:-1]] == [None] * (len(deltas) - 1)


async def test_a_model_is_told_not_to_think_and_its_prompt_counted_with_that(model: Vllm) -> None:
    asked = call("How many days of leave are there?", tokens=2)
    counted = await model.count(asked.prompt.messages)
    assert (await drain(model, asked))[-1].prompt_tokens == counted
    model._fields["chat_template_kwargs"] = False  # as after a refusal
    assert ((await drain(model, asked))[-1].prompt_tokens or 0) < (counted or 0)


async def test_the_same_seed_gives_the_same_answer(model: Vllm) -> None:
    first, second = [await drain(model, call("Again?", tokens=32)) for _ in range(2)]
    assert "".join(d.text for d in first) == "".join(d.text for d in second)


async def test_two_tenants_share_no_cached_prefix(model: Vllm, vllm_server: VllmServer) -> None:
    async def hits(tenant: str) -> float:
        before = vllm_server.metric("vllm:prefix_cache_hits_total")
        await drain(model, call("The same long text. " * 100, tokens=2, tenant=tenant))
        return vllm_server.metric("vllm:prefix_cache_hits_total") - before

    assert await hits("one") == 0
    assert await hits("one") > 0
    assert await hits("two") == 0


async def test_closing_the_stream_frees_the_slot(model: Vllm, vllm_server: VllmServer) -> None:
    stream = model.stream(endless(60))
    await anext(stream)
    assert await settled(vllm_server, "vllm:num_requests_running", 1) == 1
    before = vllm_server.metric("vllm:generation_tokens_total")
    await stream.aclose()
    assert await settled(vllm_server, "vllm:num_requests_running", 0) == 0
    assert vllm_server.metric("vllm:generation_tokens_total") - before < 3000


async def test_a_cancelled_task_frees_the_slot(model: Vllm, vllm_server: VllmServer) -> None:
    task = asyncio.create_task(drain(model, endless(60)))
    assert await settled(vllm_server, "vllm:num_requests_running", 1) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await settled(vllm_server, "vllm:num_requests_running", 0) == 0


async def test_many_questions_run_at_once(model: Vllm) -> None:
    answers = await asyncio.gather(*(drain(model, call(f"Question {n}?", tokens=64)) for n in range(16)))
    assert [a[-1].output_tokens for a in answers] == [64] * 16


async def test_a_prompt_longer_than_the_window_is_rejected(model: Vllm) -> None:
    with pytest.raises(ModelRejected, match="400"):
        await drain(model, call("word " * 20_000))


async def test_an_unknown_model_is_rejected(vllm_server: VllmServer) -> None:
    client = Vllm(vllm_server.url, "another")
    with pytest.raises(ModelRejected, match="another"):
        await drain(client, call("?"))
    await client.aclose()


async def test_a_deadline_in_mid_stream_breaks_it_and_frees_the_slot(
    model: Vllm, vllm_server: VllmServer
) -> None:
    with pytest.raises(StreamBroken, match="time was up"):
        await drain(model, endless(3.0))
    assert await settled(vllm_server, "vllm:num_requests_running", 0) == 0
