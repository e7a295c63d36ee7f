"""One evaluation: ask everything, score everything, lose nothing.

Read `evaluate` from top to bottom. A request that fails becomes a sample with an error, a metric that fails
becomes a score without a value, and an instance that dies leaves a report in which its cases have failed.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from app.release import DEFAULT_RELEASE, ReleaseInvalid, load_release
from eval.instance import private_instance
from eval.metrics.answer import Embed, Vector, answer_metrics
from eval.metrics.measure import Metric, score_case
from eval.metrics.ranking import ranking_metrics
from eval.metrics.service import service_metrics
from eval.target import HttpTarget
from eval.types import (
    Case,
    CaseResult,
    Dataset,
    InstanceFailed,
    Part,
    ReleaseRef,
    Report,
    Sample,
    TargetFailed,
)
from llm.errors import LlmError

CONCURRENCY = 4
T = TypeVar("T")

Progress = Callable[[str, int, int], None]
"""Called with a step's name and how many of it are done, of how many."""


async def evaluate_private(
    release: Path | None, dataset: Dataset, *, product: str, progress: Progress
) -> Report:
    """Evaluate a release file (None: the default) in an instance of its own, which gets the corpus first.

    A release that cannot be loaded, started or fed has failed: that too is a report, with every case lost.
    """
    ref = _unread(release or DEFAULT_RELEASE)
    try:
        ref = _loaded(release or DEFAULT_RELEASE)
        async with private_instance(release) as target:
            ref = await target.release()
            await target.ingest(dataset.documents, lambda done, total: progress("ingesting", done, total))
            return await evaluate(target, dataset, ref, product=product, progress=progress)
    except (ReleaseInvalid, LlmError, InstanceFailed, TargetFailed) as error:
        return await broken_off(dataset, ref, product=product, error=str(error))


async def evaluate(
    target: HttpTarget,
    dataset: Dataset,
    release: ReleaseRef,
    *,
    product: str,
    progress: Progress,
    concurrency: int = CONCURRENCY,
) -> Report:
    """Ask the target every question of the data set, whose corpus it must have, and score the answers."""
    begin, started_at = time.perf_counter(), _now()
    metrics = metrics_for(dataset, target.embed)
    samples = await collect(target, dataset, progress, concurrency)
    results = []
    for done, (case, sample) in enumerate(zip(dataset.cases, samples, strict=True), 1):
        results.append(CaseResult(case=case, sample=sample, scores=await score_case(metrics, case, sample)))
        progress("scoring", done, len(samples))
    return Report(
        dataset=dataset.ref,
        release=release,
        product=product,
        started_at=started_at,
        seconds=time.perf_counter() - begin,
        results=tuple(results),
    )


async def broken_off(dataset: Dataset, release: ReleaseRef, *, product: str, error: str) -> Report:
    """The report of a release that could not be asked at all: every case is there, and has failed."""

    async def nobody(texts: Sequence[str]) -> Sequence[Vector]:
        raise TargetFailed(error)

    metrics = metrics_for(dataset, nobody)
    results = []
    for case in dataset.cases:
        errors: dict[Part, str] = {"chat": error, "search": error}
        sample = Sample(case_id=case.id, errors=errors)
        results.append(CaseResult(case=case, sample=sample, scores=await score_case(metrics, case, sample)))
    return Report(
        dataset=dataset.ref,
        release=release,
        product=product,
        started_at=_now(),
        seconds=0.0,
        results=tuple(results),
        error=error,
    )


def metrics_for(dataset: Dataset, embed: Embed) -> list[Metric]:
    """All metrics; for a retrieval-only data set those of ranking. Which apply is each metric's to say."""
    if dataset.retrieval_only:
        return ranking_metrics()
    return [*ranking_metrics(), *service_metrics(), *answer_metrics(embed)]


async def collect(
    target: HttpTarget, dataset: Dataset, progress: Progress, concurrency: int = CONCURRENCY
) -> list[Sample]:
    """A sample for every case, in order, at most `concurrency` under way at once."""
    turn, done = asyncio.Semaphore(concurrency), 0

    async def one(case: Case) -> Sample:
        nonlocal done
        async with turn:
            sample = await _sample(target, dataset, case)
        done += 1
        progress("asking", done, len(dataset.cases))
        return sample

    return list(await asyncio.gather(*(one(case) for case in dataset.cases)))


async def _sample(target: HttpTarget, dataset: Dataset, case: Case) -> Sample:
    errors: dict[Part, str] = {}
    hits = await _try(
        "search",
        target.search(case.question, limit=dataset.search_limit, by_document=dataset.retrieval_only),
        errors,
    )
    reply = None if dataset.retrieval_only else await _try("chat", target.ask(case.question), errors)
    return Sample(case_id=case.id, reply=reply, hits=hits, errors=errors)


async def _try(part: Part, request: Awaitable[T], errors: dict[Part, str]) -> T | None:
    try:
        return await request
    except TargetFailed as error:
        errors[part] = str(error)
        return None


def _unread(path: Path) -> ReleaseRef:
    """A stand-in for a release of which nothing but its file is known yet."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InstanceFailed(f"Cannot read the release file {path}: {error.strerror}.") from None
    digest = hashlib.sha256(text.encode()).hexdigest()
    return ReleaseRef(id=f"file-{digest[:7]}", name=path.stem, fingerprint=digest, canonical=text)


def _loaded(path: Path) -> ReleaseRef:
    release = load_release(path)
    return ReleaseRef(
        id=release.id, name=release.name, fingerprint=release.fingerprint, canonical=release.canonical()
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
