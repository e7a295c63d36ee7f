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
from eval.judge import Judge
from eval.leakage import leaks
from eval.metrics.answer import answer_metrics
from eval.metrics.embeddings import Embed, Embeddings, Vector
from eval.metrics.flaws import flaw_metrics
from eval.metrics.judged import judge_metrics
from eval.metrics.measure import Metric, score_case
from eval.metrics.ranking import ranking_metrics
from eval.metrics.service import service_metrics
from eval.metrics.summary import summary_metrics
from eval.target import HttpTarget
from eval.texts import Texts
from eval.types import (
    Case,
    CaseResult,
    Dataset,
    InstanceFailed,
    Part,
    ReleaseRef,
    Reply,
    Report,
    Sample,
    Summarized,
    TargetFailed,
)
from llm.errors import LlmError
from llm.language import LANGUAGES

CONCURRENCY = 4
SCORED_AT_ONCE = 32
T = TypeVar("T")

Progress = Callable[[str, int, int], None]
"""Called with a step's name and how many of it are done, of how many."""


async def evaluate_private(
    release: Path | None,
    dataset: Dataset,
    *,
    product: str,
    progress: Progress,
    judge: Judge | None = None,
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
            return await evaluate(target, dataset, ref, product=product, progress=progress, judge=judge)
    except (ReleaseInvalid, LlmError, InstanceFailed, TargetFailed) as error:
        return await broken_off(dataset, ref, product=product, error=str(error), judge=judge)


async def evaluate(
    target: HttpTarget,
    dataset: Dataset,
    release: ReleaseRef,
    *,
    product: str,
    progress: Progress,
    concurrency: int = CONCURRENCY,
    judge: Judge | None = None,
) -> Report:
    """Ask the target every question of the data set, whose corpus it must have, and score the answers. Each
    names the release: of what is promoted or tried meanwhile, nothing may get into its report."""
    begin, started_at = time.perf_counter(), _now()
    texts = Texts(dataset.documents)
    metrics = metrics_for(dataset, target.embed, texts, judge)
    with target.pinned(release):
        samples = await collect(target, dataset, progress, concurrency)
        results = await scored(metrics, dataset.cases, samples, progress)
    return Report(
        dataset=dataset.ref,
        release=release,
        product=product,
        started_at=started_at,
        seconds=time.perf_counter() - begin,
        results=results,
        leaks=await asyncio.to_thread(leaks, results, release.canonical, texts),
        judge=judge.settings.name if judge else None,
    )


async def broken_off(
    dataset: Dataset, release: ReleaseRef, *, product: str, error: str, judge: Judge | None = None
) -> Report:
    """The report of a release that could not be asked at all: every case is there, and has failed."""

    async def nobody(texts: Sequence[str]) -> Sequence[Vector]:
        raise TargetFailed(error)

    metrics = metrics_for(dataset, nobody, Texts(dataset.documents), judge)
    samples = [Sample(case_id=case.id, errors=dict.fromkeys(_parts(case), error)) for case in dataset.cases]
    return Report(
        dataset=dataset.ref,
        release=release,
        product=product,
        started_at=_now(),
        seconds=0.0,
        results=await scored(metrics, dataset.cases, samples, _unwatched),
        error=error,
        judge=judge.settings.name if judge else None,
    )


def metrics_for(dataset: Dataset, embed: Embed, texts: Texts, judge: Judge | None) -> list[Metric]:
    """All metrics; for a retrieval-only data set those of ranking. Which apply is each metric's to say."""
    if dataset.retrieval_only:
        return ranking_metrics()
    embeddings = Embeddings(embed)
    return [
        *flaw_metrics(),
        *ranking_metrics(),
        *service_metrics(),
        *answer_metrics(embeddings),
        *summary_metrics(),
        *(judge_metrics(judge, embeddings, texts.__getitem__) if judge else ()),
    ]


async def scored(
    metrics: Sequence[Metric], cases: Sequence[Case], samples: Sequence[Sample], progress: Progress
) -> tuple[CaseResult, ...]:
    """The samples' scores, in order. Many at once, so that what they embed goes out together."""
    turn, done = asyncio.Semaphore(SCORED_AT_ONCE), 0

    async def one(case: Case, sample: Sample) -> CaseResult:
        nonlocal done
        async with turn:
            scores = await score_case(metrics, case, sample)
        done += 1
        progress("scoring", done, len(cases))
        return CaseResult(case=case, sample=sample, scores=scores)

    pairs = zip(cases, samples, strict=True)
    return tuple(await asyncio.gather(*(one(case, sample) for case, sample in pairs)))


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
    if case.kind == "summary":
        summary = await _try("summary", _summarized(target, case), errors)
        return Sample(case_id=case.id, summary=summary, errors=errors)
    hits = await _try(
        "search",
        target.search(case.question, limit=dataset.search_limit, by_document=dataset.retrieval_only),
        errors,
    )
    reply = None if dataset.retrieval_only else await _try("chat", _answered(target, case), errors)
    return Sample(case_id=case.id, reply=reply, hits=hits, errors=errors)


async def _answered(target: HttpTarget, case: Case) -> Reply:
    """What a cache holds was made by whatever served then: it says nothing of the release under test."""
    reply = await target.ask(case.question)
    if reply.cached:
        raise TargetFailed(f"The answer came from a cache ({reply.cached}).")
    return reply


async def _summarized(target: HttpTarget, case: Case) -> Summarized:
    documents = list(dict.fromkeys(gold.document_id for gold in case.gold))
    language = case.language if case.language in LANGUAGES else None
    return await target.summarize(documents, focus=case.question, words=case.words, language=language)


def _parts(case: Case) -> tuple[Part, ...]:
    return ("summary",) if case.kind == "summary" else ("chat", "search")


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


def _unwatched(step: str, done: int, total: int) -> None:
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
