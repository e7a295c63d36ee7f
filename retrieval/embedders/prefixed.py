"""A model with what a release puts before questions and documents, and how much of a text then fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from retrieval.errors import EmbedderUnavailable
from retrieval.types import Embedder, EmbedderSpec, Encoder, Matrix, Prefixes, Side

SPECIAL_TOKENS = 2
"""Those that frame a text; a model with fewer is given a token less than it would take."""


class Prefixed:
    """Implements `Embedder`. Costs nothing beside the encoder, which others may use with other prefixes.

    Raises `EmbedderUnavailable` when a prefix leaves less than half of the window to the text."""

    def __init__(self, encoder: Encoder, prefixes: Prefixes = Prefixes()) -> None:  # noqa: B008  (frozen)
        self.encoder = encoder
        self._spec = replace(encoder.spec, prefixes=prefixes)
        for prefix in (prefixes.query, prefixes.document):
            _require_room(encoder, prefix)

    @property
    def spec(self) -> EmbedderSpec:
        return self._spec

    async def embed(self, texts: Sequence[str], side: Side | None) -> Matrix:
        """Embed texts in the given order, each behind the prefix of its side."""
        return await self.encoder.embed(behind(self._spec.prefixes.of(side), texts))

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Character ranges of the text's tokens, without the special ones and without a prefix."""
        return self.encoder.token_spans(text)


def behind(prefix: str, texts: Sequence[str]) -> Sequence[str]:
    """The texts as a model reads them."""
    return [prefix + text for text in texts] if prefix else texts


def fitted(embedder: Embedder, text: str, side: Side) -> str:
    """The text behind the prefix of its side, without what of it exceeds the window: to be embedded as it is.
    Joined, prefix and text may have other tokens than apart, so they are counted together."""
    spec = embedder.spec
    whole, most = spec.prefixes.of(side) + text, spec.max_tokens - SPECIAL_TOKENS
    if len(whole.encode(errors="replace")) <= most:
        return whole  # No tokenizer makes more tokens than bytes.
    spans = embedder.token_spans(whole)
    return whole if len(spans) <= most else whole[: spans[most - 1][1]]


def _require_room(encoder: Encoder, prefix: str) -> None:
    spec = encoder.spec
    tokens = len(encoder.token_spans(prefix)) if prefix else 0
    if 2 * (tokens + SPECIAL_TOKENS) > spec.max_tokens:
        raise EmbedderUnavailable(
            f"The prefix {prefix[:60]!r} has {tokens} tokens, and {spec.name} takes {spec.max_tokens}: it "
            "must leave half of them to the text. Shorten it in the release."
        )
