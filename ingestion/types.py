"""The words of ingestion: documents, jobs, parsed structure.

May import `retrieval.types`. The ledger keeps ids, hashes, spans and what the caller said about a
document (title, metadata), never its text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from retrieval.types import IndexSpec, Metadata, Span

JobState = Literal["queued", "running", "succeeded", "failed", "quarantined", "cancelled"]
Stage = Literal["waiting", "parse", "embed", "index", "done"]
GenerationState = Literal["building", "joining", "serving", "rollback", "retired"]
BlockKind = Literal["heading", "paragraph", "list", "table", "code"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDocument:
    """A document as handed in. `id` None: the file name, or else the content's hash, becomes the id."""

    content: bytes
    id: str | None = None
    collection: str = "default"
    title: str | None = None
    filename: str | None = None
    media_type: str | None = None
    metadata: Metadata = field(default_factory=dict)
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document's newest accepted version, as the ledger knows it. `visible` says whether any revision
    of it can be found now; `chunks` counts the rows of the visible one."""

    tenant: str
    id: str
    collection: str
    title: str
    filename: str | None
    media_type: str
    size: int
    content_hash: str
    metadata: Metadata
    groups: frozenset[str]
    version: int
    visible: bool
    chunks: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    code: str
    message: str
    part: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One accepted version on its way into the index. `done` of `total` counts chunks embedded.

    `fence` rises with every lease; a holder of an older one can change nothing. `position` is the number
    of jobs ahead in the queue and `eta_seconds` the estimate until it is done (None when unknown).
    `generation` is the one being built that the job fills; its owner is not told of such a job.
    """

    id: str
    tenant: str
    document_id: str
    version: int
    state: JobState
    stage: Stage
    done: int
    total: int
    attempts: int
    fence: int
    error: JobError | None
    traceparent: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    position: int | None = None
    eta_seconds: float | None = None
    generation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A structural piece of a document. `span` lies in `Parsed.text`; `level` is a heading's depth from 1."""

    kind: BlockKind
    span: Span
    level: int = 0
    page: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A document's extracted text, its blocks in reading order, and the title found in it, if any."""

    title: str | None
    text: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A chunk before it belongs to a revision. `heading` is the path of headings, joined by ` > `."""

    text: str
    heading: str
    page: int | None
    span: Span


@dataclass(frozen=True, slots=True)
class Collection:
    """`documents` counts those that are not deleted; `epoch` rises with every change that readers see."""

    name: str
    documents: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Generation:
    """An index that the ledger knows, by what its rows look like. `embedder` is the name under which the
    spec's artefact is loaded; `id` is the spec's hash, as the version of the product that made it counts."""

    id: str
    spec: IndexSpec
    state: GenerationState
    embedder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """How far a generation is. `documents` are those that readers can find, `done` those of them that are in
    it in the same version, `failed` those that cannot be put into it, by reason; the others are still to do.
    `extra` counts what is in it and should not be. `trouble` is what holds the work up now, if anything.
    `tokens` is an estimate (four characters each).
    """

    generation: str
    state: GenerationState
    documents: int
    done: int
    extra: int
    failed: Mapping[str, int]
    chunks: int
    tokens: int
    embedding_seconds: float
    eta_seconds: float | None
    trouble: str | None

    @property
    def behind(self) -> int:
        """Documents still to do."""
        return max(0, self.documents - self.done - sum(self.failed.values()))

    @property
    def embedding_seconds_left(self) -> float | None:
        """By what the documents done took; None before the first."""
        return self.embedding_seconds / self.done * self.behind if self.done else None


@dataclass(frozen=True, slots=True)
class Placed:
    """A document's revision in one generation, and its number of rows."""

    tenant: str
    document_id: str
    revision: int
    chunks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A job that one worker holds under `job.fence`, with what it takes to index that version.

    `title` is the one the caller gave, None if none was.
    """

    job: Job
    collection: str
    title: str | None
    filename: str | None
    media_type: str
    content_hash: str
    metadata: Metadata
    groups: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One worker's work on one job, told when it is over.

    `outcome` is one of succeeded, superseded, lost, quarantined, failed, retried, released. `stages` maps
    a stage to the (start, end) of its batch in seconds since 1970; `job.traceparent` is the trace to
    continue.
    """

    job: Job
    outcome: str
    started: float
    ended: float
    chunks: int
    stages: Mapping[Stage, tuple[float, float]]


class Observer(Protocol):
    """How the service hears of work done, to count it and to trace it."""

    def finished(self, attempt: Attempt) -> None: ...
