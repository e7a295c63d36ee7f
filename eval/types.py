"""The words of evaluation: cases in, samples and scores out, a report and a verdict.

Of the project it imports only what a change of a release is. A failure is a value here: a request that
failed is a `Sample` with an error, a metric that failed is a `Score` without a value, and neither ever leaves
a mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from app.changes import Change

Part = Literal["chat", "search", "summary"]
"""The requests made for a case: chat and search for a question, summary for a text to be summarized."""

Kind = Literal["question", "summary"]
Fault = Literal["release", "judge"]
"""Who lost a score: the release under test, or the model that judges it."""
Outcome = Literal["passed", "failed", "no_verdict"]
Role = Literal["evidence", "gated", "guard", "slice", "cost"]
"""What a check is for. `evidence`: were all cases run and scored. `gated`: no loss beyond the margin must be
shown. `guard`: a loss beyond the margin must not be shown. `slice`: a guard on a part of the cases. `cost`:
tokens and time."""


class EvalError(Exception):
    """Base of everything this folder raises on purpose.

    EvalError
    ├── DatasetInvalid   the data set cannot be read, or is not what it says it is
    ├── RulesInvalid     the rules file cannot be used
    ├── ReportInvalid    a file is not a report
    ├── TargetFailed     a request to the evaluated instance failed
    ├── JudgeFailed      the judge was away or answered what is no verdict
    ├── InstanceFailed   a private instance did not start, ingest or stop as it should
    ├── TrackingFailed   MLflow did not take a run
    ├── CannotJudge      two reports cannot be compared; neither pass nor fail
    └── CannotWrite      what was found cannot be written where it should go
    """


class DatasetInvalid(EvalError):
    pass


class RulesInvalid(EvalError):
    pass


class ReportInvalid(EvalError):
    pass


class TargetFailed(EvalError):
    pass


class JudgeFailed(EvalError):
    pass


class InstanceFailed(EvalError):
    pass


class TrackingFailed(EvalError):
    pass


class CannotJudge(EvalError):
    pass


class CannotWrite(EvalError):
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
    is judged. Of kind `summary` the gold documents are what to summarize, and `question`, which may be
    empty, is the focus, and `words` the longest that the summary may be. `language` is the code of the
    language to answer in."""

    id: str
    question: str
    gold: tuple[Gold, ...]
    tags: tuple[str, ...] = ()
    reference: str | None = None
    kind: Kind = "question"
    language: str = "en"
    words: int | None = None

    @property
    def answerable(self) -> bool:
        return bool(self.gold)

    @property
    def cluster(self) -> str:
        """Cases about the same document tend to succeed and fail together."""
        return self.gold[0].document_id if self.gold else f"case:{self.id}"

    @property
    def slices(self) -> frozenset[str]:
        """The parts of a data set that this case belongs to, each judged for itself where it is large
        enough."""
        kind = "summary" if self.kind == "summary" else "answerable" if self.answerable else "unanswerable"
        return frozenset({kind, f"language:{self.language}", *(f"tag:{tag}" for tag in self.tags)})


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
        return all(case.kind == "question" and case.reference is None for case in self.cases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A passage that came back. `text` is empty when read from a report file, which keeps ids only. `number`
    is what a citation marker calls it, 0 where nothing does."""

    document_id: str
    chunk_id: str
    text: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A chat answer. `sources` were given to the model, `citations` are those that the answer names.
    `supported` is the share of its sentences that the service's own check found supported, None where there
    was nothing to check. `cached` says which cache it came from, if any; `id` is the completion's. `seconds`
    is the wall time of the request."""

    text: str
    citations: tuple[Passage, ...]
    sources: tuple[Passage, ...]
    model: str
    release: str
    degraded: tuple[str, ...]
    seconds: float
    finish: str = "stop"
    supported: float | None = None
    cached: str | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summarized:
    """A summary. `coverage` and `sections_cited` in [0, 1] are the service's own measures of it."""

    text: str
    citations: tuple[Passage, ...]
    coverage: float
    sections_cited: float
    model: str
    release: str
    degraded: tuple[str, ...]
    seconds: float
    supported: float | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one case brought back. A part that failed is None and has its error under the part's name; a part
    that was not asked for is None and has none."""

    case_id: str
    reply: Reply | None = None
    summary: Summarized | None = None
    hits: tuple[Passage, ...] | None = None
    errors: Mapping[Part, str]


@dataclass(frozen=True, slots=True)
class Score:
    """A metric's value for one case, or why there is none, and by whose fault."""

    value: float | None
    error: str | None = None
    fault: Fault = "release"


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
    are all there all the same. `leaks` are the places where its questions or references were found outside
    the gold passages. `judge` is the model whose verdicts it has, and how often each was asked for."""

    dataset: DatasetRef
    release: ReleaseRef
    product: str
    started_at: str
    seconds: float
    results: tuple[CaseResult, ...]
    error: str | None = None
    leaks: tuple[str, ...] = ()
    judge: str | None = None


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
    """One reason to pass or fail. `difference` is candidate minus baseline, positive is better, with the
    gate's one-sided interval: below `low` it lies with probability alpha. `slice` names the part of the
    cases that it is about, None for all. `visible` is the smallest loss that these cases would have shown
    with 80 % probability. `p_value` is adjusted for the number of checks of its role. `undecided` marks a
    check without enough evidence to pass or fail; it has not passed. Of role `cost` there is `ratio` instead
    of a difference, candidate over baseline, and `margin` is the most that it may be."""

    name: str
    passed: bool
    reason: str
    role: Role = "gated"
    slice: str | None = None
    undecided: bool = False
    baseline: float | None = None
    candidate: float | None = None
    difference: Interval | None = None
    ratio: Interval | None = None
    margin: float | None = None
    visible: float | None = None
    p_value: float | None = None
    cases: int = 0
    lost: int = 0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a verdict keeps of one of the two evaluations: when and by what, and how many of its cases had a
    request that failed."""

    product: str
    started_at: str
    seconds: float
    cases: int
    lost: int
    leaks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How a metric's values lie in both reports: counts in bins of equal width from `low` to `high`. Cases
    without a value are in no bin."""

    metric: str
    low: float
    high: float
    baseline: tuple[int, ...]
    candidate: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """May the candidate take the baseline's place? `no_verdict` where evidence was lost that is not the
    candidate's own fault (a judge that was away); it lets nothing pass. `runs` are the
    baseline's and the candidate's."""

    outcome: Outcome
    dataset: DatasetRef
    baseline: ReleaseRef
    candidate: ReleaseRef
    checks: tuple[Check, ...]
    regressions: tuple[Regression, ...]
    changes: tuple[Change, ...]
    runs: tuple[Run, ...] = ()
    spreads: tuple[Spread, ...] = ()

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"
