"""Every metric by name: its tier, which way is better, what a failure counts as, and what it means.

Tiers by what they cost: 0 looks at one answer alone and serves live traffic too, 1 needs a data set, 2 asks a
judge, which is another model. Imports no metric, so that whoever reads a report need not install what
computes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from app.quality import FLAGS

Tier = Literal[0, 1, 2]
Direction = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class About:
    """`worst` is the end of the range that a failure counts as, None where the range has no such end:
    then it is the worst value seen."""

    tier: Tier
    meaning: str
    direction: Direction = "higher"
    worst: float | None = 0.0


def _flaw(meaning: str) -> About:
    return About(0, meaning, "lower", 1.0)


def _cost(meaning: str) -> About:
    return About(1, meaning, "lower", None)


_FLAWS: Final = {
    "empty": "says nothing",
    "truncated": "ended by the limit of tokens",
    "repetition": "says the same over and over",
    "refusal": "declines an answerable question though it had passages",
    "wrong_language": "is in another language than wanted",
    "unresolved": "a citation marker names no source",
    "uncited": "several sentences without any citation, and not declining",
    "malformed": "control characters, an open code fence, tokens or tags of the prompt",
    "degraded": "made without something that its release asks for",
}

CATALOGUE: Final[dict[str, About]] = {
    **{name: _flaw(_FLAWS[name]) for name in FLAGS},
    "document_ndcg_10": About(1, "nDCG@10 of the documents found"),
    "document_recall_10": About(1, "share of the gold documents among the first 10"),
    "document_mrr": About(1, "1 / place of the first gold document"),
    "passage_ndcg_10": About(1, "nDCG@10 of the gold passages found"),
    "passage_recall_10": About(1, "share of the gold passages among the first 10 hits"),
    "passage_mrr": About(1, "1 / place of the first hit with a gold passage"),
    "context_precision": About(1, "RAGAS, by ids: share of the passages given that are gold"),
    "context_recall": About(1, "RAGAS, by ids: share of the gold passages that were given"),
    "answered": About(1, "an answerable question is answered"),
    "abstained": About(1, "an unanswerable question is declined"),
    "cited": About(1, "an answerable question's answer names a source"),
    "citation_hit": About(1, "a cited passage holds a gold passage"),
    "citation_support": About(1, "share of the cited sentences that their passages bear out by their words"),
    "groundedness": About(1, "share of the sentences that the service's own check found supported"),
    "rouge_l": About(1, "RAGAS, ROUGE-L F-measure to the reference"),
    "string_similarity": About(1, "RAGAS, Levenshtein similarity to the reference"),
    "semantic_similarity": About(1, "RAGAS, cosine of the embeddings of answer and reference"),
    "answer_words": _cost("words of the answer"),
    "latency_seconds": _cost("seconds until the answer was complete"),
    "summary_coverage": About(1, "share of the text that the summary speaks of"),
    "summary_sections_cited": About(1, "share of the sections that the summary cites"),
    "summary_groundedness": About(1, "share of the sentences that the service's own check found supported"),
    "summary_rouge_l": About(1, "RAGAS, ROUGE-L F-measure to the reference summary"),
    "summary_semantic_similarity": About(1, "RAGAS, cosine of the embeddings of summary and reference"),
    "summary_within_words": About(1, "no longer than was asked for"),
    "summary_latency_seconds": _cost("seconds until the summary was complete"),
    "prompt_tokens": _cost("tokens of all prompts that were needed"),
    "output_tokens": _cost("tokens that were generated"),
    "judge_faithfulness": About(2, "RAGAS: share of the answer's statements that its passages bear out"),
    "judge_answer_relevancy": About(2, "RAGAS: how near questions made from the answer are to the question"),
    "judge_context_precision": About(2, "RAGAS: how high the passages useful for the reference stand"),
    "judge_context_recall": About(2, "RAGAS: share of the reference that the passages bear out"),
    "judge_factual_correctness": About(2, "RAGAS: F1 of the claims of answer and reference"),
    "judge_summary_score": About(2, "RAGAS: questions on the text that the summary answers, and its brevity"),
    "judge_summary_faithfulness": About(
        2, "RAGAS: share of the summary's statements that its text bears out"
    ),
}


def about(name: str) -> About:
    """Of a metric that this version does not know: that more is better."""
    return CATALOGUE.get(name, About(1, ""))
