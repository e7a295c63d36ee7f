"""A follow-up question made to stand on its own, so that search understands it.

Lives here because it needs both siblings: the model rewrites, retrieval uses the result.
"""

from __future__ import annotations

from contextlib import aclosing

from app import deadline
from app.answers import rights
from app.serving import Serving
from app.types import Question
from llm.errors import LlmError
from llm.followup import TURNS
from llm.types import Call, Message, Sampling, Scope


async def standalone(
    question: Question, serving: Serving, product: str, spare: int = 0
) -> tuple[str, tuple[str, ...]]:
    """The query for this question and what was done without; without history it is the question. `spare` is
    that of `Call`."""
    *history, last = question.messages
    turns = [m for m in history if m.role != "system"][-TURNS:]
    if not turns:
        return last.content, ()
    release = serving.release
    call = Call(
        prompt=release.rewrite.render(history=_transcript(turns), question=last.content),
        sampling=Sampling(temperature=0.0, max_tokens=128),
        scope=Scope(
            tenant=question.where.tenant,
            rights=rights(question.where),
            release=f"{release.fingerprint}/{product}",
            evidence=(),
        ),
        timeout=deadline.left(question.deadline) / 3,
        cache=question.cache,
        spare=spare,
    )
    try:
        async with aclosing(serving.model.stream(call)) as deltas:
            said = [delta async for delta in deltas]
    except LlmError:
        return last.content, ("rewrite",)
    query = "".join(delta.text for delta in said).strip()
    return (query or last.content), serving.other_model(said[-1].model)


def _transcript(turns: list[Message]) -> str:
    return "\n".join(f"{turn.role}: {turn.content}" for turn in turns)
