"""The indexes that releases need: built while another serves, looked into, and switched with the pointer.

A release names an embedder and a way to cut text; the two are a generation of the index. Imports nothing
that writes one: the ledger that does is handed in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from app.embedders import Embedders
from app.errors import IndexNotReady
from app.release import Release
from ingestion.types import Build, Generation, GenerationState, Placed
from retrieval.types import Encoder, IndexSpec

SAMPLE = 16
"""Documents of a new index that are looked at before it takes traffic."""
TRAFFIC: frozenset[GenerationState] = frozenset({"serving", "rollback"})
NEARLY = 0.1
"""The share of its documents that an index may lack for ordinary jobs to write it before it takes over."""
CATCHING_UP = 15.0
JOINED = 2 * CATCHING_UP
LOOK = 0.1


class Generations(Protocol):
    """The ledger's side of it; the last five work in the caller's transaction."""

    async def build_generation(self, spec: IndexSpec, embedder: str) -> GenerationState: ...
    async def join_generation(self, generation: str, seconds: float) -> None: ...
    async def discard_generation(self, generation: str) -> None: ...
    async def build(self, generation: str) -> Build | None: ...
    async def sample(self, generation: str, limit: int) -> list[Placed]: ...
    async def closed_generation(self, connection: AsyncConnection, generation: str) -> Generation | None: ...
    async def closed_build(self, connection: AsyncConnection, generation: str) -> Build | None: ...
    async def switch_generation(self, connection: AsyncConnection, new: str, old: str) -> None: ...
    async def admit_generation(self, connection: AsyncConnection, generation: str) -> None: ...
    async def retire_generation(self, connection: AsyncConnection, generation: str) -> None: ...


Unsound = Callable[[IndexSpec, Encoder, Sequence[Placed]], Awaitable[str | None]]
"""Says what is wrong with these documents' rows in a generation, None if nothing is."""


