"""What the routes answer, for the OpenAPI document and the clients that are made from it.

They are described here and built elsewhere, as plain values: a model for each hit would cost as much as the
search. That both agree, the tests look at with every response that they get.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from app.access import KeyState
from app.releases import ReleaseState
from app.trials import TrialKind, TrialState
from app.types import Reason, Scope, Verdict
from ingestion.types import (
    ErasureScope,
    ErasureState,
    GenerationState,
    JobState,
    OutcomeState,
    PauseMode,
    Pulse,
    Stage,
    WorkerState,
)

Seconds = float
Metadata = dict[str, str | float | bool | list[str]]
NONE_IS_UNKNOWN = "Null when it is not known."


class Span(BaseModel):
    """Characters of the document's extracted text."""

    start: int
    end: int


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Source(BaseModel):
    """A passage that an answer rests on."""

    number: int = Field(description="As `[number]` in the text.")
    document_id: str = Field(description="Empty for a text that came with the request.")
    chunk_id: str
    title: str
    heading: str
    page: int | None
    span: Span
    text: str
    url: str | None = Field(description="Path of the passage in its surroundings.")


class SourceSpan(BaseModel):
    document_id: str
    chunk_id: str
    start: int
    end: int


class SentenceSupport(BaseModel):
    """What the sources that a sentence cites do for it."""

    sentence: int = Field(description="Counted from 1.")
    start: int = Field(description="Character of the answer.")
    end: int
    citations: list[int]
    verdict: Verdict
    score: float = Field(description="From 0 to 1: how likely they bear it out.")
    reason: Reason
    spans: list[SourceSpan]


class Grounds(BaseModel):
    """Where a text comes from, and how it came about."""

    citations: list[Source]
    release: str
    degraded: list[str] = Field(description="What had to be done without, such as `rerank`.")
    stages: dict[str, Seconds] = Field(description="Seconds that each stage took.")
    model: str
    support: list[SentenceSupport]
    supported: float | None = Field(description="Share of the checked sentences that are supported.")


class AnswerGrounds(Grounds):
    sources: list[Source] = Field(description="All passages that the model was given.")
    answered: bool = Field(description="False when the documents do not hold an answer.")
    conversation: str
    cached: Literal["answer", "output"] | None


class UrlCitation(BaseModel):
    start_index: int
    end_index: int
    title: str
    url: str


class Annotation(BaseModel):
    type: Literal["url_citation"]
    url_citation: UrlCitation


class AnswerMessage(BaseModel):
    role: Literal["assistant"]
    content: str
    refusal: None
    annotations: list[Annotation]


class AnswerChoice(BaseModel):
    index: int
    message: AnswerMessage
    logprobs: None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[AnswerChoice]
    usage: Usage
    plumbline: AnswerGrounds


class SummaryReply(Grounds):
    object: Literal["summary"]
    text: str
    coverage: float = Field(description="Share of the text that the summary speaks of.")
    sections_cited: float
    usage: Usage


class SearchHit(BaseModel):
    document_id: str
    chunk_id: str
    score: float
    title: str
    heading: str
    text: str
    page: int | None
    span: Span
    collection: str
    metadata: Metadata


class SearchReply(BaseModel):
    hits: list[SearchHit]
    next: str | None = Field(description="`after` of the next page; null on the last one.")
    degraded: list[str] = Field(description="What had to be done without.")
    release: str


