"""What an erasure does to each store of ingestion's: files, rows of the index, logs, the ledger."""

from __future__ import annotations

import asyncio
import json
import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ingestion import receipts
from ingestion.blobs import Blobs
from ingestion.erasing import Erasing
from ingestion.ledger import Ledger
from ingestion.receipts import Receipts
from ingestion.types import Erasure, Outcome
from retrieval.types import Store

SHORTEST_WORD = 6
"""Characters. A shorter word (a language, a year) stands in logs for other reasons, and tells nothing."""


@dataclass(frozen=True, slots=True)
class IndexStep:
    """The rows, texts and vectors: the sweeper removes them, late ones too; then the store is purged."""

    ledger: Ledger
    erasing: Erasing
    store_: Store

    @property
    def store(self) -> str:
        return "index"

    async def run(self, erasure: Erasure) -> Outcome:
        left, revisions = await self.erasing.unswept(erasure)
        if left:
            return Outcome("waiting", revisions - left, f"{left} of {revisions} revisions are to be removed")
        known = await self.ledger.generations()
        done = [await self.store_.purge(one.id) for one in known if one.state != "retired"]
        if all(done):
            return Outcome("done", revisions, "rows removed, files rewritten without them")
        return Outcome("pending", revisions, "rows removed; the store collects their files by itself")


@dataclass(frozen=True, slots=True)
class FilesStep:
    """Original files, but for those that another document of the tenant has."""

    erasing: Erasing
    blobs: Blobs

    @property
    def store(self) -> str:
        return "files"

    async def run(self, erasure: Erasure) -> Outcome:
        async with self.erasing.files(erasure) as (gone, count):
            for tenant, digest in gone:
                await self.blobs.remove(tenant, digest)
        if self.blobs.local:
            return Outcome("done", count, "files that no other document has")
        return Outcome("pending", count, "removed; old versions in the bucket go by its own rules")


@dataclass(frozen=True, slots=True)
class LogStep:
    """The logs that the instance writes: what names a document is written over in place, which a process that
    appends to the file does not notice."""

    erasing: Erasing
    folder: Path

    @property
    def store(self) -> str:
        return "logs"

    async def run(self, erasure: Erasure) -> Outcome:
        words: set[bytes] = set()
        async for page in self.erasing.targets(erasure):
            for one in page:
                words |= _forms([one.document_id, *one.words])
        removed = sum(_blacken(path, words) for path in sorted(self.folder.glob("*.log*")) if path.is_file())
        return Outcome("done", removed, f"places written over in {self.folder.name}/")


@dataclass(frozen=True, slots=True)
class LedgerStep:
    """What the ledger knows. The receipt keeps what it takes to know the documents again."""

    erasing: Erasing
    kept: Receipts

    @property
    def store(self) -> str:
        return "ledger"

    async def run(self, erasure: Erasure) -> Outcome:
        drafted = await asyncio.to_thread(self.kept.drafted, erasure.id)
        if not drafted:
            drafted = {"salt": receipts.new_salt(), "documents": []}
            async for page in self.erasing.targets(erasure):
                drafted["documents"] += [
                    {
                        "reference": receipts.reference(drafted["salt"], erasure.tenant, one.document_id),
                        "version": one.version,
                        "revisions": list(one.revisions),
                    }
                    for one in page
                ]
            await asyncio.to_thread(self.kept.draft, erasure.id, drafted)
        while await self.erasing.forget(erasure):
            pass
        if erasure.scope in ("collection", "tenant"):
            await self.erasing.forget_collections(erasure)
        return Outcome("done", len(drafted["documents"]), "documents, versions, revisions, jobs, their keys")


@dataclass(frozen=True, slots=True)
class Stated:
    """A store in which there is nothing to do for us, and why."""

    store: str
    outcome: Outcome

    async def run(self, erasure: Erasure) -> Outcome:
        return self.outcome


def _forms(words: Iterable[str]) -> set[bytes]:
    """How a word may stand in a log: as it is, in JSON, in an address."""
    long = [word for word in words if len(word) >= SHORTEST_WORD]
    ways = (str, lambda word: json.dumps(word)[1:-1], quote, lambda word: quote(word, safe=""))
    forms = {way(word) for word in long for way in ways}
    return {form.encode("utf-8", "replace") for form in forms}


def _blacken(path: Path, words: Iterable[bytes]) -> int:
    """Write over each of these words; how many places that were."""
    if not path.stat().st_size:
        return 0
    places = 0
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        for word in sorted(words, key=len, reverse=True):
            at = content.find(word)
            while at >= 0:
                content[at : at + len(word)] = b"x" * len(word)
                places += 1
                at = content.find(word, at + len(word))
        content.flush()
    return places
