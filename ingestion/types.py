"""The words of ingestion: documents, jobs, parsed structure.

May import `retrieval.types`. The ledger keeps ids, hashes, spans and what the caller said about a
document (title, metadata), never its text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from ingestion.rules import Breach
from retrieval.types import IndexSpec, Metadata, Span

JobState = Literal["queued", "running", "succeeded", "failed", "quarantined", "cancelled"]
Stage = Literal["waiting", "parse", "embed", "index", "done"]
Pulse = Literal["working", "slow", "lost"]
PauseMode = Literal["paused", "draining"]
WorkerState = Literal["working", "idle", "stopping", "lost"]
GenerationState = Literal["building", "joining", "serving", "rollback", "retired"]
ErasureScope = Literal["documents", "filter", "collection", "tenant"]
ErasureState = Literal["selecting", "erasing", "finished"]
OutcomeState = Literal["waiting", "done", "pending"]
BlockKind = Literal["heading", "paragraph", "list", "table", "code"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDocument:
    """A document as handed in. `id` None: the file name, or else the content's hash, becomes the id. Among
    its tenant's documents that wait, those of a higher `priority` (-10 to 10) are indexed sooner."""

    content: bytes
    id: str | None = None
    collection: str = "default"
    title: str | None = None
    filename: str | None = None
    media_type: str | None = None
    metadata: Metadata = field(default_factory=dict)
    groups: frozenset[str] = frozenset()
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a writer takes for granted: that the document is of one of these versions (None: of any), or, with
    `absent`, that there is none."""

    versions: frozenset[int] | None = None
    absent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document's newest accepted version, as the ledger knows it. `visible` says whether any revision
    of it can be found now; `chunks` counts the rows of the visible one; `warnings` are the rules of its
    collection that it broke. `status` is how far the newest version's job is, `error` why it failed."""

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
    warnings: tuple[Breach, ...] = ()
    status: JobState | None = None
    error: JobError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    code: str
    message: str
    part: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One accepted version on its way into the index. `done` of `total` counts chunks embedded,
    `reused` those whose vectors were at hand.

    `fence` rises with every lease; a holder of an older one can change nothing. `position` is the number
    of jobs ahead in the queue and `eta_seconds` the estimate until it is done (None when unknown).
    `generation` is the one being built that the job fills; its owner is not told of such a job. While it
    runs, `part` is what its reader reads, `moved_at` when it was heard to get on, and its `pulse` tells one
    that is slow from one whose worker is not heard of.
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
    priority: int = 0
    size: int = 0
    media_type: str = ""
    worker: str | None = None
    part: str | None = None
    leased_at: datetime | None = None
    moved_at: datetime | None = None
    pulse: Pulse | None = None
    reused: int = 0
    warnings: tuple[Breach, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """Which jobs of a tenant are meant: those of these ids, of a state, an error's code, a collection,
    accepted or ended since a time, whose document a caller of these groups may read (None: any)."""

    ids: tuple[str, ...] = ()
    states: tuple[JobState, ...] = ()
    reason: str | None = None
    collection: str | None = None
    since: datetime | None = None
    groups: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """So many jobs in a state, for a reason if they have one."""

    state: JobState
    reason: str | None
    jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Nothing is leased: of a tenant, or of anybody (`tenant` None). One that drains is asked when nothing of
    it runs any more."""

    tenant: str | None
    mode: PauseMode
    reason: str
    who: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """What waits and runs, of one tenant or of all. `oldest_seconds` is how long the first has waited, from
    its first try on if it waits again; `held_up` counts those that do, by what kept them from their end;
    `rate` is in jobs a second over those that succeeded lately, `eta_seconds` until all of it is done (None
    when unknown)."""

    queued: int
    queued_bytes: int
    running: int
    oldest_seconds: float | None
    held_up: Mapping[str, int]
    rate: float | None
    eta_seconds: float | None
    workers: int
    pauses: tuple[Pause, ...]

    @property
    def state(self) -> Literal["open", "paused", "draining", "drained"]:
        if not self.pauses:
            return "open"
        if all(pause.mode == "paused" for pause in self.pauses):
            return "paused"
        return "draining" if self.running else "drained"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """A worker process that told of itself. It is `lost` when it was not heard of for longer than its jobs
    stay its own; `jobs` counts what it holds, by stage."""

    name: str
    host: str
    pid: int
    version: str
    state: WorkerState
    started_at: datetime
    beat_at: datetime
    jobs: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What an operator watches, of all tenants: jobs by state, how long the first has waited, those that wait
    again (as in `Queue`), workers by state, and whether all leasing is paused."""

    jobs: Mapping[JobState, int]
    oldest_seconds: float
    held_up: Mapping[str, int]
    workers: Mapping[WorkerState, int]
    paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A structural piece of a document. `span` lies in `Parsed.text`; `level` is a heading's depth from 1;
    `header` is the part at the beginning of a table's span that names its columns. `page` is 1-based, and is
    the number of the slide or sheet where there are such; `turns` are the places within `span` where the
    pages after it begin."""

    kind: BlockKind
    span: Span
    level: int = 0
    page: int | None = None
    header: Span | None = None
    turns: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A document's extracted text, its blocks in reading order, and the title found in it, if any. `notes`
    are sentences about what of a readable document could not be read."""

    title: str | None
    text: str
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A chunk before it belongs to a revision. `heading` is the path of headings, joined by ` > `.

    `text` is what `span` holds of the document, in a later part of a table under the names of its columns.
    """

    text: str
    heading: str
    page: int | None
    span: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is accepted: bytes of a document; documents and bytes of one tenant that may wait."""

    document_bytes: int
    queued: int
    queued_bytes: int


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


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far one store is with an erasure: `waiting`, `done`, or `pending` where the rest is up to the
    store. `detail` is said to people; `removed` counts what went, `at` is when it was done."""

    state: OutcomeState
    removed: int = 0
    detail: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """Documents that are to be gone from every store, for good; `stores` says how far each is."""

    id: str
    tenant: str
    scope: ErasureScope
    who: str
    state: ErasureState
    documents: int
    stores: Mapping[str, Outcome]
    asked_at: datetime
    finished_at: datetime | None


class Observer(Protocol):
    """How the service hears of work done, to count it and to trace it."""

    def finished(self, attempt: Attempt) -> None: ...


@dataclass(frozen=True, slots=True)
class Containment:
    """What a process that reads a file is kept from here, as tried by one: the network, every file but the
    program's own, starting other processes. Memory, processor time and writing are limited everywhere."""

    network: bool
    files: bool
    processes: bool
