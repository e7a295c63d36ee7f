"""Calls to models, as the tests make them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from llm.language import not_found
from llm.prompts import load_template, render_passages
from llm.types import Call, ChatModel, Delta, Message, Passage, Prompt, Sampling, Scope

SCOPE = Scope(tenant="acme", rights="all", release="r1", evidence=("1-0",), documents=("handbook",))


def call(text: str = "Hello?", *, tokens: int = 512, timeout: float = 20.0, tenant: str = "acme") -> Call:
    """A question without passages."""
    return Call(
        prompt=Prompt("answer", "0", (Message("system", "Answer."), Message("user", text))),
        sampling=Sampling(max_tokens=tokens, seed=1),
        scope=Scope(tenant=tenant, rights="all", release="r1", evidence=()),
        timeout=timeout,
    )


def asked(
    question: str, passages: Sequence[Passage], *, tokens: int = 512, stop: tuple[str, ...] = ()
) -> Call:
    """The call that a question about these passages becomes."""
    prompt = load_template("answer").render(
        passages=render_passages(passages), question=question, not_found=not_found(question)
    )
    sampling = Sampling(max_tokens=tokens, stop=stop)
    return Call(prompt=prompt, sampling=sampling, scope=SCOPE, timeout=20.0)


def endless(timeout: float) -> Call:
    """What a model with random weights would now and then end by itself, were it let to."""
    wanted = call("Tell me everything.", tokens=3500, timeout=timeout)
    return replace(wanted, sampling=replace(wanted.sampling, min_tokens=3500))


async def drain(model: ChatModel, wanted: Call) -> list[Delta]:
    async with aclosing(model.stream(wanted)) as deltas:
        return [delta async for delta in deltas]


async def text(model: ChatModel, wanted: Call) -> str:
    return "".join(delta.text for delta in await drain(model, wanted))


async def becomes(condition: Callable[[], bool]) -> bool:
    """Whether the condition holds within half a minute."""
    for _ in range(3_000):
        if condition():
            return True
        await asyncio.sleep(0.01)
    return False
