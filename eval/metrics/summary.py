"""What a reader notices of a summary: does it speak of the whole text, name its sources, keep to its length.

How near it is to a reference is measured in `eval.metrics.answer`, its flaws in `eval.metrics.flaws`.
"""

from __future__ import annotations

from eval.metrics.measure import Metric, NothingToScore, plain, summary, summary_of
from eval.metrics.service import UNCHECKED
from eval.types import Case, Sample
from llm.language import declined

LONGER = 1.2
"""How many times the words asked for a summary may have before it is too long: sentences are left whole."""


def summary_metrics() -> list[Metric]:
    return [
        Metric("summary_coverage", summary, _coverage),
        Metric("summary_sections_cited", summary, _sections_cited),
        Metric("summary_groundedness", summary, _groundedness),
        Metric("summary_within_words", _bounded, _within_words),
        Metric("summary_latency_seconds", summary, _latency),
    ]


def _bounded(case: Case) -> bool:
    return summary(case) and case.words is not None


async def _coverage(case: Case, sample: Sample) -> float:
    return summary_of(sample).coverage


async def _sections_cited(case: Case, sample: Sample) -> float:
    return summary_of(sample).sections_cited


async def _groundedness(case: Case, sample: Sample) -> float:
    """Nothing is grounded in a summary that says that there is nothing to say."""
    said = summary_of(sample)
    if said.supported is not None:
        return said.supported
    if not plain(said.text) or (declined(said.text) and not said.citations):
        return 0.0
    raise NothingToScore(UNCHECKED)


async def _within_words(case: Case, sample: Sample) -> float:
    return float(len(plain(summary_of(sample).text).split()) <= LONGER * (case.words or 0))


async def _latency(case: Case, sample: Sample) -> float:
    return summary_of(sample).seconds
