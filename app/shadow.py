"""A shadow: the release on trial answers what the champion has just answered, and nobody sees it.

It has no effect on anything else: models and breakers of its own, no cache, a short queue that drops what
does not fit, and it works only while nobody waits, neither here nor at a model. When somebody does, it stops
at once and its pair is lost.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace

from app import deadline, quality
from app.admission import Admission
from app.chat import Chat
from app.outcomes import Facts, Outcomes, facts_of, facts_of_fault, is_fault
from app.release import Release
from app.releases import OnTrial
from app.serving import Serving, Servings
from app.summarize import Summarizer
from app.types import Answer, Question, Sources, Summary, SummaryRequest
from llm.types import Load

log = logging.getLogger(__name__)

MOST = 16
"""Answers that wait to be mirrored; those that come while it is full are not."""
STALE = 20.0
"""Seconds after which an answer is not mirrored any more: too much may have changed."""
SECONDS = 60.0
"""That a mirrored answer may take."""
LOOK = 0.005


@dataclass(frozen=True, slots=True)
class _Job:
    trial: OnTrial
    request: Question | SummaryRequest
    answer: Answer | Summary
    facts: Facts
    name: str
    at: float

    @property
    def kind(self) -> str:
        return "chat" if isinstance(self.request, Question) else "summary"


class Shadow:
    """`chat` and `summarizer` are the shadow's own; `load` tells what the models have to do. Keep `running`
    open for as long as something is offered."""

    def __init__(
        self,
        on_trial: Callable[[], OnTrial | None],
        servings: Servings,
        chat: Chat,
        summarizer: Summarizer,
        outcomes: Outcomes,
        admission: Admission,
        load: Callable[[], Load | None],
    ) -> None:
        self._on_trial = on_trial
        self._servings = servings
        self._chat = chat
        self._summarizer = summarizer
        self._outcomes = outcomes
        self._admission = admission
        self._load = load
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue(MOST)
        self._counts: Counter[tuple[str, str]] = Counter()
        self._draw = random.Random()  # noqa: S311 - it samples, it guards nothing

    @property
    def counts(self) -> Mapping[tuple[str, str], int]:
        """How many answers of each release were mirrored, dropped, stopped or failed."""
        return self._counts

    def offer(
        self,
        request: Question | SummaryRequest,
        answer: Answer | Summary,
        facts: Callable[[], Facts],
        name: str,
    ) -> None:
        """Mirror the champion's answer once it is sent, if it was worked out and is drawn."""
        trial = self._on_trial()
        if trial is None or not trial.live or self._draw.random() >= trial.share:
            return
        if isinstance(answer, Answer) and (answer.cached or answer.epoch is None):
            return
        try:
            self._jobs.put_nowait(_Job(trial, request, answer, facts(), name, time.monotonic()))
        except asyncio.QueueFull:
            self._count(trial.release, "dropped")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._run(), name="shadow")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            job = await self._jobs.get()
            try:
                await self._mirror(job)
            except Exception:
                log.exception("A mirrored answer was lost.")
                self._count(job.trial.release, "failed")

    async def _mirror(self, job: _Job) -> None:
        serving = await self._turn(job)
        if serving is None:
            self._count(job.trial.release, "dropped")
            return
        answering = asyncio.create_task(self._answered(job, serving))
        try:
            while not answering.done():
                if self._busy():
                    self._count(job.trial.release, "stopped")
                    return
                await asyncio.wait((answering,), timeout=LOOK)
            self._record(job, *answering.result())
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    async def _turn(self, job: _Job) -> Serving | None:
        """The release on trial, once nobody waits; None when that takes too long."""
        await asyncio.sleep(LOOK)  # The answer that is mirrored leaves first.
        while self._busy() and time.monotonic() - job.at < STALE:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(LOOK)
        if not job.trial.live or time.monotonic() - job.at >= STALE:
            return None
        await self._servings.prepare(job.trial.release)
        return self._servings.ready(job.trial.release)

    def _busy(self) -> bool:
        """Whether somebody waits, here or at a model. Where answers are worked out here, whoever is being
        answered would wait for us."""
        load = self._load()
        return bool(self._admission.waiting or (load.waiting if load else self._admission.running))

    def _record(self, job: _Job, facts: Facts, same: bool) -> None:
        self._count(job.trial.release, "mirrored")
        self._outcomes.record_pair(
            {
                "trial": job.trial.trial,
                "counted": same,
                "kind": job.kind,
                "tenant": job.request.where.tenant,
                "answer": job.name,
                "champion": dict(job.facts),
                "candidate": dict(facts),
            }
        )

    async def _answered(self, job: _Job, serving: Serving) -> tuple[Facts, bool]:
        """What the shadow's answer is like, and whether both saw the same state of the documents."""
        begin, ends = time.perf_counter(), deadline.after(SECONDS)
        try:
            if isinstance(job.request, Question):
                question = replace(job.request, deadline=ends, cache="off")
                answer, sources = await self._asked(question, serving)
                asked = question.messages[-1].content
                found = quality.of_answer(answer, question=asked, sources=sources)
                same = isinstance(job.answer, Answer) and answer.epoch == job.answer.epoch
                return facts_of(answer, found, time.perf_counter() - begin), same
            wanted = replace(job.request, deadline=ends, cache="off")
            summary = await self._summarized(wanted, serving)
            found = quality.of_summary(summary, language=wanted.language)
            return facts_of(summary, found, time.perf_counter() - begin), True
        except Exception as error:  # noqa: BLE001 - an edge: any failure of a shadow is its outcome
            return facts_of_fault(error, time.perf_counter() - begin), is_fault(error)

    async def _asked(self, question: Question, serving: Serving) -> tuple[Answer, int]:
        sources = 0
        async with aclosing(self._chat.ask(question, serving=serving)) as events:
            async for event in events:
                if isinstance(event, Sources):
                    sources = len(event.hits)
                elif isinstance(event, Answer):
                    return event, sources
        raise RuntimeError("An answer ended without its last event.")

    async def _summarized(self, request: SummaryRequest, serving: Serving) -> Summary:
        async with aclosing(self._summarizer.summarize(request, serving=serving)) as events:
            async for event in events:
                if isinstance(event, Summary):
                    return event
        raise RuntimeError("A summary ended without its last event.")

    def _count(self, release: Release, what: str) -> None:
        self._counts[release.id, what] += 1
