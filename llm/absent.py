"""A model that the release names but no server is configured for: the next one in the chain answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from llm.errors import ModelUnavailable
from llm.types import Call, Delta


class Absent:
    """`remedy` is the sentence that tells the operator what to set."""

    def __init__(self, name: str, remedy: str) -> None:
        self.name = name
        self._remedy = remedy

    async def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        nothing: tuple[Delta, ...] = ()
        for delta in nothing:
            yield delta
        raise ModelUnavailable(f"There is no server for model {self.name!r}. {self._remedy}")
