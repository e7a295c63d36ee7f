"""The flaws that `app.quality` tells of every live answer, as metrics: 1 is bad.

An answer should be in the case's language. A refusal is a flaw only where there is an answer.
"""

from __future__ import annotations

from app.quality import FLAGS, Quality, assess
from eval.metrics.measure import Metric, answerable, any_case, response_of
from eval.types import Case, Reply, Sample, Summarized

REFUSAL = "refusal"


def flaw_metrics() -> list[Metric]:
    return [_flaw(name) for name in FLAGS]


def _flaw(name: str) -> Metric:
    async def measure(case: Case, sample: Sample) -> float:
        return quality_of(case, response_of(case, sample)).flags[name]

    return Metric(name, answerable if name == REFUSAL else any_case, measure)


def quality_of(case: Case, response: Reply | Summarized) -> Quality:
    finish, sources = "stop", response.citations
    if isinstance(response, Reply):
        finish, sources = response.finish, response.sources
    return assess(
        response.text,
        cited={citation.number for citation in response.citations},
        sources=len(sources),
        finish=finish,
        degraded=response.degraded,
        language=case.language,
    )
