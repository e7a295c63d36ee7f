"""A model's tokenizer and window, read from its folder: what embedders need to know of a text before the
model sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from retrieval.errors import EmbedderUnavailable, TextTooLong

_CONFIG = "config.json"
_BATCH = 128
# Characters that are tokenized sooner than a thread has taken them up.
_HERE = 2_048
# Their first positions are taken by padding, so that two fewer are left than the configuration says.
_OFFSET = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet"})


class Tokens:
    """`window` counts the special tokens too."""

    def __init__(self, tokenizer: Tokenizer, window: int) -> None:
        self._tokenizer = tokenizer
        self.window = window

    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Character ranges of the text's tokens, without the special ones."""
        offsets: list[tuple[int, int]] = self._tokenizer.encode(
            encodable(text), add_special_tokens=False
        ).offsets
        return offsets

    async def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text with the special ones. Raises `TextTooLong`."""
        if sum(map(len, texts)) <= _HERE:
            return self._lengths(texts)
        found: list[int] = []
        for start in range(0, len(texts), _BATCH):
            found += await asyncio.to_thread(self._lengths, texts[start : start + _BATCH])
        return found

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        encoded = self._tokenizer.encode_batch_fast([encodable(text) for text in texts])
        lengths = [len(each.ids) for each in encoded]
        if max(lengths, default=0) > self.window:
            raise TextTooLong(max(lengths), self.window)
        return lengths


def open_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in this file, which neither cuts nor pads. Raises `EmbedderUnavailable`."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001  (the Rust binding raises bare Exception)
        raise EmbedderUnavailable(f"{path} cannot be read: {error}.") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def read_window(folder: Path) -> int:
    """How many tokens the model in this folder takes, by the configuration that lies there: at most its
    positions, and fewer where it was trained so. Raises `EmbedderUnavailable` when nothing says it."""
    config = _json(folder / _CONFIG)
    trained = _json(folder / "sentence_bert_config.json").get("max_seq_length")
    trained = trained or _json(folder / "tokenizer_config.json").get("model_max_length")
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and config.get("model_type") in _OFFSET:
        positions -= 2
    # A tokenizer without a limit says so by a number of thirty digits.
    known = [limit for limit in (trained, positions) if isinstance(limit, int) and 2 < limit < 10**7]
    if not known:
        raise EmbedderUnavailable(
            f"Nothing in {folder} says how many tokens the model takes: put its {_CONFIG} there "
            "(`max_position_embeddings`), and sentence_bert_config.json if it has one."
        )
    return min(known)


def encodable(text: str) -> str:
    """The text with lone surrogates, which no tokenizer takes, as question marks; positions stay."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EmbedderUnavailable(f"{path} cannot be read: {error}.") from None
    return found if isinstance(found, dict) else {}


def batches(lengths: Sequence[int], most_texts: int, most_tokens: int) -> Iterator[list[int]]:
    """Indices of texts to embed together, shortest first: of like length, so that little of a batch is
    padding. A text alone may exceed the budget of tokens."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        full = len(batch) == most_texts or (len(batch) + 1) * lengths[index] > most_tokens
        if batch and full:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
