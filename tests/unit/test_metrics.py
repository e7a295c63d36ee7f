"""What /metrics tells of answers, releases and estimates."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from app.metrics import Metrics
from app.release import DEFAULT_RELEASE, load_release, with_model
from app.releases import Champion, Standing
from app.types import Answer, Usage
from ingestion.types import Job

RELEASE = load_release(DEFAULT_RELEASE)
ANSWER = Answer(
    text="28 days.",
    citations=(),
    release=RELEASE.id,
    degraded=("rerank", "model:extractive"),
    stages={"search": 0.1},
    usage=Usage(prompt_tokens=90, output_tokens=7),
    model="extractive",
    finish="stop",
)
JOB = Job(
    id="1",
    tenant="acme",
    document_id="leave",
    version=1,
    state="queued",
    stage="waiting",
    done=0,
    total=0,
    attempts=0,
    fence=0,
    error=None,
    traceparent=None,
    created_at=datetime.now(UTC),
    started_at=None,
    finished_at=None,
)


def _told(metrics: Metrics, name: str) -> dict[str, float]:
    """The series of this name, by what stands after it."""
    lines = [line.rpartition(" ") for line in metrics.text().decode().splitlines()]
    return {series.removeprefix(name): float(value) for series, _, value in lines if series.startswith(name)}


def test_what_an_answer_went_without_is_counted_with_it() -> None:
    metrics = Metrics()
    metrics.answered("chat", ANSWER)
    assert _told(metrics, "plumbline_degraded_total") == {
        '{part="rerank"}': 1.0,
        '{part="model:extractive"}': 1.0,
    }
    assert _told(metrics, "plumbline_answers_total").popitem()[1] == 1.0


def test_a_release_that_serves_no_longer_is_told_no_more() -> None:
    metrics = Metrics()
    for release in (RELEASE, with_model(RELEASE, "big")):
        metrics.serving(Standing(champion=Champion(release, "champion")))
        [series] = _told(metrics, "plumbline_release_info")
        assert f'release="{release.id}"' in series


def test_what_somebody_else_counts_is_told_once() -> None:
    metrics = Metrics()
    for _ in range(2):
        metrics.trials({("a", "mirrored"): 2, ("b", "mirrored"): 1}, lost=4)
    assert _told(metrics, "plumbline_shadow_total")['{result="mirrored"}'] == 3.0
    assert _told(metrics, "plumbline_outcomes_lost_total") == {"": 4.0}


def test_the_first_estimate_is_judged_where_the_job_took_long_enough() -> None:
    for took, judged in ((1.0, 0.0), (100.0, 1.0)):
        metrics = Metrics()
        for seconds in (50.0, 5_000.0):
            metrics.estimated(replace(JOB, eta_seconds=seconds))
        ended = datetime.now(UTC) + timedelta(seconds=took)
        metrics.estimated(replace(JOB, state="succeeded", finished_at=ended))
        assert _told(metrics, "plumbline_job_eta_ratio_count") == {"": judged}
        assert _told(metrics, "plumbline_job_eta_ratio_sum")[""] < 1.0
