"""Eight mistakes, each built into the product's own code for a run, and how many schedules it takes to find
them.

python -m tests.faults.planted [--most 3000] [--seed 1]
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

from sqlalchemy import Row, text

from ingestion import documents, epochs, visibility, written
from ingestion.documents import Accepted, Claim
from ingestion.ledger import Ledger
from ingestion.transaction import transaction
from ingestion.types import Document, Expected, Job
from ingestion.written import Flip, Written
from retrieval.errors import StoreUnavailable
from retrieval.types import Filter, Look, Store, Visibility
from retrieval.types import Row as StoredRow
from tests.faults.database import Database
from tests.faults.network import Weather
from tests.faults.schedule import LEASE, Bug, Outcome, run
from tests.faults.server import database

LATE = 2.0


class _CommitFailed(Exception):
    pass


class AcknowledgesFirst(Ledger):
    """Answers, then commits: a commit that fails is told nobody."""

    async def put(
        self,
        tenant: str,
        accepted: Sequence[Accepted],
        claim: Claim | None = None,
        traceparent: str | None = None,
        groups: frozenset[str] | None = None,
        expected: Expected | None = None,
    ) -> list[Job]:
        jobs: list[Job] = []
        with suppress(_CommitFailed):
            async with transaction(self._engine) as connection:
                jobs = await documents.put(connection, tenant, accepted, claim, traceparent, groups, expected)
                if random.random() >= 0.9:
                    raise _CommitFailed
        return jobs


class ForgetsDeletions(Ledger):
    """Keeps in memory what was deleted, so that only this process, while it lives, knows."""

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        self.deleted: set[str] = set()

    async def put(self, tenant: str, accepted: Sequence[Accepted], *rest: Any, **more: Any) -> list[Job]:
        self.deleted -= {one.id for one in accepted}
        return await super().put(tenant, accepted, *rest, **more)

    async def delete(
        self,
        tenant: str,
        groups: frozenset[str] | None,
        document_id: str,
        expected: Expected | None = None,
    ) -> Document:
        document = await self.document(tenant, groups, document_id)
        self.deleted.add(document_id)
        return replace(document, version=document.version + 1)


@dataclass(frozen=True, slots=True)
class _Without:
    """What readers see, without what a process remembers to be deleted."""

    ledger: Ledger
    reads: Visibility

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reads, name)

    async def epoch(self, where: Filter) -> str:
        return f"{await self.reads.epoch(where)} {sorted(self._deleted())}"

    async def look(self, generation: str, where: Filter, candidates: Collection[tuple[str, int]]) -> Look:
        shown = [one for one in candidates if one[0] not in self._deleted()]
        look = await self.reads.look(generation, where, shown)
        return replace(look, epoch=f"{look.epoch} {sorted(self._deleted())}")

    def _deleted(self) -> set[str]:
        return cast(ForgetsDeletions, self.ledger).deleted


class HidesOnly(Ledger):
    """A deletion hides what is visible, and leaves no trace: what is queued comes after it."""

    async def delete(
        self,
        tenant: str,
        groups: frozenset[str] | None,
        document_id: str,
        expected: Expected | None = None,
    ) -> Document:
        document = await self.document(tenant, groups, document_id)
        async with self._engine.begin() as connection:
            key = {"tenant": tenant, "id": document_id}
            number = await connection.scalar(text("SELECT nextval('version_numbers')"))
            await connection.execute(
                text("DELETE FROM visibility WHERE tenant = :tenant AND document_id = :id"), key
            )
            await connection.execute(
                text(
                    "INSERT INTO versions (version, tenant, document_id, deleted) "
                    "VALUES (:version, :tenant, :id, true)"
                ),
                {**key, "version": number},
            )
        return replace(document, version=int(number))


class IgnoresKeys(Ledger):
    """A retry is another write."""

    async def put(
        self, tenant: str, accepted: Sequence[Accepted], claim: Claim | None = None, *rest: Any, **more: Any
    ) -> list[Job]:
        return await super().put(tenant, accepted, None, *rest, **more)


@dataclass(frozen=True, slots=True)
class Hasty:
    """A store whose writes are believed done when they were sent."""

    store: Store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def upsert(self, generation: str, rows: Sequence[StoredRow]) -> None:
        async def write() -> None:
            await asyncio.sleep(random.uniform(0.0, LATE))
            while True:
                try:
                    return await self.store.upsert(generation, rows)
                except StoreUnavailable:
                    await asyncio.sleep(0.1)

        asyncio.get_running_loop().create_task(write())


async def _raises_none(connection: Any, changed: Collection[tuple[str, str]]) -> None:
    """What readers see changes, and the epoch stays."""


def _holds_anyway(one: Written, job: Row[Any] | None) -> None:
    """Whoever comes to flip is believed to hold the job."""


def _shows_anyway(one: Written, job: Row[Any] | None, document: Row[Any], serving: frozenset[str]) -> Flip:
    """As the ledger judges, but for what was accepted since."""
    ended = written.held(one, job)
    if ended:
        return ended
    if document.deleted:
        return "superseded"
    return "flipped" if serving and serving <= one.chunks.keys() else "generations_changed"


BUGS: Mapping[str, Bug] = {
    bug.name: bug
    for bug in (
        Bug(
            name="acknowledge before commit",
            rules=frozenset({"lost write"}),
            ledger=AcknowledgesFirst,
        ),
        Bug(
            name="no fence",
            rules=frozenset({"vanished", "partly visible", "lost write"}),
            patches=((visibility, "held", _holds_anyway),),
            weather=Weather(stalled=0.5, at="ledger.flip"),
            longest=4 * LEASE,
        ),
        Bug(
            name="flip before all chunks",
            rules=frozenset({"partly visible", "vanished"}),
            store=lambda store: cast(Store, Hasty(store)),
        ),
        Bug(
            name="delete forgotten after restart",
            rules=frozenset({"deleted text"}),
            ledger=ForgetsDeletions,
            visibility=lambda ledger, reads: cast(Visibility, _Without(ledger, reads)),
        ),
        Bug(
            name="retry without idempotence",
            rules=frozenset({"retried twice"}),
            ledger=IgnoresKeys,
        ),
        Bug(
            name="older version flips last",
            rules=frozenset({"older version"}),
            patches=((visibility, "_judge", _shows_anyway),),
            weather=Weather(stalled=0.5, at="ledger.flip"),
        ),
        Bug(
            name="delete overtaken by a queued put",
            rules=frozenset({"deleted text"}),
            ledger=HidesOnly,
        ),
        Bug(
            name="epoch stays",
            rules=frozenset({"deleted text", "older version"}),
            patches=((epochs, "rise", _raises_none),),
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Caught:
    schedules: int
    outcome: Outcome

    @property
    def rules(self) -> list[str]:
        return sorted({flaw.rule for flaw in self.outcome.flaws})


def hunt(where: Database, bug: Bug, seed: int, most: int) -> Caught | None:
    """Play schedules from this seed on until one of the bug's rules is broken; None if none of `most` did."""
    for number in range(most):
        outcome = run(where, seed + number, bug)
        if any(flaw.rule in bug.rules for flaw in outcome.flaws):
            return Caught(number + 1, outcome)
    return None


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--most", type=int, default=3000, help="schedules for each bug")
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    missed = 0
    with database() as where:
        print(f"{'built in':<34} {'schedules':>9}  {'seed':>6}  broken")
        for bug in BUGS.values():
            caught = hunt(where, bug, options.seed, options.most)
            missed += caught is None
            if caught:
                told = f"{caught.schedules:>9}  {caught.outcome.seed:>6}  {', '.join(caught.rules)}"
            else:
                told = f"{options.most:>9}          not found"
            print(f"{bug.name:<34} {told}", flush=True)
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()
