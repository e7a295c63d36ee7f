"""Spares a model that is down from requests, and the requests from waiting for it.

After `failures` failures in a row, none older than `window` seconds, it opens: every call is told at once
that the model is unavailable. Every `reset` seconds one call is let through to see whether the model is
back; its first delta closes the breaker.

Not every error says that the model is down. One that rejects a request, or answers 429 or 503, is up; and
a caller who allows too little time must not be able to take the model away from everybody else.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Literal

from llm.errors import LlmError, ModelOverloaded, ModelRejected, ModelTimeout, ModelUnavailable, StreamBroken
from llm.types import Call, ChatModel, Delta

PATIENCE = 5.0
"""Seconds that a call must allow before its running out of time counts against the model."""


class Breaker:
    """Times are in seconds of `clock`."""

    def __init__(
        self,
        model: ChatModel,
        *,
        failures: int = 5,
        window: float = 10.0,
        reset: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._window = window
        self._reset = reset
        self._clock = clock
        self._failed: deque[float] = deque(maxlen=failures)
        self._probe_at: float | None = None

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def state(self) -> Literal["closed", "open"]:
        return "closed" if self._probe_at is None else "open"

    @property
    def due(self) -> bool:
        """Whether it is open and the next call is the one that looks whether the model is back."""
        return self._probe_at is not None and self._clock() >= self._probe_at

    async def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        probing = self._admit()
        begin = self._clock()
        try:
            async with aclosing(self._model.stream(call)) as deltas:
                async for delta in deltas:
                    if probing or delta.finish:
                        self._close()
                        probing = False
                    yield delta
        except LlmError as error:
            if isinstance(error, ModelRejected | ModelOverloaded):
                self._close()
            elif _blames(error, call, self._clock() - begin):
                self._count()
            raise

    def _admit(self) -> bool:
        """Whether this call is the one that looks whether the model is back."""
        if self._probe_at is None:
            return False
        now = self._clock()
        if now < self._probe_at:
            raise ModelUnavailable(f"Model {self.name!r} has failed repeatedly and is being left alone.")
        # Set before the probe's outcome is known: a probe that hangs or is given up blocks no later one.
        self._probe_at = now + self._reset
        return True

    def _close(self) -> None:
        self._failed.clear()
        self._probe_at = None

    def _count(self) -> None:
        now = self._clock()
        self._failed.append(now)
        full = len(self._failed) == self._failed.maxlen
        if self._probe_at is None and full and now - self._failed[0] <= self._window:
            self._probe_at = now + self._reset


def _blames(error: LlmError, call: Call, seconds: float) -> bool:
    """Whether the error says that the model is down."""
    if isinstance(error, StreamBroken):
        return seconds < call.timeout
    if isinstance(error, ModelTimeout):
        return min(seconds, call.timeout) >= PATIENCE
    return isinstance(error, ModelUnavailable)
