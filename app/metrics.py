"""Prometheus metrics of one API process. Every label has few values: no tenant, document or question."""

from __future__ import annotations

import math
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from app.releases import Champion, Standing
from app.types import Answer, Summary
from ingestion.types import Job, Operation

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FAST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
M = TypeVar("M", Counter, Histogram)
_RATIOS = (0.1, 0.25, 0.5, 0.75, 1, 1.33, 2, 4, 10)
_MIRRORING = ("mirrored", "dropped", "stopped", "failed")
_MOST_ESTIMATES = 10_000
_SHORTEST_ESTIMATE = 2.0
"""Seconds: what is told for less says nothing about estimates."""


class Metrics:
    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._found: dict[tuple[Any, tuple[str, ...]], Any] = {}
        self._told: Tally[str] = Tally()
        self._estimates: dict[str, tuple[datetime, float]] = {}
        self._of_requests()
        self._of_the_queue()
        self._of_parts()
        self._of_releases()

    def _of_requests(self) -> None:
        self._requests = self._histogram(
            "plumbline_http_request_seconds",
            "Time until the last byte of a response.",
            *("method", "route", "status"),
        )
        self._answers = self._counter(
            "plumbline_answers",
            "Answers and summaries that were completed.",
            *("kind", "release", "model", "cached"),
        )
        self._degraded = self._counter("plumbline_degraded", "What answers had to do without.", "part")
        self._failures = self._counter(
            "plumbline_failures", "Requests that ended in an error, by its code.", "code"
        )
        self._stages = self._histogram(
            "plumbline_stage_seconds", "Time that answers spent in each stage.", "stage"
        )
        self._tokens = self._counter("plumbline_tokens", "Tokens read and written by models.", "direction")
        self._running = self._gauge("plumbline_admission_running", "Requests being answered.")
        self._waiting = self._gauge("plumbline_admission_waiting", "Requests waiting for their turn.")

    def _of_the_queue(self) -> None:
        self._jobs = self._gauge(
            "plumbline_jobs",
            "Documents on their way into the index, and those that did not get there.",
            "state",
        )
        self._oldest = self._gauge(
            "plumbline_queue_oldest_seconds", "How long the first of the documents that wait has waited."
        )
        self._held_up = self._gauge(
            "plumbline_jobs_held_up",
            "Of the documents that wait, those that were tried already, by what kept them from their end.",
            "code",
        )
        self._paused = self._gauge("plumbline_queue_paused", "Whether all leasing is paused.")
        self._workers = self._gauge(
            "plumbline_workers",
            "Workers: heard of lately (working), or within the hour, and not since, nor stopped (lost).",
            "state",
        )
        self._estimated = self._histogram(
            "plumbline_job_eta_ratio",
            "Of jobs that succeeded, the time that was told first over the time that it took from then on.",
            buckets=_RATIOS,
        )
        self._reused = self._counter(
            "plumbline_embeddings_reused",
            "Vectors that were at hand and not computed again, in the generations there are.",
        )

    def _of_parts(self) -> None:
        self._parts = self._gauge(
            "plumbline_part_up",
            "Whether a part was in order at this scrape: ledger, store, index, outputs, files, models.",
            "part",
        )
        self._disk = self._gauge("plumbline_disk_free_bytes", "Bytes free for the data folder.")
        self._lag = self._histogram(
            "plumbline_loop_lag_seconds",
            "How late the event loop, which everything is answered on, came to what was due.",
            buckets=_LAGS,
        )

    def _of_releases(self) -> None:
        self._release = self._gauge(
            "plumbline_release_info",
            "The releases that get requests. A champion's state may be bootstrap or forced.",
            *("release", "name", "state"),
        )
        self._share = self._gauge(
            "plumbline_trial_share",
            "Share of the conversations (canary) or of the answers (shadow) that a trial gets; 0 once its "
            "lease is over.",
            *("kind", "release"),
        )
        self._shadow = self._counter(
            "plumbline_shadow",
            "Answers that were offered to a shadow: mirrored, dropped, stopped for others, failed.",
            "result",
        )
        # What there was none of yet must be there as 0: an alert compares them.
        for result in _MIRRORING:
            self._shadow.labels(result)
        self._lost = self._counter("plumbline_outcomes_lost", "Outcomes of trials that could not be written.")

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, registry=self._registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(name, meaning, labels, registry=self._registry)

    def _histogram(
        self, name: str, meaning: str, *labels: str, buckets: Sequence[float] = _FAST
    ) -> Histogram:
        return Histogram(name, meaning, labels, buckets=buckets, registry=self._registry)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        self._series(self._requests, method, route, str(status)).observe(seconds)

    def _series(self, metric: M, *labels: str) -> M:
        """The series of these labels. Finding it costs the client more than counting does."""
        key = (metric, labels)
        found = self._found.get(key)
        if found is None:
            self._found[key] = found = metric.labels(*labels)
        return cast(M, found)

    def failure(self, code: str) -> None:
        self._failures.labels(code).inc()

    def answered(self, kind: str, answer: Answer | Summary) -> None:
        cached = (answer.cached if isinstance(answer, Answer) else None) or "no"
        self._series(self._answers, kind, answer.release, answer.model, cached).inc()
        self.degraded(answer.degraded)
        for stage, seconds in answer.stages.items():
            self._series(self._stages, stage).observe(seconds)
        self._series(self._tokens, "prompt").inc(answer.usage.prompt_tokens)
        self._series(self._tokens, "output").inc(answer.usage.output_tokens)

    def degraded(self, parts: tuple[str, ...]) -> None:
        for part in parts:
            self._degraded.labels(part).inc()

    def admission(self, running: int, waiting: int) -> None:
        self._running.set(running)
        self._waiting.set(waiting)

    def parts(self, up: Mapping[str, bool]) -> None:
        self._parts.clear()
        for part, answered in up.items():
            self._parts.labels(part).set(answered)

    def disk(self, free: float) -> None:
        self._disk.set(free)

    def lag(self, seconds: float) -> None:
        self._lag.observe(seconds)

    def queue(self, now: Operation | None) -> None:
        """The queue and its workers; None when the ledger did not answer, which removes them rather than
        lie."""
        self._jobs.clear()
        self._workers.clear()
        self._held_up.clear()
        self._oldest.set(now.oldest_seconds if now else math.nan)
        self._paused.set(now.paused if now else math.nan)
        if now is not None:
            for state, jobs in now.jobs.items():
                self._jobs.labels(state).set(jobs)
            for code, jobs in now.held_up.items():
                self._held_up.labels(code).set(jobs)
            for kind, workers in now.workers.items():
                self._workers.labels(kind).set(workers)

    def estimated(self, job: Job) -> None:
        """Keep the first estimate that was told of a job, and judge it once the job is seen to have
        succeeded."""
        if job.state in ("queued", "running"):
            if job.eta_seconds is not None and job.id not in self._estimates:
                if len(self._estimates) >= _MOST_ESTIMATES:
                    self._estimates.clear()
                self._estimates[job.id] = (datetime.now(UTC), job.eta_seconds)
            return
        told = self._estimates.pop(job.id, None)
        if told is not None and job.state == "succeeded" and job.finished_at is not None:
            took = (job.finished_at - told[0]).total_seconds()
            if took >= _SHORTEST_ESTIMATE:
                self._estimated.observe(told[1] / took)

    def reused(self, count: int) -> None:
        """As the ledger counts; what a generation that was removed takes with it is not taken off."""
        self._raise(self._reused, "reused", max(count, self._told["reused"]))

    def serving(self, standing: Standing) -> None:
        """Who gets requests now, and how much of them."""
        champion, soaking = standing.champion, standing.soaking
        self._release.clear()
        self._release.labels(champion.release.id, champion.release.name, _state(champion)).set(1)
        if soaking:
            self._release.labels(soaking.id, soaking.name, "soaking").set(1)
        self._share.clear()
        for kind, trial in (("canary", standing.canary), ("shadow", standing.shadow)):
            if trial:
                self._release.labels(trial.release.id, trial.release.name, kind).set(1)
                self._share.labels(kind, trial.release.id).set(trial.share if trial.live else 0.0)

    def trials(self, mirrored: Mapping[tuple[str, str], int], lost: int) -> None:
        """What has become of a shadow's answers, by release and result, and how many outcomes were lost, both
        since the process began."""
        results: Tally[str] = Tally()
        for (_, result), count in mirrored.items():
            results[result] += count
        for result, count in results.items():
            self._raise(self._shadow.labels(result), f"shadow {result}", count)
        self._raise(self._lost, "lost", lost)

    def _raise(self, counter: Counter, name: str, count: int) -> None:
        """To what somebody else has counted."""
        counter.inc(count - self._told[name])
        self._told[name] = count

    def text(self) -> bytes:
        return generate_latest(self._registry)


def _state(champion: Champion) -> str:
    return "forced" if champion.forced else champion.state
