"""Vectors that need not be computed: of texts that the same tenant has in an index by the same embedder.

Looked for among what is visible of the document itself (an update, other rights or metadata, an index that is
built anew) and of documents with the same file (a copy under another id). The vector of a text is taken from
its row in the store, by the hash of exactly what was embedded; a text that has changed, or another tenant's,
is never found. New documents cost one question to the ledger a batch, and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress

from ingestion.errors import LedgerUnavailable
from ingestion.ledger import Ledger
from ingestion.sources import Source
from ingestion.sources import Wanted as Wanted  # What is asked for.
from retrieval.errors import StoreUnavailable
from retrieval.types import IndexSpec, Store, Vector

AT_ONCE = 512
"""Rows asked of the store at a time."""


Known = dict[tuple[str, str], Vector]
"""Vectors by tenant and hash of the text."""


def text_hash(text: str) -> str:
    """Of what is embedded for a chunk, prefix and header included: `Chunk.content_hash`."""
    return hashlib.sha256(text.encode()).hexdigest()


class Reuse:
    def __init__(self, ledger: Ledger, store: Store) -> None:
        self._ledger = ledger
        self._store = store

    async def known(self, spec: IndexSpec, wanted: Sequence[Wanted]) -> Known:
        """What is known of these texts by the embedder of this index, behind its prefix. Where the ledger or
        an index is away nothing is: whoever asks embeds."""
        hashes: dict[str, set[str]] = {}
        for one in wanted:
            hashes.setdefault(one.tenant, set()).update(one.hashes)
        known: Known = {}
        with suppress(LedgerUnavailable):
            for source in await self._ledger.embedded_before(spec, wanted):
                left = hashes[source.tenant]
                for name, vector in await self._of(source, left):
                    known[source.tenant, name] = vector
                    left.discard(name)
        return known

    async def _of(self, source: Source, wanted: set[str]) -> list[tuple[str, Vector]]:
        found: list[tuple[str, Vector]] = []
        ids = [f"{source.revision}-{n}" for n in range(source.chunks)] if wanted else []
        with suppress(StoreUnavailable):
            for start in range(0, len(ids), AT_ONCE):
                part = ids[start : start + AT_ONCE]
                held = await self._store.vectors(source.generation, source.tenant, part)
                found += [(name, vector) for name, vector in held.items() if name in wanted]
        return found
