"""Kept outputs go to the same caller for the same question on the same evidence, and to nobody else."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

import pytest

from llm.cache import Cached
from llm.errors import LlmError, ModelUnavailable, StreamBroken
from llm.fallback import Fallback
from llm.outputs import MemoryOutputs
from llm.scripted import Script, Scripted
from llm.types import Caching, Call, ChatModel, Delta, Message
from tests.calls import SCOPE, call, drain, text

BASE = replace(call("How many days?"), scope=SCOPE)
PROMPT = BASE.prompt


def cached(model: ChatModel, outputs: MemoryOutputs, *, product: str = "1", ttl: float = 60) -> Cached:
    return Cached(model, outputs, ttl=ttl, product=product)


async def test_the_same_question_is_not_asked_of_the_model_again() -> None:
    model = Scripted(Script(pieces=("28", " days")))
    kept = cached(model, MemoryOutputs())
    first, second = await drain(kept, BASE), await drain(kept, BASE)
    assert len(model.calls) == 1
    assert "".join(d.text for d in second) == "".join(d.text for d in first) == "28 days"
    assert replace(second[-1], text="", cached=False) == first[-1]
    assert all(d.cached for d in second)
    assert not any(d.cached for d in first)


@pytest.mark.parametrize(
    "other",
    [
        replace(BASE, scope=replace(SCOPE, tenant="globex")),
        replace(BASE, scope=replace(SCOPE, rights="few")),
        replace(BASE, scope=replace(SCOPE, release="r2")),
        replace(BASE, scope=replace(SCOPE, evidence=("1-1",))),
        replace(BASE, scope=replace(SCOPE, evidence=("1-0", "2-0"))),
        replace(BASE, prompt=replace(PROMPT, messages=(*PROMPT.messages, Message("user", "And now?")))),
        replace(BASE, prompt=replace(PROMPT, messages=(Message("user", "x"), PROMPT.messages[1]))),
        replace(BASE, sampling=replace(BASE.sampling, temperature=0.5)),
        replace(BASE, sampling=replace(BASE.sampling, top_p=0.5)),
        replace(BASE, sampling=replace(BASE.sampling, max_tokens=5)),
        replace(BASE, sampling=replace(BASE.sampling, seed=2)),
        replace(BASE, sampling=replace(BASE.sampling, stop=("x",))),
    ],
)
async def test_a_change_in_any_part_of_the_key_asks_the_model(other: Call) -> None:
    model, outputs = Scripted(), MemoryOutputs()
    await drain(cached(model, outputs), BASE)
    await drain(cached(model, outputs), other)
    assert len(model.calls) == 2


async def test_where_one_message_ends_and_the_next_begins_counts() -> None:
    model, outputs = Scripted(), MemoryOutputs()
    for texts in (("ab", "c"), ("a", "bc")):
        messages = tuple(Message("user", text) for text in texts)
        await drain(cached(model, outputs), replace(BASE, prompt=replace(PROMPT, messages=messages)))
    assert len(model.calls) == 2


async def test_another_product_version_or_model_asks_again() -> None:
    outputs, model, other = MemoryOutputs(), Scripted(), Scripted(name="other")
    await drain(cached(model, outputs), BASE)
    await drain(cached(model, outputs, product="2"), BASE)
    await drain(cached(other, outputs), BASE)
    assert (len(model.calls), len(other.calls)) == (2, 1)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (Script(pieces=("28",), error=StreamBroken("gone")), StreamBroken),
        (Script(error=ModelUnavailable("down")), ModelUnavailable),
    ],
)
async def test_an_answer_that_failed_is_not_kept(script: Script, error: type[LlmError]) -> None:
    model = Scripted(script, Script(pieces=("all 28 days",)))
    kept = cached(model, MemoryOutputs())
    with pytest.raises(error):
        await drain(kept, BASE)
    assert await text(kept, BASE) == "all 28 days"


async def test_an_answer_cut_at_the_token_limit_is_not_kept() -> None:
    model = Scripted(Script(pieces=("28",), finish="length"))
    kept = cached(model, MemoryOutputs())
    await drain(kept, BASE)
    await drain(kept, BASE)
    assert len(model.calls) == 2


async def test_an_answer_that_nobody_waited_for_is_not_kept() -> None:
    model = Scripted(Script(pieces=("28", " days")))
    kept = cached(model, MemoryOutputs())
    async with aclosing(kept.stream(BASE)) as deltas:
        await anext(deltas)
        await anext(deltas)
    assert model.running == 0
    await drain(kept, BASE)
    assert len(model.calls) == 2


async def test_what_a_fallback_said_is_not_kept_as_the_models_answer() -> None:
    down = Scripted(Script(error=ModelUnavailable("down")), Script(pieces=("real",)), name="real")
    chain = Fallback([down, Scripted(Script(pieces=("makeshift",)), name="makeshift")])
    kept = cached(chain, MemoryOutputs())
    assert await text(kept, BASE) == "makeshift"
    assert await text(kept, BASE) == "real"


@pytest.mark.parametrize(("cache", "ttl"), [("off", 60.0), ("use", 0.0)])
async def test_without_caching_nothing_is_read_or_kept(cache: Caching, ttl: float) -> None:
    model, outputs = Scripted(), MemoryOutputs()
    await drain(cached(model, outputs), BASE)
    await drain(cached(model, outputs, ttl=ttl), replace(BASE, cache=cache))
    assert len(model.calls) == 2
    fresh = MemoryOutputs()
    await drain(cached(model, fresh, ttl=ttl), replace(BASE, cache=cache))
    await drain(cached(model, fresh), BASE)
    assert len(model.calls) == 4


async def test_what_must_be_made_anew_is_not_read_from_the_cache_but_kept_for_others() -> None:
    model, outputs = Scripted(), MemoryOutputs()
    await drain(cached(model, outputs), BASE)
    await drain(cached(model, outputs), replace(BASE, cache="fill"))
    assert len(model.calls) == 2
    await drain(cached(model, outputs), BASE)
    assert len(model.calls) == 2


async def test_erasing_a_document_erases_the_answers_made_from_it() -> None:
    model, outputs = Scripted(), MemoryOutputs()
    kept = cached(model, outputs)
    await drain(kept, BASE)
    assert await outputs.forget(["globex/handbook"]) == 0
    assert await outputs.forget(["acme/handbook"]) == 1
    await drain(kept, BASE)
    assert len(model.calls) == 2


async def test_a_replay_is_one_finished_stream() -> None:
    kept = cached(Scripted(Script(pieces=("a", "b"))), MemoryOutputs())
    await drain(kept, BASE)
    replayed: list[Delta] = await drain(kept, BASE)
    assert [(d.text, d.finish) for d in replayed] == [("ab", "stop")]


async def test_an_output_is_kept_before_its_last_part_leaves() -> None:
    """Its caller need not come back for more."""
    model, outputs = Scripted(Script(pieces=("28",))), MemoryOutputs()
    async with aclosing(cached(model, outputs).stream(BASE)) as deltas:
        async for delta in deltas:
            if delta.finish:
                break
    assert (await drain(cached(model, outputs), BASE))[-1].cached
