"""Metrics of RAGAS that ask a judge, each `repeats` times: the score is the mean, and an error if one fails.

RAGAS is given its own kind of model, whose every call goes to `eval.judge`: the schema is enforced by the
server, the reply is kept, and a judge that is away is the judge's failure and not the release's. What has
nothing to be judged (no answer, no passage) is 0 without asking.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from eval.judge import Judge
from eval.metrics.answer import quiet, said
from eval.metrics.embeddings import Embeddings
from eval.metrics.measure import Applies, Metric, hits_of, referenced, reply_of, summary
from eval.types import Case, JudgeFailed, Sample

WHOLE = "Summarize the text."
"""What a summary without a focus is an answer to."""

TextOf = Callable[[str], str]
"""The text of a document of the corpus, by its id."""
Inputs = Callable[[Case, Sample], dict[str, Any]]


def judge_metrics(judge: Judge, embeddings: Embeddings, text_of: TextOf) -> list[Metric]:
    """Raises ImportError when the `eval` extra is not installed."""
    with quiet():
        from ragas.metrics.collections import (
            AnswerRelevancy,
            ContextPrecisionWithReference,
            ContextRecall,
            FactualCorrectness,
            Faithfulness,
            SummaryScore,
        )
    models = _models(judge)
    near = _embedding(embeddings)

    def metric(name: str, applies: Applies, kind: Any, inputs: Inputs, **more: Any) -> Metric:
        scorers = [kind(llm=model, **more) for model in models]
        return Metric(name, applies, _measure(scorers, inputs))

    def summarized(case: Case) -> list[str]:
        return [text_of(gold.document_id) for gold in case.gold]

    def answer(case: Case, sample: Sample) -> dict[str, Any]:
        return {"user_input": case.question, "response": said(case, sample)}

    def faithfulness(case: Case, sample: Sample) -> dict[str, Any]:
        return {**answer(case, sample), "retrieved_contexts": _texts(reply_of(sample).sources)}

    def precision(case: Case, sample: Sample) -> dict[str, Any]:
        return {**_asked(case), "retrieved_contexts": _texts(hits_of(sample))}

    def recall(case: Case, sample: Sample) -> dict[str, Any]:
        return {**_asked(case), "retrieved_contexts": _texts(reply_of(sample).sources)}

    def correctness(case: Case, sample: Sample) -> dict[str, Any]:
        return {"response": said(case, sample), "reference": case.reference}

    def score(case: Case, sample: Sample) -> dict[str, Any]:
        return {"response": said(case, sample), "reference_contexts": summarized(case)}

    def summary_faithfulness(case: Case, sample: Sample) -> dict[str, Any]:
        asked = {"user_input": case.question or WHOLE, "response": said(case, sample)}
        return {**asked, "retrieved_contexts": summarized(case)}

    return [
        metric("judge_faithfulness", referenced, Faithfulness, faithfulness),
        # RAGAS asks three times for variety that a temperature of 0 does not give: repeats are ours.
        metric("judge_answer_relevancy", referenced, AnswerRelevancy, answer, embeddings=near, strictness=1),
        metric("judge_context_precision", referenced, ContextPrecisionWithReference, precision),
        metric("judge_context_recall", referenced, ContextRecall, recall),
        metric("judge_factual_correctness", referenced, FactualCorrectness, correctness),
        metric("judge_summary_score", summary, SummaryScore, score),
        metric("judge_summary_faithfulness", summary, Faithfulness, summary_faithfulness),
    ]


def _measure(scorers: Sequence[Any], inputs: Inputs) -> Callable[[Case, Sample], Awaitable[float]]:
    async def measure(case: Case, sample: Sample) -> float:
        given = inputs(case, sample)
        if not all(given.values()):
            return 0.0
        return math.fsum([await _scored(scorer, given) for scorer in scorers]) / len(scorers)

    return measure


async def _scored(scorer: Any, given: dict[str, Any]) -> float:
    """RAGAS computes a NaN, or divides by nothing, where a reply holds too little."""
    try:
        value = float((await scorer.ascore(**given)).value)
    except ArithmeticError as error:
        raise JudgeFailed(f"The judge's replies make no score: {error}") from None
    if not math.isfinite(value):
        raise JudgeFailed(f"The judge's replies make no score: {value}")
    return value


def _models(judge: Judge) -> list[Any]:
    with quiet():
        from ragas.llms.base import InstructorBaseRagasLLM

    class Asking(InstructorBaseRagasLLM):
        """RAGAS's model for one repeat."""

        def __init__(self, repeat: int) -> None:
            self._repeat = repeat

        def generate(self, prompt: str, response_model: Any) -> Any:
            raise TypeError("A judge is asked asynchronously.")

        async def agenerate(self, prompt: str, response_model: Any) -> Any:
            def accept(text: str) -> Any:
                # Servers that enforce a schema let through control characters that strict JSON has escaped.
                return response_model.model_validate(json.loads(text, strict=False))

            schema = response_model.model_json_schema()
            return await judge.ask(prompt, schema, accept, repeat=self._repeat)

    return [Asking(repeat) for repeat in range(judge.settings.repeats)]


def _embedding(embeddings: Embeddings) -> Any:
    with quiet():
        from ragas.embeddings.base import BaseRagasEmbedding

    class Near(BaseRagasEmbedding):
        """The target's embeddings."""

        def embed_text(self, text: str, **kwargs: Any) -> list[float]:
            raise TypeError("Embeddings are fetched asynchronously.")

        async def aembed_text(self, text: str, **kwargs: Any) -> list[float]:
            return await embeddings.of(text)

    return Near()


def _asked(case: Case) -> dict[str, Any]:
    return {"user_input": case.question, "reference": case.reference}


def _texts(passages: Sequence[Any]) -> list[str]:
    return [passage.text for passage in passages]
