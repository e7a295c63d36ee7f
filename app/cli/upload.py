"""Handing files in and waiting for their jobs: many at once, each failure kept for the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from app.cli.client import Client, ClientError
from app.cli.sources import Source

AT_ONCE = 4
FIRST_POLL = 0.1
LONGEST_POLL = 1.0
ENDED = frozenset({"succeeded", "failed", "quarantined", "cancelled"})
_OF_ONE_DOCUMENT = frozenset({400, 409, 413, 415, 422})
"""Refusals that concern one document; any other failure concerns them all, and ends the upload."""

Progress = Callable[[int, int], None]
"""Told how many are done, of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a document. `status` is its job's, or `refused`."""

    document_id: str
    status: str
    message: str = ""
    part: str | None = None
    job_id: str | None = None

    @property
    def failed(self) -> bool:
        return self.status not in ("succeeded", "queued", "running")


def hand_in(
    client: Client, sources: Sequence[Source], fields: Mapping[str, Any], progress: Progress
) -> list[Outcome]:
    """Hand every file in; the outcomes are `queued` or `refused`, in order of the sources."""

    def one(source: Source) -> Outcome:
        try:
            job = client.put_file(source.id, source.path, fields)
        except ClientError as error:
            if error.status not in _OF_ONE_DOCUMENT:
                raise
            return Outcome(document_id=source.id, status="refused", message=str(error))
        except OSError as error:
            return Outcome(document_id=source.id, status="refused", message=f"Unreadable: {error.strerror}")
        return Outcome(document_id=source.id, status=job["status"], job_id=job["id"])

    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for outcome in pool.map(one, sources):
                outcomes.append(outcome)
                progress(len(outcomes), len(sources))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return outcomes


def finished(
    client: Client, outcomes: Sequence[Outcome], stopping: threading.Event | None = None
) -> Iterator[Outcome]:
    """Each outcome once its job has ended, in their order; ends early when `stopping` is set."""
    stopping = stopping or threading.Event()
    for outcome in outcomes:
        poll, current = FIRST_POLL, outcome
        while current.status not in ENDED and current.job_id:
            current = of_job(client.get(f"/v1/jobs/{current.job_id}"))
            if current.status not in ENDED and stopping.wait(poll):
                return
            poll = min(LONGEST_POLL, poll * 1.5)
        yield current


def of_job(job: Mapping[str, Any]) -> Outcome:
    error = job.get("error") or {}
    return Outcome(
        document_id=job["document_id"],
        status=job["status"],
        message=str(error.get("message") or ""),
        part=error.get("part"),
        job_id=job["id"],
    )
