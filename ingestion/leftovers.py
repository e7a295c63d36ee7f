"""Revisions that this process wrote, or may have, without hearing from the ledger how they ended.

A process that stands still for long may write after its revision was retired and swept. When it goes on it
learns that its job is lost, and has the revision swept once more. Only if it is killed in between, or if the
store takes rows after a call's deadline, can rows stay behind, which nobody sees.
"""

from __future__ import annotations

from contextlib import suppress

from ingestion.errors import LedgerUnavailable
from ingestion.ledger import Ledger


class Leftovers:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._tenants: dict[int, str] = {}

    def note(self, revision: int, tenant: str) -> None:
        self._tenants[revision] = tenant

    async def tell(self) -> None:
        """Have the noted ones swept; if the ledger is away they stay noted."""
        told = dict(self._tenants)
        with suppress(LedgerUnavailable):
            if told:
                await self._ledger.sweep_again(told)
                for revision in told:
                    self._tenants.pop(revision, None)
