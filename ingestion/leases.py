"""Which jobs this worker holds, by its own clock, and telling the observer when it holds one no more.

The ledger decides who holds a job. This is the worker's side of it: a lease whose last renewal was asked
for too long ago counts as lost here before anybody else can have taken it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ingestion.types import Attempt, Job, Lease, Observer, Stage

Stages = Mapping[Stage, tuple[float, float]]


@dataclass(slots=True)
class _Held:
    lease: Lease
    until: float
    started: float
    part: str | None = None


class Leases:
    """`seconds` is how long a lease holds after the moment its renewal was asked for."""

    def __init__(self, seconds: float, observer: Observer) -> None:
        self.seconds = seconds
        self._observer = observer
        self._held: dict[tuple[str, int], _Held] = {}

    def take(self, leases: Iterable[Lease], asked: float) -> None:
        """Hold new leases that were asked for at `asked` (`time.monotonic`)."""
        for lease in leases:
            self._held[_key(lease.job)] = _Held(lease, asked + self.seconds, time.time())

    def renew(
        self, keys: Iterable[tuple[str, int]], renewed: Collection[tuple[str, int]], asked: float
    ) -> None:
        """Note the answer to a heartbeat for `keys`: those in `renewed` still hold, the others are lost. A
        job that ran out may be held here again while its old attempt is still under way."""
        for key in keys:
            held = self._held.get(key)
            if held is not None and key in renewed:
                held.until = asked + self.seconds
            elif held is not None:
                self.finish(held.lease, "lost")

    def keys(self) -> list[tuple[str, int]]:
        """(job id, fence) of all that is held."""
        return list(self._held)

    def reading(self, lease: Lease, part: str) -> None:
        """Note which part of its document is read."""
        if (held := self._held.get(_key(lease.job))) is not None:
            held.part = part

    def parts(self) -> list[tuple[Job, str]]:
        """What was noted since this was asked the last time."""
        found = [(held.lease.job, held.part) for held in self._held.values() if held.part is not None]
        for held in self._held.values():
            held.part = None
        return found

    def unfinished(self, leases: Iterable[Lease]) -> list[Lease]:
        return [lease for lease in leases if _key(lease.job) in self._held]

    def all(self) -> list[Lease]:
        return [held.lease for held in self._held.values()]

    def holds(self, lease: Lease) -> bool:
        """Whether this worker may still write for the job."""
        held = self._held.get(_key(lease.job))
        return held is not None and time.monotonic() < held.until

    def finish(self, lease: Lease, outcome: str, *, chunks: int = 0, stages: Stages | None = None) -> None:
        """The work on a job is over, however it ended. The first outcome counts."""
        held = self._held.pop(_key(lease.job), None)
        if held is None:
            return
        self._observer.finished(
            Attempt(
                job=lease.job,
                outcome=outcome,
                started=held.started,
                ended=time.time(),
                chunks=chunks,
                stages=dict(stages or {}),
            )
        )


def _key(job: Job) -> tuple[str, int]:
    return job.id, job.fence