class Embedding(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str = Field(description="With `base64`, little-endian 32-bit floats.")


class EmbeddingUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsReply(BaseModel):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class RankedText(BaseModel):
    text: str


class Ranked(BaseModel):
    index: int = Field(description="Place among the documents of the request, from 0.")
    relevance_score: float
    document: RankedText | None = Field(None, description="Only with `return_documents`.")


class RerankReply(BaseModel):
    model: str
    results: list[Ranked] = Field(description="The best first.")


class JobFailure(BaseModel):
    code: str
    message: str
    part: str | None = Field(description="Where in the document, such as a page.")


class Warned(BaseModel):
    rule: str
    message: str


class JobReply(BaseModel):
    id: str
    document_id: str
    version: int
    status: JobState
    stage: Stage
    done: int = Field(description="Passages embedded,")
    total: int = Field(description="of so many.")
    reused: int
    position: int | None = Field(description="Jobs ahead of it.")
    eta_seconds: Seconds | None = Field(description=NONE_IS_UNKNOWN)
    priority: int
    attempts: int
    part: str | None = Field(description="What its reader reads now.")
    pulse: Pulse | None
    moved_at: datetime | None
    error: JobFailure | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    warnings: list[Warned]


class JobsReply(BaseModel):
    jobs: list[JobReply]


class JobsPage(JobsReply):
    next: str | None = Field(description="`before` of the next page; null on the last one.")


class JobReason(BaseModel):
    status: JobState
    reason: str
    jobs: int


class JobCounts(BaseModel):
    jobs: dict[JobState, int]
    reasons: list[JobReason]


class CancelledJobs(BaseModel):
    cancelled: int


class RetriedJobs(BaseModel):
    retried: int


class DocumentReply(BaseModel):
    id: str
    collection: str
    title: str
    filename: str | None
    media_type: str
    size: int
    content_hash: str
    metadata: Metadata
    groups: list[str]
    version: int
    visible: bool
    status: JobState | None = Field(description="How far the newest version's job is.")
    error: JobFailure | None
    chunks: int
    created_at: datetime
    updated_at: datetime
    warnings: list[Warned]


class DocumentsReply(BaseModel):
    documents: list[DocumentReply]
    next: str | None = Field(description="`after` of the next page; null on the last one.")


class DeletedDocument(BaseModel):
    id: str
    object: Literal["document.deleted"]
    deleted: bool


class DeletedDocuments(BaseModel):
    object: Literal["documents.deleted"]
    deleted: bool
    count: int
    ids: list[str] = Field(description="The first 1 000 of them.")
    dry_run: bool = False


class DeletedCollection(BaseModel):
    object: Literal["documents.deleted"]
    deleted: bool
    count: int
    ids: list[str] = Field(description="The first 1 000 of them.")
    collection: str


class Passage(BaseModel):
    document_id: str
    chunk_id: str
    title: str
    heading: str
    text: str
    page: int | None
    span: Span


class PassageReply(Passage):
    before: Passage | None
    after: Passage | None


class PlaceReply(BaseModel):
    document_id: str
    title: str
    page: int | None
    heading: str
    span: Span
    before: str
    text: str
    after: str


class CollectionReply(BaseModel):
    name: str
    documents: int = Field(description="Of those that the key may read.")


class CollectionsReply(BaseModel):
    collections: list[CollectionReply]


class RulesReply(BaseModel):
    collection: str
    rules: dict[str, Any] = Field(description="Those that are set.")


class RuleCount(BaseModel):
    documents: int
    examples: list[str]


class RulesReportReply(RulesReply):
    documents: int
    with_warnings: int
    warned: dict[str, RuleCount]
    refused: dict[str, RuleCount]


class StoreErasure(BaseModel):
    state: OutcomeState
    removed: int
    detail: str
    at: datetime | None


class ErasureReply(BaseModel):
    id: str
    object: Literal["erasure"]
    scope: ErasureScope
    state: ErasureState
    documents: int
    stores: dict[str, StoreErasure]
    asked_at: datetime
    finished_at: datetime | None


class ErasureWithReceipt(ErasureReply):
    receipt: dict[str, Any] | None = Field(description="Signed; once it is finished.")


class ErasuresReply(BaseModel):
    erasures: list[ErasureReply]


class PauseReply(BaseModel):
    everybody: bool
    mode: PauseMode
    reason: str
    since: datetime


class QueueReply(BaseModel):
    state: Literal["open", "paused", "draining", "drained"]
    queued: int
    queued_bytes: int
    running: int
    oldest_seconds: Seconds | None
    held_up: dict[str, int] = Field(
        description="Of those that wait, how many were tried already, by what kept them from their end."
    )
    rate: float | None = Field(description="Jobs a second, lately.")
    eta_seconds: Seconds | None = Field(description=NONE_IS_UNKNOWN)
    workers: int
    pauses: list[PauseReply]


class QueueLimits(BaseModel):
    document_bytes: int
    queued: int
    queued_bytes: int
    request_documents: int


class OwnQueueReply(QueueReply):
    limits: QueueLimits


class WorkerReply(BaseModel):
    name: str
    host: str
    pid: int
    version: str
    state: WorkerState
    jobs: dict[str, int]
    started_at: datetime
    beat_at: datetime


class WorkersReply(BaseModel):
    workers: list[WorkerReply]


class ModelRelease(BaseModel):
    release: str
    name: str
    state: str
    forced: str | None
    models: list[str]


class ModelReply(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    plumbline: ModelRelease


class ModelsReply(BaseModel):
    object: Literal["list"]
    data: list[ModelReply]


class ReleaseReply(BaseModel):
    id: str
    name: str
    state: ReleaseState
    bootstrap: bool
    evaluated: bool
    forced: str | None = Field(description="Why it got requests without a passed evaluation.")
    evidence: dict[str, Any] | None
    created_at: datetime


class ReleasesReply(BaseModel):
    releases: list[ReleaseReply]


class WholeRelease(ReleaseReply):
    release: dict[str, Any] = Field(description="The release file.")


class ChampionReply(BaseModel):
    id: str
    name: str
    state: str
    forced: str | None
    release: dict[str, Any] = Field(description="The release file.")


class IndexDocuments(BaseModel):
    total: int
    done: int
    failed: int
    left: int


class IndexCost(BaseModel):
    chunks: int
    tokens_estimate: int
    embedding_seconds: Seconds
    embedding_seconds_left: Seconds | None


class IndexReply(BaseModel):
    release: str
    generation: str
    state: GenerationState
    documents: IndexDocuments
    failures: dict[str, int]
    trouble: str | None
    cost: IndexCost
    eta_seconds: Seconds | None = Field(description=NONE_IS_UNKNOWN)


class DroppedIndex(BaseModel):
    release: str
    state: Literal["retired"]


class TrialReply(BaseModel):
    id: str
    kind: TrialKind
    release: str
    control: str
    state: TrialState
    plan: dict[str, Any]
    step: int
    share: float
    live: bool
    evidence: dict[str, Any]
    decision: dict[str, Any] | None
    who: str
    started_at: datetime
    step_at: datetime
    ended_at: datetime | None


class AffectedRequests(BaseModel):
    requests: int
    conversations: int
    tenants: int
    faults: int
    degraded: int
    first_at: datetime | None
    last_at: datetime | None
    first: str | None
    last: str | None
    parts: list[dict[str, Any]]


class TrialWithAffected(TrialReply):
    affected: AffectedRequests


class AuditEntry(BaseModel):
    at: datetime
    who: str
    what: str
    evidence: dict[str, Any] | None


class ReleaseHistory(ReleaseReply):
    trials: list[TrialWithAffected]
    audit: list[AuditEntry]


class ServingRelease(BaseModel):
    id: str
    name: str
    state: str
    forced: str | None


class ReleaseOnTrial(BaseModel):
    trial: str
    release: str
    share: float
    live: bool


class StandingReply(BaseModel):
    champion: ServingRelease
    canary: ReleaseOnTrial | None
    shadow: ReleaseOnTrial | None
    soaking: str | None
    before: str | None
    trials: list[TrialReply] | None


class KeyReply(BaseModel):
    id: str | None
    tenant: str
    groups: list[str] | None
    scopes: list[Scope]


class ManagedKey(BaseModel):
    id: str
    name: str
    tenant: str
    prefix: str
    last4: str
    groups: list[str] | None = Field(description="Null: every group of its tenant.")
    scopes: list[Scope]
    state: KeyState
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None = Field(description="To the minute.")
    revoked_at: datetime | None


class MadeKey(ManagedKey):
    key: str = Field(description="The secret, told this once.")


class KeysReply(BaseModel):
    keys: list[ManagedKey]
    next: str | None = Field(description="`after` of the next page; null on the last one.")


class VerdictReply(BaseModel):
    release: str
    state: str
    result: Literal["successful", "failed", "running", "inconclusive"]
    passed: bool
    why: str
    share: float


class FeedbackReply(BaseModel):
    id: str
    rating: Literal["up", "down"]


class Live(BaseModel):
    status: Literal["live"]


class Ready(BaseModel):
    status: Literal["ready", "degraded", "not ready"]
    parts: dict[str, str]
    down: list[str]
    release: str
    release_state: str
    release_forced: str | None


class JobsAccepted(BaseModel):
    """In the order of the documents."""

    jobs: list[JobReply]
