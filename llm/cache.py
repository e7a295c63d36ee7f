"""A model whose finished outputs are kept and replayed (L2)."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import fields

import orjson

from llm.types import Call, ChatModel, Delta, Outputs, Sampling

_SAMPLING = tuple(field.name for field in fields(Sampling))


class Cached:
    """A model whose finished outputs are kept for `ttl` seconds (0 keeps nothing) and replayed.

    The key holds everything that makes an output one caller's and no other's: tenant, rights, release,
    product version, evidence, model, messages and sampling. Only what this very model said to its end is
    kept: never a part, never what a fallback said.
    """

    def __init__(self, model: ChatModel, outputs: Outputs, *, ttl: float, product: str) -> None:
        self._model = model
        self._outputs = outputs
        self._ttl = ttl
        self._product = product

    @property
    def name(self) -> str:
        return self._model.name

    async def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        keep = call.cache != "off" and self._ttl > 0
        key = self.key(call)
        kept = await self._outputs.get(key) if keep and call.cache == "use" else None
        if kept is not None:
            yield _load(kept)
            return
        said: list[Delta] = []
        async with aclosing(self._model.stream(call)) as deltas:
            async for delta in deltas:
                said.append(delta)
                if keep and delta.finish == "stop":
                    await self._keep(key, call, said)
                yield delta

    def key(self, call: Call) -> str:
        scope, sampling = call.scope, call.sampling
        named = [scope.tenant, scope.rights, scope.release, *scope.evidence]
        drawn = [getattr(sampling, name) for name in _SAMPLING]
        messages = call.prompt.messages
        lengths = [(message.role, len(message.content)) for message in messages]
        # The lengths tell where one message ends, so that the texts need not be encoded as JSON.
        digest = hashlib.sha256(repr((self._product, named, self.name, drawn, lengths)).encode())
        for message in messages:
            digest.update(message.content.encode("utf-8", errors="surrogatepass"))
        return "model:" + digest.hexdigest()

    async def _keep(self, key: str, call: Call, said: list[Delta]) -> None:
        """Kept before the last delta leaves: a caller need not come back for what follows it."""
        if any(delta.model != self.name for delta in said):
            return
        scope = call.scope
        documents = [f"{scope.tenant}/{document}" for document in scope.documents]
        await self._outputs.put(key, _dump(said), self._ttl, documents)


def _dump(said: list[Delta]) -> bytes:
    last = said[-1]
    told = ["".join(delta.text for delta in said), last.model, last.prompt_tokens, last.output_tokens]
    return orjson.dumps(told)


def _load(kept: bytes) -> Delta:
    text, model, prompt_tokens, output_tokens = orjson.loads(kept)
    return Delta(
        text=text,
        model=model,
        finish="stop",
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        cached=True,
    )
