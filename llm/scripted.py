"""A model that says what it is told to, fails where it is told to, and remembers what it was asked.

The shipped fake: it passes the same contract tests as the real ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal

from llm.errors import LlmError, StreamBroken
from llm.types import Call, Delta


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One answer: its pieces, `pace` seconds before each, how it ends.

    `error` is raised after all pieces and instead of the end..
    """

    pieces: tuple[str, ...] = ()
    pace: float = 0.0
    finish: Literal["stop", "length"] = "stop"
    error: LlmError | None = None

    def __post_init__(self) -> None:
        if self.pieces and self.error and not isinstance(self.error, StreamBroken):
            raise ValueError("After the first piece a model can only break off (StreamBroken).")


class Scripted:
    """Plays the scripts in turn, the last one again and again. `calls` are the requests so far, `running`
    the streams that are open now."""

    def __init__(self, *scripts: Script, name: str = "scripted") -> None:
        self._scripts: Sequence[Script] = scripts or (Script(pieces=("Hello", " there.")),)
        self._name = name
        self.calls: list[Call] = []
        self.running = 0

    @property
    def name(self) -> str:
        return self._name

    async def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        script = self._scripts[min(len(self.calls), len(self._scripts) - 1)]
        self.calls.append(call)
        self.running += 1
        try:
            for piece in script.pieces:
                await asyncio.sleep(script.pace)
                yield Delta(text=piece, model=self._name)
            if script.error is not None:
                raise script.error
            yield self._last(call, script)
        finally:
            self.running -= 1

    def _last(self, call: Call, script: Script) -> Delta:
        asked = sum(len(message.content.split()) for message in call.prompt.messages)
        return Delta(
            text="",
            model=self._name,
            finish=script.finish,
            prompt_tokens=asked,
            output_tokens=len(script.pieces),
        )
