"""The gate: may this candidate take the baseline's place?

Read `judge` from top to bottom. It says no whenever evidence is missing: a lost case, a failed request or a
failed metric never helps the candidate. What cannot be compared at all raises `CannotJudge`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from eval.changes import changes
from eval.rules import MetricRule, Rules
from eval.statistics import mean_difference
from eval.types import (
    CannotJudge,
    CaseResult,
    Check,
    Interval,
    Regression,
    Report,
    Score,
    Verdict,
)

WORST_SHOWN = 5

Results = Mapping[str, CaseResult]


def judge(baseline: Report, candidate: Report, rules: Rules) -> Verdict:
    """Compare two reports on one data set case by case."""
    before = {result.case.id: result for result in baseline.results}
    after = {result.case.id: result for result in candidate.results}
    metrics = _comparable(baseline, candidate, before, rules)
    checks = [
        _every_case(before, after, candidate),
        *(_not_worse(name, before, after, rules) for name in metrics),
    ]
    failed = [check.name for check in checks if not check.passed]
    return Verdict(
        passed=not failed,
        dataset=baseline.dataset,
        baseline=baseline.release,
        candidate=candidate.release,
        checks=tuple(checks),
        regressions=_worst([name for name in metrics if name in failed] or metrics, before, after, rules),
        changes=changes(baseline.release.canonical, candidate.release.canonical),
    )


def _comparable(baseline: Report, candidate: Report, before: Results, rules: Rules) -> list[str]:
    """The metrics to judge by; raises `CannotJudge` when the two reports allow no judgement."""
    if baseline.dataset.fingerprint != candidate.dataset.fingerprint:
        raise CannotJudge(
            f"The reports are of different data: {_dataset(baseline)} and {_dataset(candidate)}. "
            "Evaluate both releases on the same data set."
        )
    if baseline.error:
        raise CannotJudge(f"The baseline's evaluation broke off: {baseline.error}")
    metrics = [name for name in rules.metrics if _scores(name, before.values())]
    if not metrics:
        raise CannotJudge("The baseline has none of the metrics that the rules name.")
    for name in metrics:
        covered = _coverage(_scores(name, before.values()).values())
        if covered < rules.coverage:
            raise CannotJudge(
                f"The baseline has {name} for only {covered:.1%} of its cases; at least "
                f"{rules.coverage:.0%} are needed. Evaluate the baseline again."
            )
    return metrics


def _every_case(before: Results, after: Results, candidate: Report) -> Check:
    missing = sorted(before.keys() - after.keys())
    if candidate.error:
        reason = f"The candidate's evaluation broke off: {candidate.error}"
    elif missing:
        reason = f"{len(missing)} of {len(before)} cases are missing, first {', '.join(missing[:3])}."
    else:
        reason = f"All {len(before)} cases were run."
    return Check(name="cases", passed=not missing and not candidate.error, reason=reason)


def _not_worse(name: str, before: Results, after: Results, rules: Rules) -> Check:
    """Enough values, and the interval of the difference above minus the margin."""
    rule = rules.metrics[name]
    old = _scores(name, before.values())
    new = {case_id: after[case_id].scores.get(name, _LOST) if case_id in after else _LOST for case_id in old}
    covered = _coverage(new.values())
    baseline = [_value(old[case_id], rule.best) for case_id in old]
    candidate = [_value(new[case_id], rule.worst) for case_id in old]
    difference = mean_difference(
        [_oriented(value, rule) for value in baseline],
        [_oriented(value, rule) for value in candidate],
        clusters=[before[case_id].case.cluster for case_id in old] if rules.clustered else None,
        confidence=rules.confidence,
        resamples=rules.resamples,
        seed=rules.seed,
    )
    enough, harmless = covered >= rules.coverage, difference.low > -rule.margin or difference.low == 0
    return Check(
        name=name,
        passed=enough and harmless,
        reason=_reason(name, enough, harmless, covered, difference, rules),
        baseline=sum(baseline) / len(baseline),
        candidate=sum(candidate) / len(candidate),
        difference=difference,
        margin=rule.margin,
    )


_LOST = Score(None, "The case is missing.")


def _reason(
    name: str, enough: bool, harmless: bool, covered: float, difference: Interval, rules: Rules
) -> str:
    margin, sure = rules.metrics[name].margin, f"{rules.confidence:.0%} sure"
    if not enough:
        return f"Only {covered:.1%} of its cases have a value; at least {rules.coverage:.0%} are needed."
    if harmless:
        return f"No worse by {margin:g} or more ({sure})."
    if difference.high < -margin:
        return f"Worse by more than {margin:g} ({sure})."
    return f"A loss of {margin:g} or more cannot be ruled out: it may be as large as {-difference.low:.3f}."


def _worst(names: Iterable[str], before: Results, after: Results, rules: Rules) -> tuple[Regression, ...]:
    """The cases that lost most, each once, in the metric in which it lost most."""
    found: dict[str, tuple[float, Regression]] = {}
    for name in names:
        for case_id, score in _scores(name, before.values()).items():
            rule, result = rules.metrics[name], after.get(case_id)
            old = _value(score, rule.best)
            new = _value(result.scores.get(name, _LOST) if result else _LOST, rule.worst)
            loss = _oriented(old, rule) - _oriented(new, rule)
            if loss > max(0.0, found[case_id][0] if case_id in found else 0.0):
                found[case_id] = (loss, _regression(name, before[case_id], result, old, new))
    ordered = sorted(found.values(), key=lambda entry: (-entry[0], entry[1].case_id))
    return tuple(regression for _, regression in ordered[:WORST_SHOWN])


def _regression(
    metric: str, before: CaseResult, after: CaseResult | None, old: float, new: float
) -> Regression:
    return Regression(
        case_id=before.case.id,
        question=before.case.question,
        metric=metric,
        baseline=old,
        candidate=new,
        baseline_answer=_answer(before),
        candidate_answer=_answer(after) if after else "(the case is missing)",
    )


def _answer(result: CaseResult) -> str:
    if result.sample.reply:
        return result.sample.reply.text
    return "; ".join(f"({part} failed: {error})" for part, error in result.sample.errors.items())


def _scores(name: str, results: Iterable[CaseResult]) -> dict[str, Score]:
    return {result.case.id: result.scores[name] for result in results if name in result.scores}


def _coverage(scores: Iterable[Score]) -> float:
    have = [score.value is not None for score in scores]
    return sum(have) / len(have)


def _value(score: Score, otherwise: float) -> float:
    return otherwise if score.value is None else score.value


def _oriented(value: float, rule: MetricRule) -> float:
    return value if rule.direction == "higher" else -value


def _dataset(report: Report) -> str:
    ref = report.dataset
    return f"{ref.name} {ref.version} ({ref.fingerprint[:12]})"
