"""Several models as one: the next is tried when one cannot begin.

Both a model that is unavailable and one that rejects the request hand over to the next: another model may
have a longer window. After the first delta nothing is tried again, since what was sent stands. When all
fail, the first model's error is raised: it is the one that the release means. A call may spare models from
the front of the chain, under load; the last one is always tried.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from llm.errors import LlmError, ModelRejected, ModelUnavailable
from llm.types import Call, ChatModel, Delta


class Fallback:
    """`models` in the order in which they are tried, at least one. Each gets the time that is left."""

    def __init__(self, models: Sequence[ChatModel]) -> None:
        if not models:
            raise ValueError("A fallback needs at least one model.")
        self._models = tuple(models)

    @property
    def name(self) -> str:
        return self._models[0].name

    async def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        clock = asyncio.get_running_loop().time
        end = clock() + call.timeout
        first: LlmError | None = None
        for model in self._models[min(call.spare, len(self._models) - 1) :]:
            started = False
            try:
                left = replace(call, timeout=end - clock()) if first else call
                async with aclosing(model.stream(left)) as deltas:
                    async for delta in deltas:
                        started = True
                        yield delta
                return
            except (ModelUnavailable, ModelRejected) as error:
                if started:
                    raise
                first = first or error
            if clock() >= end:
                break
        assert first is not None
        raise first
