"""Reports and verdicts to show: whole ones, and ones full of text that tries to break what shows it."""

from __future__ import annotations

import json
from typing import Any, Literal

from app.changes import changes
from eval.spread import run_of, spreads
from eval.types import (
    Case,
    CaseResult,
    Check,
    DatasetRef,
    Gold,
    Interval,
    Outcome,
    Passage,
    Regression,
    ReleaseRef,
    Reply,
    Report,
    Sample,
    Score,
    Summarized,
    Verdict,
)

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)> \"quoted' & ![x](http://evil.example/x.png) "
    "[a](javascript:alert(1)) <b>bold</b> | cell | `code` **strong** ~~~ </title></style></svg> ]]> --> "
    "\n# PASS\n\n- item\n" + "W" * 600 + " \u202eesrever\u202c \u05e9\u05dc\u05d5\u05dd \x00\x1b[31m \ufffe"
)
PROMPT = "# system\nAnswer from the passages.\nBe brief: a few sentences.\n"


def release(name: str = "default", prompt: str = PROMPT) -> ReleaseRef:
    canonical = json.dumps({"name": name, "search": {"limit": 8}, "prompts": {"answer": prompt}})
    return ReleaseRef(
        id=f"{len(name):012x}", name=name, fingerprint=f"{len(canonical):064x}", canonical=canonical
    )


def report(
    value: float = 1.0,
    *,
    of: ReleaseRef | None = None,
    text: str = "The answer is 28 days. [1]",
    started_at: str = "2026-06-01T12:00:00+00:00",
    leaks: tuple[str, ...] = (),
    lost: int = 0,
) -> Report:
    """Twelve questions, of which the last `lost` failed, and a summary."""
    of = of or release()
    results = [_question(i, value, text, of, failed=i >= 12 - lost) for i in range(12)]
    return Report(
        dataset=DatasetRef(name="handbook", version="2", fingerprint="a" * 64),
        release=of,
        product="0.1.0",
        started_at=started_at,
        seconds=12.4,
        results=(*results, _summary(text, of)),
        leaks=leaks,
    )


def verdict(outcome: Outcome = "failed", *, text: str = "The answer is 30 days. [1]") -> Verdict:
    """One check of every role; `outcome` decides what became of the first gated one."""
    baseline = report()
    of = release("plain", PROMPT.replace("a few sentences", "ten sentences"))
    candidate = report(0.5, of=of, text=text, started_at="2026-06-02T12:00:00+00:00")
    return Verdict(
        outcome=outcome,
        dataset=baseline.dataset,
        baseline=baseline.release,
        candidate=candidate.release,
        checks=_checks(outcome),
        regressions=(
            Regression(
                case_id="case-03",
                question="How many days of leave?",
                metric="context_recall",
                baseline=1.0,
                candidate=0.0,
                baseline_answer="The answer is 28 days. [1]",
                candidate_answer=text,
            ),
        ),
        changes=changes(baseline.release.canonical, candidate.release.canonical),
        runs=(run_of(baseline), run_of(candidate)),
        spreads=spreads(baseline, candidate),
    )


def hostile_verdict() -> Verdict:
    """Every text that anybody but the product writes is hostile."""
    bad = ReleaseRef(id=HOSTILE, name=HOSTILE, fingerprint="0" * 64, canonical=json.dumps({HOSTILE: "x\n"}))
    worse = ReleaseRef(
        id=HOSTILE + "2", name=HOSTILE, fingerprint="1" * 64, canonical=json.dumps({HOSTILE: HOSTILE})
    )
    found = report(of=bad, text=HOSTILE, leaks=(HOSTILE,))
    return Verdict(
        outcome="failed",
        dataset=DatasetRef(name=HOSTILE, version=HOSTILE, fingerprint=HOSTILE),
        baseline=bad,
        candidate=worse,
        checks=(
            Check(name=HOSTILE, slice=HOSTILE, role="slice", passed=False, reason=HOSTILE),
            Check(name=HOSTILE, role="cost", passed=False, undecided=True, reason=HOSTILE),
        ),
        regressions=(
            Regression(
                case_id=HOSTILE,
                question=HOSTILE,
                metric=HOSTILE,
                baseline=1.0,
                candidate=0.0,
                baseline_answer=HOSTILE,
                candidate_answer="short",
            ),
        ),
        changes=changes(bad.canonical, worse.canonical),
        runs=(run_of(found), run_of(found)),
        spreads=spreads(found, found),
    )


