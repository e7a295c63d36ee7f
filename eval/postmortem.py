"""A draft of the post-mortem of a trial that ended badly, from what the service recorded of it.

What is known is filled in: impact, timeline, evidence, what the release changed. What only people know is
left open and says so. `postmortem_html` of `eval.page.postmortem` is the same as a page.

The JSON that `postmortem` reads has the fields of `Postmortem` by name; times are ISO 8601 with their offset.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from app.changes import Change, changes
from eval.decoding import decoded
from eval.markdown import changes_markdown, code, plain
from eval.types import ReleaseRef, ReportInvalid

_NOT_SHOWN = "Why did the evaluation before the trial not show this? Which case, slice or metric would have?"
_NOT_ASKED = "Why was it tried without a passed evaluation? Would one have shown this?"
_OPEN = (
    "Which answers that readers had from this release need a correction, and who tells them?",
    "What must be true before a release like this is tried again?",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """From `at` on the candidate had this share of conversations; `units` of them ended up with it."""

    at: str
    share: float
    units: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A sequential test's state: an e-value of at least `threshold` rejects "no harm"."""

    at: str
    metric: str
    e_value: float
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    at: str
    outcome: str
    reason: str
    metric: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """Requests that the candidate answered: of one kind, for one tenant, known here by its hash alone."""

    kind: str
    tenant: str
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """An entry of the audit log. Values of `evidence` are text, or JSON as text."""

    at: str
    who: str
    what: str
    evidence: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Postmortem:
    """A canary that was rolled back, or a shadow that failed. Its sequences are in the order of time.
    `forced` is the reason for which it was tried without a passed evaluation."""

    trial: str
    kind: Literal["canary", "shadow"]
    candidate: ReleaseRef
    champion: ReleaseRef
    started_at: str
    steps: tuple[Step, ...]
    evidence: tuple[Evidence, ...]
    decision: Decision
    affected: tuple[Affected, ...]
    timeline: tuple[Audited, ...]
    first_request: str | None = None
    last_request: str | None = None
    forced: str | None = None

    @property
    def requests(self) -> int:
        return sum(each.requests for each in self.affected)

    @property
    def tenants(self) -> int:
        return len({each.tenant for each in self.affected})

    @property
    def lasted(self) -> timedelta:
        return _time(self.decision.at) - _time(self.started_at)

    @property
    def changes(self) -> tuple[Change, ...]:
        """What was rolled back: from the champion to the candidate."""
        return changes(self.champion.canonical, self.candidate.canonical)

    def seconds(self, at: str) -> float:
        """Since the trial began."""
        return (_time(at) - _time(self.started_at)).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One test's e-values over the trial; `crossed` is when it first rejected."""

    metric: str
    threshold: float
    points: tuple[Evidence, ...]

    @property
    def highest(self) -> float:
        return max(point.e_value for point in self.points)

    @property
    def crossed(self) -> str | None:
        return next((point.at for point in self.points if point.e_value >= self.threshold), None)


def postmortem(body: Mapping[str, Any]) -> Postmortem:
    """Raises `ReportInvalid` where something is missing; what else the service says is passed over."""
    try:
        timeline = [{**entry, "evidence": _texts(entry["evidence"])} for entry in body["timeline"]]
        found = decoded(Postmortem, {**body, "timeline": timeline}, lenient=True)
        for at in (found.started_at, found.decision.at, *(point.at for point in found.evidence)):
            _time(at)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ReportInvalid(f"This is not the record of a trial ({error!r}).") from None
    return found


def courses(found: Postmortem) -> list[Course]:
    """The test that decided first, then the others by how far they got."""
    by_metric: dict[str, list[Evidence]] = {}
    for point in found.evidence:
        by_metric.setdefault(point.metric, []).append(point)
    each = [
        Course(metric=metric, threshold=points[-1].threshold, points=tuple(points))
        for metric, points in by_metric.items()
    ]
    decided = found.decision.metric
    return sorted(each, key=lambda course: (course.metric != decided, -course.highest / course.threshold))


