"""What a reader notices: is there an answer, does it name its source, is it the right one, is it whole.

An answer abstains when it says so in the product's own words and cites nothing. An answer without the
words and without a citation is neither: it counts against the release on both kinds of questions.
"""

from __future__ import annotations

from app import evidence
from app.claims import Claim, Claims
from app.support import judge
from eval.metrics.measure import (
    Metric,
    NothingToScore,
    answerable,
    any_case,
    plain,
    question,
    quoted,
    reply_of,
    response_of,
    unanswerable,
)
from eval.metrics.ranking import coverage
from eval.report import LATENCY
from eval.types import Case, Reply, Sample
from llm.language import declined

UNCHECKED = "The service checked none of its sentences."


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


async def _citation_support(case: Case, sample: Sample) -> float:
    """By words alone, whatever check the release itself uses. No cited sentence has no support."""
    reply = reply_of(sample)
    claims = [claim for claim in claims_of(reply.text) if claim.citations]
    if not claims:
        return 0.0
    return sum([await _borne_out(claim, case, reply) for claim in claims]) / len(claims)


async def _borne_out(claim: Claim, case: Case, reply: Reply) -> bool:
    texts = [passage.text for passage in reply.citations if passage.number in claim.citations]
    if not texts:
        return False
    sources = [evidence.read(text) for text in texts]
    found = await judge(claim.text, sources, question=case.question, tenant="", score=None)
    return found.verdict == "supported"


def claims_of(text: str) -> list[Claim]:
    claims = Claims()
    return [*claims.feed(text), *claims.finish()]


async def _groundedness(case: Case, sample: Sample) -> float:
    """Nothing is grounded in an answer that abstains where there is one."""
    reply = reply_of(sample)
    if reply.supported is not None:
        return reply.supported
    if abstains(reply) or not plain(reply.text):
        return 0.0
    raise NothingToScore(UNCHECKED)


async def _answer_words(case: Case, sample: Sample) -> float:
    return float(len(plain(reply_of(sample).text).split()))


async def _latency(case: Case, sample: Sample) -> float:
    return reply_of(sample).seconds


async def _prompt_tokens(case: Case, sample: Sample) -> float:
    return float(response_of(case, sample).prompt_tokens)


async def _output_tokens(case: Case, sample: Sample) -> float:
    return float(response_of(case, sample).output_tokens)


def service_metrics() -> list[Metric]:
    return [
        Metric("answered", answerable, _answered),
        Metric("abstained", unanswerable, _abstained),
        Metric("cited", answerable, _cited),
        Metric("citation_hit", quoted, _citation_hit),
        Metric("citation_support", answerable, _citation_support),
        Metric("groundedness", answerable, _groundedness),
        Metric("answer_words", question, _answer_words),
        Metric(LATENCY, question, _latency),
        Metric("prompt_tokens", any_case, _prompt_tokens),
        Metric("output_tokens", any_case, _output_tokens),
    ]
