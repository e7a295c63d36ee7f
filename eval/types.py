"""The words of evaluation: cases in, samples and scores out, a report and a verdict.

Imports nothing of the project. A failure is a value here: a request that failed is a `Sample` with an
error, a metric that failed is a `Score` without a value, and neither ever leaves a mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Part = Literal["chat", "search"]
"""The two requests made for each case."""


class EvalError(Exception):
    """Base of everything this folder raises on purpose.

    EvalError
    ├── DatasetInvalid   the data set cannot be read, or is not what it says it is
    ├── RulesInvalid     the rules file cannot be used
    ├── ReportInvalid    a file is not a report
    ├── TargetFailed     a request to the evaluated instance failed
    ├── InstanceFailed   a private instance did not start, ingest or stop as it should
    └── CannotJudge      two reports cannot be compared; neither pass nor fail
    """


class DatasetInvalid(EvalError):
    pass


class RulesInvalid(EvalError):
    pass


class ReportInvalid(EvalError):
    pass


class TargetFailed(EvalError):
    pass


class InstanceFailed(EvalError):
    pass


class CannotJudge(EvalError):
    pass


@dataclass(frozen=True, slots=True)
class Gold:
    """What should be found: a document and, where the data set knows it, the exact words in its text.

    `gain` is the graded relevance, above 0.
    """

    document_id: str
    quote: str | None = None
    gain: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question. No gold means that the corpus does not answer it. `reference` None: only retrieval
    is judged."""

    id: str
    question: str
    gold: tuple[Gold, ...]
    tags: tuple[str, ...] = ()
    reference: str | None = None

    @property
    def answerable(self) -> bool:
        return bool(self.gold)

    @property
    def cluster(self) -> str:
        """Cases about the same document tend to succeed and fail together."""
        return self.gold[0].document_id if self.gold else f"case:{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDocument:
    """A document of the corpus. With a file name it is a file to parse, else plain text."""

    id: str
    content: bytes
    filename: str | None = None
    title: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRef:
    """Which data set: `fingerprint` covers corpus and cases, so equal ones asked the same of the same."""

    name: str
    version: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """`search_limit` None leaves the number of hits to the release under test, which then shows in the
    scores; a retrieval-only set fixes it to what its published figures use."""

    ref: DatasetRef
    licence: str
    cases: tuple[Case, ...]
    documents: tuple[SourceDocument, ...]
    search_limit: int | None = None

    @property
    def retrieval_only(self) -> bool:
        return all(case.reference is None for case in self.cases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A passage that came back. `text` is empty when read from a report file, which keeps ids only."""

    document_id: str
    chunk_id: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A chat answer. `sources` were given to the model, `citations` are those that the answer names.
    `seconds` is the wall time of the request."""

    text: str
    citations: tuple[Passage, ...]
    sources: tuple[Passage, ...]
    model: str
    release: str
    degraded: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one case brought back. A part that failed is None and has its error under the part's name."""

    case_id: str
    reply: Reply | None = None
    hits: tuple[Passage, ...] | None = None
    errors: Mapping[Part, str]


@dataclass(frozen=True, slots=True)
class Score:
    """A metric's value for one case, or why there is none."""

    value: float | None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """`scores` has an entry for every metric that applies to the case, failed ones included."""

    case: Case
    sample: Sample
    scores: Mapping[str, Score]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRef:
    """Which release: `canonical` is the text that `fingerprint` hashes (JSON, prompts included)."""

    id: str
    name: str
    fingerprint: str
    canonical: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One evaluation of one release on one data set. `error` says why it broke off, if it did; the cases
    are all there all the same."""

    dataset: DatasetRef
    release: ReleaseRef
    product: str
    started_at: str
    seconds: float
    results: tuple[CaseResult, ...]
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """A metric over its cases. `mean` counts a failure as the worst value; `failed` of `cases` failed."""

    mean: float
    cases: int
    failed: int

    @property
    def coverage(self) -> float:
        return (self.cases - self.failed) / self.cases


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its confidence interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One reason to pass or fail. `difference` is candidate minus baseline, positive is better."""

    name: str
    passed: bool
    reason: str
    baseline: float | None = None
    candidate: float | None = None
    difference: Interval | None = None
    margin: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """A case that got worse: how much, in which metric, and both answers (or errors)."""

    case_id: str
    question: str
    metric: str
    baseline: float
    candidate: float
    baseline_answer: str
    candidate_answer: str


@dataclass(frozen=True, slots=True)
class Change:
    """A key of the release that differs; None where one side has no such key."""

    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """May the candidate take the baseline's place?"""

    passed: bool
    dataset: DatasetRef
    baseline: ReleaseRef
    candidate: ReleaseRef
    checks: tuple[Check, ...]
    regressions: tuple[Regression, ...]
    changes: tuple[Change, ...]