def title(found: Postmortem) -> str:
    what = "Rollback" if found.kind == "canary" else "Failed shadow"
    return f"{what} of {found.candidate.name} ({found.candidate.id}), {found.decision.at[:10]}"


def impact(found: Postmortem) -> str:
    """Who was affected, how much and for how long, in a sentence or two."""
    forced = f" It was tried by force, without a passed evaluation: {found.forced}" if found.forced else ""
    return f"{_reach(found)}{forced}"


def questions(found: Postmortem) -> tuple[str, ...]:
    """What no record knows."""
    return (_NOT_ASKED if found.forced else _NOT_SHOWN, *_OPEN)


def _reach(found: Postmortem) -> str:
    if found.kind == "shadow":
        return (
            f"No reader saw an answer of the release: for {_spoken(found.lasted)} its answers were compared "
            f"with those of {found.champion.name} ({found.champion.id}), which went on serving."
        )
    share = max((step.share for step in found.steps), default=0.0)
    kinds = ", ".join(f"{count} {kind}" for kind, count in by_kind(found.affected).items())
    return (
        f"For {_spoken(found.lasted)} the release served at most {share:.0%} of conversations: "
        f"{found.requests} requests ({kinds or 'none'}) of {found.tenants} "
        f"{'tenant' if found.tenants == 1 else 'tenants'}. "
        f"Then {found.champion.name} ({found.champion.id}) took all of them again."
    )


def by_kind(affected: Sequence[Affected]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for each in affected:
        counts[each.kind] = counts.get(each.kind, 0) + each.requests
    return counts


def postmortem_markdown(found: Postmortem) -> str:
    lines = [f"# {plain(title(found))}", "", f"**{plain(found.decision.reason)}**", ""]
    lines += ["## Impact", "", plain(impact(found)), ""]
    lines += ["## Timeline", "", *_timeline(found), ""]
    lines += ["## Evidence", "", *_evidence(found), ""]
    lines += ["## What was rolled back", "", *changes_markdown(found.changes), ""]
    lines += ["## Affected requests", "", *_affected(found), ""]
    lines += ["## Open questions", "", *(f"- [ ] {question}" for question in questions(found)), ""]
    lines += ["## Actions", "", "| action | owner | until |", "|---|---|---|", "| | | |"]
    return "\n".join(lines) + "\n"


def _timeline(found: Postmortem) -> Iterator[str]:
    yield from ("| at | who | what | evidence |", "|---|---|---|---|")
    for entry in found.timeline:
        evidence = ", ".join(f"{name}: {value}" for name, value in entry.evidence.items())
        yield f"| {plain(entry.at)} | {plain(entry.who)} | {plain(entry.what)} | {plain(evidence)} |"


def _evidence(found: Postmortem) -> Iterator[str]:
    yield from ("| metric | highest e-value | rejects at | crossed |", "|---|---:|---:|---|")
    for course in courses(found):
        crossed = plain(course.crossed) if course.crossed else "never"
        yield f"| {plain(course.metric)} | {course.highest:.4g} | {course.threshold:.4g} | {crossed} |"


def _affected(found: Postmortem) -> Iterator[str]:
    yield from ("| tenant (hash) | kind | requests |", "|---|---|---:|")
    for each in found.affected:
        yield f"| {plain(each.tenant)} | {plain(each.kind)} | {each.requests} |"
    if found.first_request and found.last_request:
        yield from ("", f"From {code(found.first_request)} to {code(found.last_request)}.")


def _texts(evidence: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in evidence.items()
    }


def _time(at: str) -> datetime:
    """Raises ValueError for a time without its offset: two such cannot be compared."""
    time = datetime.fromisoformat(at)
    if time.tzinfo is None:
        raise ValueError(f"{at} has no offset from UTC")
    return time


def _spoken(lasted: timedelta) -> str:
    minutes, seconds = divmod(round(lasted.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (seconds, "s"))
    return " ".join(f"{value} {unit}" for value, unit in parts if value) or "less than a second"
