"""Handing files in and waiting for their jobs: many at once, each failure kept for the end."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from app.cli.already import Already
from app.cli.client import Client, ClientError
from app.cli.sources import Source

AT_ONCE = 4
FIRST_POLL = 0.1
LONGEST_POLL = 1.0
LOOKED_UP = 500
"""Jobs that are asked about at once."""
PATIENCE = 60.0
"""Seconds for which a service that is away, or starts again, is asked again."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 5.0
ENDED = frozenset({"succeeded", "failed", "quarantined", "cancelled"})
_OF_ONE_DOCUMENT = frozenset({400, 409, 413, 415, 422})
"""Refusals that concern one document; any other failure concerns them all, and ends the upload."""
_MENDED_BY_WAITING = frozenset({0, 429, 502, 503, 504})

Progress = Callable[[int, int], None]
"""Told how many are done, of how many."""
_NOTHING = Already({})


class NotHandedIn(Exception):
    """A file is refused before the service is asked; the message says why, and `code` in a word."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a document. `status` is its job's, or `refused`, or `unchanged`."""

    document_id: str
    status: str
    reason: str = ""
    message: str = ""
    part: str | None = None
    job_id: str | None = None
    chunks: int = 0

    @property
    def failed(self) -> bool:
        return self.status not in ("succeeded", "queued", "running", "unchanged")


@dataclass(frozen=True, slots=True)
class Seen:
    """How far jobs are: `chunks` of those that ended and of those at work, and the seconds until the last is
    done, as the service estimates them."""

    done: int
    total: int
    failed: int
    chunks: int
    eta: float | None


def hand_in(
    client: Client,
    sources: Sequence[Source],
    fields: Mapping[str, Any],
    progress: Progress,
    already: Already = _NOTHING,
    *,
    most: int,
) -> list[Outcome]:
    """Hand every file in that is not there already; the outcomes are `queued`, `refused` or `unchanged`, in
    the order of the sources. A queue that is full is waited for. No file is read that has more bytes than
    `most`."""
    stopped = threading.Event()

    def one(source: Source) -> Outcome:
        try:
            content = _content(source.path, most)
            job = already.job(source, content, fields)
            if job is None:
                job = _patiently(client, source, content, fields, stopped)
        except NotHandedIn as error:
            return Outcome(document_id=source.id, status="refused", reason=error.code, message=str(error))
        except ClientError as error:
            if error.status not in _OF_ONE_DOCUMENT:
                raise
            return Outcome(document_id=source.id, status="refused", reason=error.code, message=str(error))
        except OSError as error:
            return Outcome(document_id=source.id, status="refused", message=f"Unreadable: {error.strerror}")
        return Outcome(document_id=source.id, status=job["status"], job_id=job.get("id"))

    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for outcome in pool.map(one, sources):
                outcomes.append(outcome)
                progress(len(outcomes), len(sources))
        except BaseException:
            stopped.set()
            pool.shutdown(cancel_futures=True)
            raise
    return outcomes


def _content(path: Path, most: int) -> bytes:
    """Raises `NotHandedIn` for what is no file, which might never end, and for what is too large."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise NotHandedIn("It is not a regular file.", "not_a_file")
    if about.st_size > most:
        raise _too_large(about.st_size, most)
    with path.open("rb") as file:
        content = file.read(most + 1)  # It may have grown, and files of the system say 0.
    if len(content) > most:
        raise _too_large(len(content), most)
    return content


def _too_large(size: int, most: int) -> NotHandedIn:
    return NotHandedIn(
        f"It has {size:,} bytes; at most {most:,} are handed in. PLUMBLINE_UPLOAD_LIMIT raises that, if the "
        "service was started with as much.",
        "document_too_large",
    )


def _patiently(
    client: Client, source: Source, content: bytes, fields: Mapping[str, Any], stopped: threading.Event
) -> Any:
    """Hand one file in, once, however often it takes to be heard. A full queue is waited for as long as it is
    full, a service that is away for `PATIENCE` seconds."""
    once, pause, given_up = str(uuid4()), FIRST_PAUSE, time.monotonic() + PATIENCE
    while True:
        try:
            return client.put_file(source.id, source.name, content, fields, once)
        except ClientError as error:
            full = error.code == "queue_full"
            if error.status not in _MENDED_BY_WAITING or (not full and time.monotonic() > given_up):
                raise
            if stopped.wait(max(pause, error.retry_after) if full else pause):
                raise
            if full:
                given_up = time.monotonic() + PATIENCE
            pause = min(LONGEST_PAUSE, 2 * pause)


def finished(
    client: Client,
    outcomes: Sequence[Outcome],
    stopping: threading.Event | None = None,
    seen: Callable[[Seen], None] = lambda seen: None,
) -> Iterator[Outcome]:
    """Each outcome once its job has ended, those that have first; ends early when `stopping` is set. `seen`
    is told how far all are."""
    stopping = stopping or threading.Event()
    waiting = {one.job_id: one for one in outcomes if one.job_id and one.status not in ENDED}
    failed = chunks = 0
    for outcome in outcomes:
        if outcome.job_id not in waiting:
            failed += outcome.failed
            yield outcome
    poll = FIRST_POLL
    while waiting:
        jobs = _look_up(client, list(waiting))
        for job in jobs:
            if job["status"] in ENDED:
                outcome = of_job(job)
                del waiting[job["id"]]
                failed += outcome.failed
                chunks += outcome.chunks
                yield outcome
        at_work = sum(job["done"] for job in jobs if job["status"] == "running")
        etas = [job["eta_seconds"] for job in jobs if job["status"] not in ENDED]
        eta = None if not etas or None in etas else max(etas)
        seen(Seen(len(outcomes) - len(waiting), len(outcomes), failed, chunks + at_work, eta))
        if waiting and stopping.wait(poll):
            return
        poll = min(LONGEST_POLL, poll * 1.5)


def _look_up(client: Client, ids: Sequence[str]) -> list[dict[str, Any]]:
    """The first of these jobs, and the last, which tells how long all will take."""
    asked = [*ids[: LOOKED_UP - 1], ids[-1]] if len(ids) > LOOKED_UP else list(ids)
    given_up = time.monotonic() + PATIENCE
    while True:
        try:
            jobs: list[dict[str, Any]] = client.post("/v1/jobs/lookup", {"ids": asked})["jobs"]
            return jobs
        except ClientError as error:
            if error.status not in _MENDED_BY_WAITING or time.monotonic() > given_up:
                raise
            time.sleep(LONGEST_POLL)


def of_job(job: Mapping[str, Any]) -> Outcome:
    error = job.get("error") or {}
    return Outcome(
        document_id=job["document_id"],
        status=job["status"],
        reason=str(error.get("code") or ""),
        message=str(error.get("message") or ""),
        part=error.get("part"),
        job_id=job["id"],
        chunks=job.get("done") or 0,
    )
