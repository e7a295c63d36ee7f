"""Whether what a sentence cites bears it out: a verdict for every sentence of an answer.

Words come first: a sentence that its source says word for word needs nothing else. For any other an
embedder is asked how close the nearest sentences of the source are. What the measures weigh was fitted by
logistic regression on sentences that people had labelled; `plumbline eval checker` says how well it does on
others, and `--fit` prints the weights anew.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app import evidence
from app.claims import Claim
from app.evidence import Agreement, Evidence, Statement
from app.serving import Serving
from app.similarity import Similarity
from app.types import Reason, SourceSpan, Support, Verdict
from llm.language import declined
from llm.types import Scorer
from retrieval.errors import EmbedderUnavailable
from retrieval.types import Chunk, Embedder, EmbedderSpec, Span

SUPPORTED = 0.45
"""Score from which a sentence counts as supported,"""
WEAK = 0.3
"""and from which the check is not sure."""
NEAREST = 6
"""Sentences of each source that an embedder is asked about."""
FEW = 4
"""Words of a sentence that says little without the question that it answers."""

Weights = Mapping[str, float]
MEANING: Weights = {
    "bias": -2.76,
    "anywhere": 1.09,
    "quoted": 2.12,
    "spliced": -1.51,
    "similarity": 2.97,
    "close": 1.88,
    "numbers": -0.47,
    "names": -0.69,
    "turned": -0.62,
}
WORDS: Weights = {
    "bias": -0.87,
    "anywhere": 1.17,
    "quoted": 2.46,
    "spliced": -0.63,
    "numbers": -0.46,
    "names": -0.87,
    "turned": -0.3,
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """`score` in [0, 1] estimates how likely the sources bear the sentence out; `source` is the place of the
    best one among those given, `span` the sentences there that do it."""

    verdict: Verdict
    score: float
    reason: Reason
    source: int
    span: Span


def measures(agreement: Agreement, similarity: float | None = None) -> dict[str, float]:
    """The numbers that are weighed, each about 0 to 1; without a similarity those of words alone."""
    quoted = float(agreement.quoted)
    found = {
        "bias": 1.0,
        "anywhere": agreement.anywhere,
        "quoted": quoted,
        "spliced": (1 - quoted) * agreement.runs,
        "numbers": float(bool(agreement.numbers)),
        "names": agreement.names,
        "turned": float(agreement.turned),
    }
    if similarity is None:
        return found
    return {**found, "similarity": similarity, "close": max(0.0, similarity - 0.6)}


def judged(agreement: Agreement, similarity: float | None = None) -> Judgement:
    weights = WORDS if similarity is None else MEANING
    found = measures(agreement, similarity)
    score = 1 / (1 + math.exp(-sum(weights.get(name, 0.0) * value for name, value in found.items())))
    reason = _reason(agreement, score)
    if reason in ("number", "denial"):
        score = min(score, WEAK - 0.01)
    verdict: Verdict = "supported" if score >= SUPPORTED else "weak" if score >= WEAK else "unsupported"
    return Judgement(verdict, round(score, 3), reason, agreement.source, agreement.window.span)


def _reason(agreement: Agreement, score: float) -> Reason:
    if agreement.numbers:
        return "number"
    if agreement.denied:
        return "denial"
    if agreement.quoted:
        return "quoted"
    if score >= SUPPORTED:
        return "words" if agreement.anywhere >= 0.8 else "meaning"
    return "direction" if agreement.turned else "name" if agreement.names else "unlike"


async def judge(
    text: str, sources: Sequence[Evidence], *, question: str, tenant: str, score: Scorer | None
) -> Judgement:
    """Whether the sources bear the sentence out. `question` is what it answers, `score` an embedder's
    similarity; without one words alone decide. Raises what `score` does."""
    claim = Statement(text)
    agreement = evidence.compare(claim, sources)
    if score is None or agreement.quoted or agreement.numbers:
        return judged(agreement)
    asked = f"{question} {text}" if len(claim.known) <= FEW else text
    near = [w.statement.text for source in sources for w in evidence.nearest(claim, source, NEAREST)]
    return judged(agreement, max(await score(tenant, asked, near), default=0.0))


class Reading:
    """Reads passages for checks and keeps what it read of the latest ones: at most `most`, 100 KiB each."""

    def __init__(self, *, most: int = 256) -> None:
        self._kept: OrderedDict[tuple[str, str], Evidence] = OrderedDict()
        self._similarities: dict[EmbedderSpec, Similarity] = {}
        self._most = most

    def scorer(self, embedder: Embedder) -> Scorer:
        """A claim is compared as what the sources are: a statement, and no question."""
        spec = embedder.spec
        if spec not in self._similarities:
            self._similarities[spec] = Similarity(embedder, "document")
        return self._similarities[spec].score

    async def evidence(self, chunk: Chunk) -> Evidence:
        # A chunk that belongs to no document has an id of its own request only.
        key = (chunk.tenant, chunk.id) if chunk.document_id else (chunk.tenant, chunk.text)
        found = self._kept.get(key)
        if found is None:
            above = f"{chunk.title}\n{chunk.heading}"
            found = await asyncio.to_thread(evidence.read, chunk.text, above)
        self._kept[key] = found
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return found


def checks(
    reading: Reading, chunks: Sequence[Chunk], serving: Serving, *, question: str, tenant: str
) -> Checks:
    """As the release wants it."""
    how = serving.release.body.answer.support
    score = reading.scorer(serving.index.embedder) if how == "meaning" else None
    return Checks(reading, chunks, question=question, tenant=tenant, score=score, wanted=how != "off")


class Checks:
    """The checks of one answer's sentences, run one after the other beside its stream.

    `score` is lent by an embedder, None checks by words alone; `chunks` are the sources by their numbers from
    1. A sentence that says that the documents hold nothing is no claim and gets no verdict.
    """

    def __init__(
        self,
        reading: Reading,
        chunks: Sequence[Chunk],
        *,
        question: str,
        tenant: str,
        score: Scorer | None,
        wanted: bool = True,
    ) -> None:
        self._wanted = wanted
        self._reading = reading
        self._chunks = chunks
        self._question = question
        self._tenant = tenant
        self._score = score
        self._turn = asyncio.Lock()
        self._under_way: deque[tuple[Claim, asyncio.Task[Support]]] = deque()
        self._found: list[Support] = []
        self.degraded = False

    @property
    def found(self) -> tuple[Support, ...]:
        return tuple(self._found)

    def begin(self, claim: Claim) -> None:
        if self._wanted and not declined(claim.text):
            self._under_way.append((claim, asyncio.create_task(self._checked(claim))))

    def done(self) -> list[Support]:
        """Verdicts that were not told yet, in the order of the sentences."""
        told: list[Support] = []
        while self._under_way and self._under_way[0][1].done():
            told.append(self._under_way.popleft()[1].result())
        self._found += told
        return told

    async def finish(self, seconds: float) -> list[Support]:
        """The verdicts that are left. Sentences whose check is not done in time have none."""
        if self._under_way:
            await asyncio.wait([task for _, task in self._under_way], timeout=seconds)
        told = self.done()
        if self._under_way:
            self.degraded = True
        return told

    async def close(self) -> None:
        tasks = [task for _, task in self._under_way]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _checked(self, claim: Claim) -> Support:
        cited = [self._chunks[number - 1] for number in claim.citations]
        if not cited:
            return _support(claim, "uncited", 0.0, "no citation")
        async with self._turn:
            sources = [await self._reading.evidence(chunk) for chunk in cited]
            found = await self._judged(claim, sources)
        spans = () if found.verdict == "unsupported" else _place(cited[found.source], found.span)
        return _support(claim, found.verdict, found.score, found.reason, spans)

    async def _judged(self, claim: Claim, sources: Sequence[Evidence]) -> Judgement:
        asked = {"question": self._question, "tenant": self._tenant}
        try:
            return await judge(claim.text, sources, score=self._score, **asked)
        except EmbedderUnavailable:
            self.degraded = True
            return await judge(claim.text, sources, score=None, **asked)


def _support(
    claim: Claim, verdict: Verdict, score: float, reason: Reason, spans: tuple[SourceSpan, ...] = ()
) -> Support:
    return Support(
        sentence=claim.number,
        start=claim.start,
        end=claim.end,
        citations=claim.citations,
        verdict=verdict,
        score=score,
        reason=reason,
        spans=spans,
    )


def _place(chunk: Chunk, span: Span) -> tuple[SourceSpan, ...]:
    """Where a part of a passage stands in its document; nowhere, where the passage only says it again."""
    at = chunk.span.start - chunk.lead
    start, end = max(at + span.start, chunk.span.start), at + span.end
    if start >= end:
        return ()
    return (SourceSpan(document_id=chunk.document_id, chunk_id=chunk.id, start=start, end=end),)
