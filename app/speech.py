"""What leaves of what a model says: markers resolved, links harmless, by token or by whole sentences, and for
each sentence what became of its check.

The check runs beside the stream and never holds text back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from app.citations import Markers
from app.claims import Claim, Claims
from app.release import AnswerPart
from app.support import Checks
from app.types import Support, Token

LONGEST_CHECK = 5.0
"""Seconds that the checks of an answer may take after its last word."""


class Speech:
    """One answer. Leaving the block ends the checks that still run."""

    def __init__(self, sources: int, part: AnswerPart, checks: Checks) -> None:
        self._markers = Markers(sources)
        self._claims = Claims()
        self._checks = checks
        self._by_sentence = part.buffer == "sentence"
        self._said: list[str] = []
        self._held = ""
        self.claims: list[Claim] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._checks.close()

    @property
    def text(self) -> str:
        return "".join(self._said)

    @property
    def cited(self) -> Sequence[int]:
        return sorted(self._markers.cited)

    @property
    def support(self) -> tuple[Support, ...]:
        return self._checks.found

    @property
    def degraded(self) -> tuple[str, ...]:
        return ("support",) if self._checks.degraded else ()

    def hear(self, text: str) -> list[Token | Support]:
        """Take a piece of the model's output; return what may leave now."""
        return [*self._leave(self._markers.feed(text)), *self._checks.done()]

    def finish(self) -> list[Token | Support]:
        """The model has ended: all text that is left."""
        left = self._leave(self._markers.finish())
        self._check(self._claims.finish())
        held, self._held = self._held, ""
        return [*left, *self._token(held), *self._checks.done()]

    def reached(self, words: int, longer: float) -> bool:
        """Whether so many words have been said in whole sentences, or `longer` times as many at all."""
        whole = sum(len(claim.text.split()) for claim in self.claims)
        return whole >= words or whole + len(self._claims.open.split()) >= longer * words

    async def checked(self, end: float) -> list[Support]:
        """The verdicts that are still under way, waited for until shortly before the deadline `end`."""
        left = max(0.0, end - asyncio.get_running_loop().time())
        return await self._checks.finish(min(LONGEST_CHECK, left / 2))

    def _leave(self, text: str) -> list[Token]:
        self._check(self._claims.feed(text))
        if not self._by_sentence:
            return self._token(text)
        said = self._held + text
        whole = len(said) - len(self._claims.open)
        self._held = said[whole:]
        return self._token(said[:whole])

    def _check(self, ended: Sequence[Claim]) -> None:
        self.claims += ended
        for claim in ended:
            self._checks.begin(claim)

    def _token(self, text: str) -> list[Token]:
        if not text:
            return []
        self._said.append(text)
        return [Token(text)]
