"""What a reader notices: is there an answer, does it name its source, is it the right one, is it whole.

An answer abstains when it says so in the product's own words and cites nothing. An answer without the
words and without a citation is neither: it counts against the release on both kinds of questions.
"""

from __future__ import annotations

from eval.metrics.measure import Metric, answerable, any_case, quoted, reply_of, unanswerable
from eval.metrics.ranking import coverage
from eval.report import LATENCY
from eval.types import Case, Reply, Sample
from llm.language import declined


def abstains(reply: Reply) -> bool:
    return declined(reply.text) and not reply.citations


async def _abstained(case: Case, sample: Sample) -> float:
    return float(abstains(reply_of(sample)))


async def _answered(case: Case, sample: Sample) -> float:
    reply = reply_of(sample)
    return float(bool(reply.text.strip()) and not abstains(reply))


async def _cited(case: Case, sample: Sample) -> float:
    return float(bool(reply_of(sample).citations))


async def _citation_hit(case: Case, sample: Sample) -> float:
    return float(any(coverage(reply_of(sample).citations, case.gold)))


async def _undegraded(case: Case, sample: Sample) -> float:
    return float(not reply_of(sample).degraded)


async def _latency(case: Case, sample: Sample) -> float:
    return reply_of(sample).seconds


def service_metrics() -> list[Metric]:
    return [
        Metric("answered", answerable, _answered),
        Metric("abstained", unanswerable, _abstained),
        Metric("cited", answerable, _cited),
        Metric("citation_hit", quoted, _citation_hit),
        Metric("undegraded", any_case, _undegraded),
        Metric(LATENCY, any_case, _latency),
    ]