class Indexes:
    """`parser` is the version of the product's parser, which is part of every index."""

    def __init__(self, ledger: Generations, embedders: Embedders, unsound: Unsound, *, parser: str) -> None:
        self._ledger = ledger
        self._embedders = embedders
        self._unsound = unsound
        self._parser = parser

    async def build(self, release: Release) -> Build:
        """Start building the release's index, or go on; how far it is. What failed before is tried again.
        Raises `EmbedderUnavailable`, and `Conflict` while an index of the same kind is being removed."""
        spec, _ = await self._spec(release)
        await self._ledger.build_generation(spec, release.body.index.embedder)
        return await self.status(release)

    async def status(self, release: Release) -> Build:
        """Raises `IndexNotReady` when it was never begun."""
        spec, _ = await self._spec(release)
        build = await self._ledger.build(spec.generation)
        if build is None:
            raise _missing(release)
        return build

    async def discard(self, release: Release) -> None:
        """Give up an index that is being built; a worker removes it."""
        build = await self.status(release)
        await self._ledger.discard_generation(build.generation)

    async def require(self, release: Release, served: Release, *, allow_missing: bool) -> None:
        """Raise `IndexNotReady` unless the release could take over from the one that is served: its index is
        complete, or lacks only what cannot be put into it and `allow_missing` says so, and a sample of it
        is sound."""
        spec, embedder = await self._spec(release)
        if spec.generation == await self.generation(served):
            return
        build = await self.status(release)
        if build.state in TRAFFIC:
            return
        async with self._joined(build):
            _require(release, await self._caught_up(build), allow_missing=allow_missing)
            wrong = await self._unsound(spec, embedder, await self._ledger.sample(spec.generation, SAMPLE))
            if wrong:
                raise IndexNotReady(
                    f"The index of release {release.id} is not sound ({wrong}). Drop it with `plumbline "
                    f"release drop-index {release.id}` and build it again.",
                    "index_unsound",
                )

    @asynccontextmanager
    async def _joined(self, build: Build) -> AsyncIterator[None]:
        """Have every job write an index that is nearly complete, from now until it has taken over or the
        time is up; when it may not take over, no longer than the block."""
        if _nearly(build):
            await self._ledger.join_generation(build.generation, JOINED)
        try:
            yield
        except BaseException:
            if _nearly(build):
                await self._ledger.join_generation(build.generation, 0.0)
            raise

    async def _caught_up(self, build: Build) -> Build | None:
        """How far it is when nothing is left, or when the time to wait for that is up."""
        found: Build | None = build
        given_up = time.monotonic() + CATCHING_UP
        while found and found.behind and _nearly(found) and time.monotonic() < given_up:
            await asyncio.sleep(LOOK)
            found = await self._ledger.build(build.generation)
        return found

    async def generation(self, release: Release) -> str:
        """The name of the release's index, whether it is built or not."""
        return (await self._spec(release))[0].generation

    async def switch(
        self, connection: AsyncConnection, release: Release, served: Release, *, allow_missing: bool
    ) -> bool:
        """In the caller's transaction, let the release's index take traffic, with the one that is served to
        roll back to, and no other; whether they differ. Raises `IndexNotReady` if it has fallen behind since
        it was looked at."""
        new, old = await self.generation(release), await self.generation(served)
        if new == old:
            return False
        await self._closed(connection, release, new, allow_missing=allow_missing)
        await self._ledger.switch_generation(connection, new, old)
        return True

    async def admit(self, connection: AsyncConnection, release: Release, served: Release) -> str | None:
        """In the caller's transaction, let the release's index take traffic beside the one that is served;
        the generation, if it did not before. Raises `IndexNotReady` as `switch` does."""
        new, old = await self.generation(release), await self.generation(served)
        if new == old:
            return None
        known = await self._closed(connection, release, new, allow_missing=False)
        if known.state in TRAFFIC:
            return None
        await self._ledger.admit_generation(connection, new)
        return new

    async def dismiss(self, connection: AsyncConnection, generation: str) -> None:
        """In the caller's transaction, let an admitted index take traffic no longer; a worker removes it."""
        await self._ledger.retire_generation(connection, generation)

    async def _closed(
        self, connection: AsyncConnection, release: Release, generation: str, *, allow_missing: bool
    ) -> Generation:
        """The generation, complete and kept as it is until the transaction ends."""
        known = await self._ledger.closed_generation(connection, generation)
        if known is None or known.state == "retired":
            raise _missing(release)
        if known.state not in TRAFFIC:
            build = await self._ledger.closed_build(connection, generation)
            _require(release, build, allow_missing=allow_missing)
        return known

    async def _spec(self, release: Release) -> tuple[IndexSpec, Encoder]:
        embedder = await self._embedders.of(release)
        return release.index_spec(embedder.spec, self._parser), embedder.encoder


def _require(release: Release, build: Build | None, *, allow_missing: bool) -> None:
    if build is None or build.state == "retired":
        raise _missing(release)
    if build.state in TRAFFIC:
        return
    if build.behind:
        raise IndexNotReady(
            f"The index of release {release.id} lacks {build.behind} of {build.documents} documents. "
            f"Wait for `plumbline release build-index {release.id}` to end.",
            "index_behind",
        )
    if build.extra:
        raise IndexNotReady(
            f"The index of release {release.id} holds {build.extra} documents that readers cannot find. Drop "
            f"it with `plumbline release drop-index {release.id}` and build it again.",
            "index_differs",
        )
    if build.failed and not allow_missing:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in build.failed.items())
        raise IndexNotReady(
            f"{sum(build.failed.values())} of {build.documents} documents could not be put into the index of "
            f"release {release.id} ({reasons}) and would not be found any more. Build it again with "
            f"`plumbline release build-index {release.id}`, or promote with --allow-missing.",
            "index_incomplete",
        )


def _nearly(build: Build) -> bool:
    return build.trouble is None and build.behind <= NEARLY * build.documents


def _missing(release: Release) -> IndexNotReady:
    return IndexNotReady(
        f"Release {release.id} embeds or cuts text in a way of its own, and has no index. Build it with "
        f"`plumbline release build-index {release.id}`.",
        "index_missing",
    )