def trial(**changed: Any) -> dict[str, Any]:
    """The record of a canary that was rolled back, as the service gives it."""
    before, after = release(), release("plain", PROMPT.replace("brief", "thorough"))
    body: dict[str, Any] = {
        "trial": "canary-42",
        "kind": "canary",
        "candidate": _ref(after),
        "champion": _ref(before),
        "started_at": "2026-06-01T12:00:00+00:00",
        "steps": [
            {"at": "2026-06-01T12:00:00+00:00", "share": 0.01, "units": 120},
            {"at": "2026-06-01T12:10:00+00:00", "share": 0.05, "units": 400},
        ],
        "evidence": [
            {"at": _minute(minute), "metric": name, "e_value": value, "threshold": 250.0}
            for minute, faults in ((1, 1.0), (10, 20.0), (21, 300.0))
            for name, value in (("slow", 1.0), ("faults", faults))
        ],
        "decision": {
            "at": "2026-06-01T12:21:30+00:00",
            "outcome": "rolled_back",
            "reason": "The candidate's answers failed more often.",
            "metric": "faults",
        },
        "affected": [
            {"kind": "chat", "tenant": "9f1c", "requests": 388},
            {"kind": "summary", "tenant": "9f1c", "requests": 12},
            {"kind": "chat", "tenant": "77d0", "requests": 130},
        ],
        "first_request": "req-1",
        "last_request": "req-530",
        "timeline": [
            {"at": _minute(21), "who": "controller", "what": "rollback", "evidence": {"e_value": 300}}
        ],
    }
    return {**body, **changed}


def _minute(minute: int) -> str:
    return f"2026-06-01T12:{minute:02}:00+00:00"


def _ref(found: ReleaseRef) -> dict[str, str]:
    return {
        "id": found.id,
        "name": found.name,
        "fingerprint": found.fingerprint,
        "canonical": found.canonical,
    }


def _question(i: int, value: float, text: str, of: ReleaseRef, *, failed: bool) -> CaseResult:
    passage = Passage(document_id="doc", chunk_id=f"{i}-0", text="the passage's text")
    reply = Reply(
        text=text,
        citations=(passage,),
        sources=(passage,),
        model="extractive",
        release=of.id,
        degraded=("rerank",),
        seconds=0.1 + i / 10,
        supported=0.75,
        prompt_tokens=700,
        output_tokens=20 + i,
    )
    error = "The request took too long."
    case = Case(
        id=f"case-{i:02}",
        question=f"question {i}",
        gold=(Gold(f"doc-{i // 4}", "quote"),),
        tags=("leave",),
        reference="28 days",
        language="de",
    )
    scores = {
        "context_recall": Score(value),
        "rouge_l": Score((i + 1) / 13),
        "latency_seconds": Score(reply.seconds),
    }
    if failed:
        scores = {name: Score(None, error) for name in scores}
    return CaseResult(
        case=case,
        sample=Sample(
            case_id=case.id,
            reply=None if failed else reply,
            hits=(passage,),
            errors={"chat": error} if failed else {},
        ),
        scores=scores,
    )


def _summary(text: str, of: ReleaseRef) -> CaseResult:
    case = Case(id="summary-0", question="", gold=(Gold("doc-9"),), kind="summary", reference="Leave.")
    passage = Passage(document_id="doc-9", chunk_id="9-0", text="the passage's text")
    summary = Summarized(
        text=text,
        citations=(passage,),
        coverage=0.8,
        sections_cited=0.5,
        model="extractive",
        release=of.id,
        degraded=(),
        seconds=0.4,
        supported=None,
    )
    return CaseResult(
        case=case,
        sample=Sample(case_id=case.id, summary=summary, errors={}),
        scores={"summary_coverage": Score(0.8)},
    )


def _checks(outcome: Outcome) -> tuple[Check, ...]:
    state: dict[Outcome, tuple[bool, bool, str]] = {
        "passed": (True, False, "No worse by 0.04 or more."),
        "failed": (False, False, "Worse by more than 0.04."),
        "no_verdict": (False, True, "The judge gave no value for 6 of its 75 cases."),
    }
    passed, undecided, reason = state[outcome]
    return (
        Check(name="cases", role="evidence", passed=True, reason="All 75 cases were run.", cases=75),
        Check(
            name="context_recall",
            role="gated",
            passed=passed,
            undecided=undecided,
            reason=reason,
            difference=Interval(-0.15, -0.25, -0.05),
            baseline=1.0,
            candidate=0.85,
            margin=0.04,
            visible=0.062,
            cases=75,
            lost=6 if undecided else 0,
        ),
        _minor("rouge_l", "guard", None),
        _minor("context_recall", "slice", "language:de"),
        Check(
            name="latency_p95",
            role="cost",
            passed=True,
            reason="1.10 times the baseline's.",
            baseline=0.4,
            candidate=0.44,
            ratio=Interval(1.1, 0.9, 1.3),
            margin=1.5,
            cases=75,
        ),
    )


def _minor(name: str, role: Literal["guard", "slice"], part: str | None) -> Check:
    return Check(
        name=name,
        role=role,
        slice=part,
        passed=True,
        reason="Not shown: a loss of more than 0.1.",
        baseline=0.5,
        candidate=0.48,
        difference=Interval(-0.02, -0.06, 0.02),
        margin=0.1,
        visible=0.08,
        p_value=0.4,
        cases=30,
    )
