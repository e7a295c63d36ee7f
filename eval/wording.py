"""What a verdict says, in words: the sentences that every form of it shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from eval.types import Check, Outcome, ReleaseRef, Role, Verdict

NAMES_SHOWN = 4
POINTS = 100

TITLES: Final[dict[Outcome, str]] = {"passed": "PASS", "failed": "FAIL", "no_verdict": "NO VERDICT"}

ROLES: Final[dict[Role, tuple[str, str]]] = {
    "evidence": ("Evidence", "Was every case run and scored, and is the data set sound?"),
    "gated": ("Gated metrics", "Must be shown to lose no more than the margin."),
    "guard": ("Guards", "Must not be shown to lose more than the margin."),
    "slice": ("Slices", "Guards on parts of the cases, with wider margins."),
    "cost": (
        "Cost",
        "Tokens and time, candidate over baseline: must not be shown to exceed the most allowed.",
    ),
}
"""Each role's title and what its checks ask, in the order of reading."""


def release_name(release: ReleaseRef) -> str:
    return f"{release.name} ({release.id})"


def check_name(check: Check) -> str:
    return f"{check.name} on {check.slice}" if check.slice else check.name


def state(check: Check) -> str:
    """In one word; not by colour alone."""
    return "undecided" if check.undecided else "pass" if check.passed else "FAIL"


def of_role(checks: Sequence[Check], role: Role) -> list[Check]:
    """What did not pass first, else in their own order."""
    chosen = [check for check in checks if check.role == role]
    return sorted(chosen, key=lambda check: (check.passed, check.undecided))


def blocking(verdict: Verdict) -> list[Check]:
    """What stands in the way: the failed checks, or, where none failed, the undecided ones."""
    failed = [check for check in verdict.checks if not check.passed and not check.undecided]
    return failed or [check for check in verdict.checks if check.undecided]


def headline(verdict: Verdict) -> str:
    """May it, or may it not?"""
    may = {"passed": "may", "failed": "may not", "no_verdict": "may not yet"}[verdict.outcome]
    if verdict.candidate.id == verdict.baseline.id:
        return f"{release_name(verdict.candidate)} {may} go on serving"
    return f"{release_name(verdict.candidate)} {may} replace {release_name(verdict.baseline)}"


def sentence(verdict: Verdict) -> str:
    """The outcome and why."""
    on = f"on {verdict.dataset.name} {verdict.dataset.version}"
    found = blocking(verdict)
    names = _listed([check_name(check) for check in found])
    if verdict.outcome == "passed" and verdict.candidate.id == verdict.baseline.id:
        return (
            f"All {len(verdict.checks)} checks passed {on}: every case was run and scored. Compared with "
            "itself a release can show no loss: this says that it works, not how well."
        )
    if verdict.outcome == "passed":
        return f"All {len(verdict.checks)} checks passed {on}: no loss beyond the margins."
    many = f"{len(found)} of {len(verdict.checks)} checks"
    if verdict.outcome == "failed":
        return f"{many} failed {on}: {names}."
    return f"{many} could not be decided {on}: {names}. Evidence was lost; nothing was shown to be worse."


def next_step(verdict: Verdict) -> str:
    """What to do about it. Commands are between backquotes; nothing of it is the verdict's own text."""
    keep = "Keep the verdict with `plumbline release judge VERDICT.json`."
    if verdict.outcome == "no_verdict":
        return "Run what lost its evidence again (a judge that was away, as a rule), then the gate again."
    if verdict.outcome == "failed":
        few = " More cases narrow the intervals." if _no_loss_shown(verdict) else ""
        return f"Mend the release, run it on the same data set, and compare again.{few} {keep}"
    if verdict.candidate.id == verdict.baseline.id:
        return keep
    return (
        f"{keep} Then try the release on live questions: unseen with `plumbline release shadow`, then on a "
        "growing share of them with `plumbline release canary`."
    )


def _no_loss_shown(verdict: Verdict) -> bool:
    """Whether all that stands in the way are losses that could not be ruled out."""
    return all(
        check.role == "gated"
        and check.difference is not None
        and check.margin is not None
        and check.difference.high >= -check.margin
        and not check.lost
        for check in blocking(verdict)
    )


def power(checks: Sequence[Check]) -> str | None:
    """How large a loss would have had to be in order to be seen, over the gated metrics; None if unknown."""
    gated = [check for check in checks if check.role == "gated"]
    visible = [check.visible for check in gated if check.visible is not None]
    if not visible:
        return None
    least, most = points(min(visible)), points(max(visible))
    return (
        f"With these {max(check.cases for check in gated)} cases a loss of "
        f"{least if least == most else f'{least} to {most}'} points in a gated metric"
        f"{'' if least == most else ', depending on which,'} would have been seen in 4 of 5 such "
        "evaluations. A smaller one may have gone unseen."
    )


def points(value: float) -> str:
    """Hundredths of the metric's scale."""
    return f"{value * POINTS:.1f}".removesuffix(".0")


def _listed(names: Sequence[str]) -> str:
    shown, rest = names[:NAMES_SHOWN], len(names) - NAMES_SHOWN
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")
