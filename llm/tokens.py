"""Whether a prompt fits the model's window, known before it is sent, mostly without asking.

Tokens are first estimated from above: a tokenizer of a model in use makes a token of three ASCII characters
or more on the average of a text, and at most one for each other byte. Only a prompt whose estimate does not
fit is counted by the model's own tokenizer (vLLM's `/tokenize`, in the model's own template); counts are
kept. A server that tells neither its window nor counts gets every prompt, and refuses by itself.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Protocol

from llm.errors import ContextTooLong, ModelUnavailable
from llm.types import Call, ChatModel, Delta, Message

KEPT = 2_048
"""Counts that are kept, the longest unused out first."""
WINDOW_TTL = 60.0
"""Seconds for which a window is believed: a server may come back with another."""
UNKNOWN_TTL = 5.0
"""Seconds until a server that did not tell its window is asked again."""
PER_MESSAGE = 8
"""Tokens that a template adds to a message at most, by estimate."""
_ASCII_PER_TOKEN = 3


class Tokenizer(Protocol):
    """What a server tells; both are None where it cannot, and raise `ModelUnavailable` where it is down."""

    async def window(self) -> int | None: ...

    async def count(self, messages: Sequence[Message]) -> int | None: ...


def estimate(text: str) -> int:
    """Tokens of the text, rather too many than too few."""
    plain = len(text.encode("ascii", errors="ignore"))
    other = len(text.encode("utf-8", errors="surrogatepass")) - plain
    return -(-plain // _ASCII_PER_TOKEN) + other


def estimated(messages: Sequence[Message]) -> int:
    """Tokens of the messages in a model's template, rather too many than too few."""
    return sum(estimate(message.content) + PER_MESSAGE for message in messages)


class Tokens:
    """The token budget of one model. `servers` are asked in turn until one answers; `clock` in seconds."""

    def __init__(self, servers: Sequence[Tokenizer], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._servers = tuple(servers)
        self._clock = clock
        self._window: int | None = None
        self._window_until = 0.0
        self._counts: OrderedDict[bytes, int] = OrderedDict()

    async def window(self) -> int | None:
        """The most tokens of prompt and answer together; None while the server does not say."""
        if self._clock() >= self._window_until:
            # Set first: of many requests that come together one asks.
            self._window_until = self._clock() + UNKNOWN_TTL
            known = await self._ask(lambda server: server.window())
            if known is not None:
                self._window, self._window_until = known, self._clock() + WINDOW_TTL
        return self._window

    async def count(self, messages: Sequence[Message]) -> int:
        """Tokens of these messages: by the model's tokenizer, or by estimate where it cannot be asked."""
        key = _digest(messages)
        if (kept := self._counts.get(key)) is not None:
            self._counts.move_to_end(key)
            return kept
        counted = await self._ask(lambda server: server.count(messages))
        if counted is None:
            return estimated(messages)
        self._counts[key] = counted
        if len(self._counts) > KEPT:
            self._counts.popitem(last=False)
        return counted

    async def _ask(self, question: Callable[[Tokenizer], Awaitable[int | None]]) -> int | None:
        for server in self._servers:
            with suppress(ModelUnavailable):
                return await question(server)
        return None

    async def fitting(self, texts: Sequence[str], most: int) -> int:
        """How many of these texts, from the front, have at most `most` tokens together."""
        if sum(map(estimate, texts)) <= most:
            return len(texts)
        used = 0
        for number, text in enumerate(texts):
            used += await self.count((Message("user", text),))
            if used > most:
                return number
        return len(texts)

    async def require(self, call: Call) -> None:
        """Raise `ContextTooLong` when the prompt and the longest answer asked for exceed the window."""
        window, answer = await self.window(), call.sampling.max_tokens
        messages = call.prompt.messages
        if window is None or estimated(messages) + answer <= window:
            return
        needed = await self.count(messages) + answer
        if needed > window:
            raise ContextTooLong(
                f"The prompt and an answer of {answer} tokens need {needed} tokens; the model has {window}.",
                tokens=needed,
                limit=window,
            )


class Fitted:
    """A model that is sent only what fits its window."""

    def __init__(self, model: ChatModel, tokens: Tokens) -> None:
        self._model = model
        self._tokens = tokens

    @property
    def name(self) -> str:
        return self._model.name

    async def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        await self._tokens.require(call)
        async with aclosing(self._model.stream(call)) as deltas:
            async for delta in deltas:
                yield delta


def _digest(messages: Sequence[Message]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for message in messages:
        body = message.content.encode("utf-8", errors="surrogatepass")
        digest.update(f"{message.role} {len(body)} ".encode() + body)
    return digest.digest()
