"""Search results page by page, while documents change.

A cursor holds what was told so far, as digests: the next page is the best of what was not. So nothing is told
twice, and nothing is passed over because something before it came or went. Nothing is kept between pages.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from retrieval.types import Hit

MOST = 1_000
"""Hits on all pages together."""
_SIZE = 6
LONGEST = MOST * _SIZE * 4 // 3
"""Characters of a cursor."""


@dataclass(frozen=True, slots=True)
class Told:
    """What earlier pages told: documents, or else passages."""

    documents: bool
    digests: frozenset[bytes] = field(default_factory=frozenset)

    @classmethod
    def read(cls, cursor: str | None, *, documents: bool) -> Told:
        """Raises `ValueError` for what is no cursor."""
        try:
            raw = base64.b64decode(cursor or "", altchars=b"-_", validate=True)
        except binascii.Error:
            raise ValueError("no cursor") from None
        if len(raw) % _SIZE or len(raw) > MOST * _SIZE:
            raise ValueError("no cursor")
        return cls(documents, frozenset(raw[n : n + _SIZE] for n in range(0, len(raw), _SIZE)))

    def page(self, hits: Sequence[Hit], limit: int) -> tuple[list[Hit], str | None]:
        """The best hits that were not told, and the cursor of the next page, None where there is none."""
        names = ((self._digest(hit), hit) for hit in hits)
        page = [(name, hit) for name, hit in names if name not in self.digests][:limit]
        told = self.digests.union(name for name, _ in page)
        more = len(page) == limit and len(told) < MOST
        cursor = base64.urlsafe_b64encode(b"".join(sorted(told))).decode() if more else None
        return [hit for _, hit in page], cursor

    def _digest(self, hit: Hit) -> bytes:
        name = hit.chunk.document_id if self.documents else hit.chunk.id
        return blake2b(name.encode(), digest_size=_SIZE).digest()
