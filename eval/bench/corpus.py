"""Text of any size to search in, drawn from one seed: words by Zipf's law, in documents of ten passages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

WORDS = 30_000
PASSAGES = 10
_WORDS_A_PASSAGE = 130
_SYLLABLES = [a + b for a in "bcdfghklmnprstvwz" for b in ("a", "e", "i", "o", "u", "an", "er", "il")]
COLLECTION = "bench"


class Corpus:
    """Documents of `PASSAGES` sections, each about as long as the default release's chunks."""

    def __init__(self, passages: int) -> None:
        self._random = np.random.default_rng(11)
        self._documents = max(1, passages // PASSAGES)
        rank = np.arange(1, WORDS + 1)
        self._weights = (1 / rank) / (1 / rank).sum()
        syllables = self._random.choice(_SYLLABLES, (WORDS, 3))
        self._words = np.array(["".join(parts) for parts in syllables])

    def batches(self, size: int = 100) -> Iterator[list[dict[str, Any]]]:
        """The documents as `POST /v1/documents` takes them."""
        for start in range(0, self._documents, size):
            yield [self._document(n) for n in range(start, min(start + size, self._documents))]

    def question(self, n: int) -> str:
        """Another one for every n: six words, the rarer ones as likely as in the text."""
        words = np.random.default_rng(n + 1_000).choice(self._words, 6, p=self._weights)
        return f"What about {' '.join(words)} {n}?"

    def _document(self, n: int) -> dict[str, Any]:
        sections = [f"# Document {n}"]
        for section in range(PASSAGES):
            words = self._random.choice(self._words, _WORDS_A_PASSAGE, p=self._weights)
            sections.append(f"## Part {section}\n\n{' '.join(words)}.")
        return {"id": f"d{n}", "title": f"Document {n}", "text": "\n\n".join(sections)}
