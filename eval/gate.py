"""The gate: may this candidate take the baseline's place?

Read `judge` from top to bottom. It says no whenever evidence is missing: a lost case, a failed request or a
failed metric never helps the candidate. What cannot be compared at all raises `CannotJudge`.

A candidate is let through only if every check passes, so that each gated metric is tested at the full alpha
and a loss in any one of them still gets through with probability alpha at most (intersection-union test:
Berger, Technometrics 24, 1982). Guards block only what is shown; there the false alarms would add up, and
are held to alpha together (Holm).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from app.changes import changes
from eval.rules import CostRule, MetricRule, Rules
from eval.spread import run_of, spreads
from eval.statistics import Estimate, differences, estimate, holm, measure, ratio_interval, within
from eval.types import (
    CannotJudge,
    CaseResult,
    Check,
    Interval,
    Outcome,
    Regression,
    Report,
    Sample,
    Score,
    Verdict,
)

WORST_SHOWN = 5
LEAKS_SHOWN = 3

Results = Mapping[str, CaseResult]
T = TypeVar("T")


def judge(baseline: Report, candidate: Report, rules: Rules) -> Verdict:
    """Compare two reports on one data set case by case."""
    before = {result.case.id: result for result in baseline.results}
    after = {result.case.id: result for result in candidate.results}
    metrics = _comparable(baseline, candidate, before, rules)
    compared = [_compared(name, before, after, rules) for name in metrics]
    checks = (
        _every_case(before, after, candidate),
        _no_leak(baseline, candidate),
        *(_gated(one, rules) for one in compared if one.rule.role == "gated"),
        *_guards(compared, rules),
        *_costs(before, after, rules),
    )
    failed = {check.name for check in checks if not check.passed}
    return Verdict(
        outcome=_outcome(checks),
        dataset=baseline.dataset,
        baseline=baseline.release,
        candidate=candidate.release,
        checks=checks,
        regressions=_worst([name for name in metrics if name in failed] or metrics, before, after, rules),
        changes=changes(baseline.release.canonical, candidate.release.canonical),
        runs=(run_of(baseline), run_of(candidate)),
        spreads=spreads(baseline, candidate),
    )


def _outcome(checks: Sequence[Check]) -> Outcome:
    if any(not check.passed and not check.undecided for check in checks):
        return "failed"
    return "no_verdict" if any(check.undecided for check in checks) else "passed"


def _comparable(baseline: Report, candidate: Report, before: Results, rules: Rules) -> list[str]:
    """The metrics to judge by; raises `CannotJudge` when the two reports allow no judgement."""
    if baseline.dataset.fingerprint != candidate.dataset.fingerprint:
        raise CannotJudge(
            f"The reports are of different data: {_dataset(baseline)} and {_dataset(candidate)}. "
            "Evaluate both releases on the same data set."
        )
    if baseline.error:
        raise CannotJudge(f"The baseline's evaluation broke off: {baseline.error}")
    if baseline.judge and baseline.judge != candidate.judge:
        raise CannotJudge(
            f"The reports have the verdicts of different judges: {baseline.judge} and "
            f"{candidate.judge or 'none'}. Evaluate both releases with the same one."
        )
    metrics = [name for name in rules.metrics if _scores(name, before.values())]
    if not metrics:
        raise CannotJudge("The baseline has none of the metrics that the rules name.")
    for name in metrics:
        scores = _scores(name, before.values()).values()
        covered = sum(score.value is not None for score in scores) / len(scores)
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
    return Check(
        name="cases",
        role="evidence",
        passed=not missing and not candidate.error,
        reason=reason,
        cases=len(before),
        lost=len(missing),
    )


def _no_leak(baseline: Report, candidate: Report) -> Check:
    leaks = sorted({*baseline.leaks, *candidate.leaks})
    shown = " ".join(leaks[:LEAKS_SHOWN])
    return Check(
        name="leaks",
        role="evidence",
        passed=not leaks,
        reason=f"{len(leaks)} places know the cases. {shown}" if leaks else "Nothing knew the cases.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """A metric on the same cases in both reports, sorted by their ids. Failures of either side count against
    the candidate; `hopes` are the candidate's values if what the judge lost had been as good as can be, and
    if it had been as before."""

    name: str
    rule: MetricRule
    cases: tuple[CaseResult, ...]
    baseline: tuple[float, ...]
    candidate: tuple[float, ...]
    hopes: tuple[tuple[float, ...], tuple[float, ...]]
    lost: tuple[bool, ...]
    unjudged: tuple[bool, ...]

    def part(self, name: str) -> _Compared:
        """The cases of a slice alone."""
        where = [index for index, result in enumerate(self.cases) if name in result.case.slices]

        def of(values: Sequence[T]) -> tuple[T, ...]:
            return tuple(values[index] for index in where)

        best, same = self.hopes
        return _Compared(
            name=self.name,
            rule=self.rule,
            cases=of(self.cases),
            baseline=of(self.baseline),
            candidate=of(self.candidate),
            hopes=(of(best), of(same)),
            lost=of(self.lost),
            unjudged=of(self.unjudged),
        )


def _compared(name: str, before: Results, after: Results, rules: Rules) -> _Compared:
    rule, old = rules.metrics[name], _scores(name, before.values())
    ids = sorted(old)
    new = [after[case_id].scores.get(name, _LOST) if case_id in after else _LOST for case_id in ids]
    unjudged = tuple(score.value is None and score.fault == "judge" for score in new)
    baseline = tuple(_value(old[case_id], rule.best) for case_id in ids)
    candidate = tuple(_value(score, rule.worst) for score in new)
    rows = list(zip(unjudged, candidate, baseline, strict=True))
    return _Compared(
        name=name,
        rule=rule,
        cases=tuple(before[case_id] for case_id in ids),
        baseline=baseline,
        candidate=candidate,
        hopes=(
            tuple(rule.best if gone else value for gone, value, _ in rows),
            tuple(former if gone else value for gone, value, former in rows),
        ),
        lost=tuple(score.value is None for score in new),
        unjudged=unjudged,
    )


_LOST = Score(None, "The case is missing.")


def _gated(one: _Compared, rules: Rules) -> Check:
    """Enough values, and the interval of the difference above minus the margin."""
    found, margin = _estimate(one, one.candidate, rules), _margin(one, rules)
    interval = found.interval(rules.alpha)
    harmless = within(interval, margin)
    if harmless:
        reason = f"No worse by {margin:g} or more ({_sure(rules)})."
    elif interval.high < -margin:
        reason = f"Worse by more than {margin:g} ({_sure(rules)})."
    else:
        reason = (
            f"A loss of {margin:g} or more cannot be ruled out: it may be as large as {-interval.low:.3f}."
        )
    hopeful = harmless or any(
        within(_estimate(one, hope, rules).interval(rules.alpha), margin) for hope in one.hopes
    )
    check = _check(one, found, interval, margin, rules, passed=harmless, reason=reason)
    return _covered(check, one, rules, hopeful=hopeful)


def _margin(one: _Compared, rules: Rules) -> float:
    if rules.small and len(one.cases) < rules.small.below:
        return one.rule.margin * rules.small.margin_factor
    return one.rule.margin


def _guards(compared: Sequence[_Compared], rules: Rules) -> list[Check]:
    """Guards, and then all metrics on the parts of the data set: none may be shown to be worse."""
    guards = [(one, one.rule.margin, None) for one in compared if one.rule.role == "guard"]
    parts = [
        (one.part(name), one.rule.margin * rules.slices.margin_factor, name)
        for one in compared
        for name in _parts(one, rules)
    ]
    judged = [
        (one, margin, name, _estimate(one, one.candidate, rules)) for one, margin, name in (*guards, *parts)
    ]
    adjusted = holm([found.p_below(-margin) for _, margin, _, found in judged])
    checks = []
    for (one, margin, name, found), p_value in zip(judged, adjusted, strict=True):
        harmed = p_value < rules.alpha
        loss = f"a loss of more than {margin:g}"
        check = _check(
            one,
            found,
            found.interval(rules.alpha),
            margin,
            rules,
            passed=not harmed,
            reason=f"Shown: {loss} (p = {p_value:.2g})." if harmed else f"Not shown: {loss}.",
        )
        check = replace(check, role="slice" if name else "guard", slice=name, p_value=p_value)
        hopeful = not harmed or any(
            _estimate(one, hope, rules).p_below(-margin) >= rules.alpha for hope in one.hopes
        )
        checks.append(_covered(check, one, rules, hopeful=hopeful))
    return checks


def _parts(one: _Compared, rules: Rules) -> list[str]:
    """The slices that are large enough and are not all of the metric's cases; of several with the same cases
    the first."""
    members: dict[str, list[str]] = {}
    for result in one.cases:
        for name in result.case.slices:
            members.setdefault(name, []).append(result.case.id)
    distinct: dict[tuple[str, ...], str] = {}
    for name in sorted(members):
        if rules.slices.cases <= len(members[name]) < len(one.cases):
            distinct.setdefault(tuple(members[name]), name)
    return list(distinct.values())


def _covered(check: Check, one: _Compared, rules: Rules, *, hopeful: bool) -> Check:
    """Too few values fail a check. If the judge lost them, and with them it might have passed, it is
    undecided: the candidate is not to blame, and has not shown anything either. A part of the data set has
    its values counted with the whole: there only a loss that was not seen but lost is undecided."""
    total, lost, unjudged = len(one.cases), sum(one.lost), sum(one.unjudged)
    reason = f"The judge gave no value for {unjudged} of its {total} cases"
    if check.role == "slice":
        undecided = unjudged > 0 and not check.passed and hopeful
        return replace(check, undecided=True, reason=f"{reason}.") if undecided else check
    needed = f"at least {rules.coverage:.0%} of them must have a value"
    if (total - lost + unjudged) / total < rules.coverage:
        reason = f"The release failed in {lost - unjudged} of its {total} cases; {needed}."
        return replace(check, passed=False, reason=reason)
    if (total - lost) / total < rules.coverage and hopeful:
        return replace(check, passed=False, undecided=True, reason=f"{reason}; {needed}.")
    return check


def _check(
    one: _Compared,
    found: Estimate,
    interval: Interval,
    margin: float,
    rules: Rules,
    *,
    passed: bool,
    reason: str,
) -> Check:
    return Check(
        name=one.name,
        passed=passed,
        reason=reason,
        baseline=sum(one.baseline) / len(one.baseline),
        candidate=sum(one.candidate) / len(one.candidate),
        difference=interval,
        margin=margin,
        visible=found.visible(rules.alpha),
        cases=len(one.cases),
        lost=sum(one.lost),
    )


def _estimate(one: _Compared, candidate: Sequence[float], rules: Rules) -> Estimate:
    sign = 1.0 if one.rule.direction == "higher" else -1.0
    values = [sign * value for value in differences(one.baseline, candidate)]
    return estimate(values, [result.case.cluster for result in one.cases] if rules.clustered else None)


def _costs(before: Results, after: Results, rules: Rules) -> list[Check]:
    """Tokens and seconds of the cases that both answered. What cost nothing before has no ratio."""
    checks = []
    for name, rule in rules.costs.items():
        pairs = [
            (result.case.cluster, old, new)
            for case_id, result in sorted(before.items())
            if (old := _cost(result.sample, rule)) is not None
            and case_id in after
            and (new := _cost(after[case_id].sample, rule)) is not None
        ]
        if len(pairs) > 1 and measure([old for _, old, _ in pairs], rule.statistic) > 0:
            checks.append(_dear(name, rule, pairs, rules))
    return checks


def _dear(name: str, rule: CostRule, pairs: Sequence[tuple[str, float, float]], rules: Rules) -> Check:
    clusters, old, new = zip(*pairs, strict=True)
    ratio = ratio_interval(
        old,
        new,
        statistic=rule.statistic,
        alpha=rules.alpha,
        clusters=clusters if rules.clustered else None,
        seed=rules.seed,
        resamples=rules.resamples,
    )
    baseline, candidate = measure(old, rule.statistic), measure(new, rule.statistic)
    dear = ratio.low > rule.most and candidate - baseline > rule.floor
    times = f"{ratio.mean:.2f} times the baseline's ({ratio.low:.2f} to {ratio.high:.2f})"
    return Check(
        name=name,
        role="cost",
        passed=not dear,
        reason=f"{times}; at most {rule.most:g} times are allowed.",
        baseline=baseline,
        candidate=candidate,
        ratio=ratio,
        margin=rule.most,
        cases=len(pairs),
    )


def _cost(sample: Sample, rule: CostRule) -> float | None:
    made = sample.reply or sample.summary
    if made is None:
        return None
    match rule.measure:
        case "prompt_tokens":
            return float(made.prompt_tokens)
        case "output_tokens":
            return float(made.output_tokens)
        case "seconds":
            return made.seconds


def _worst(names: Iterable[str], before: Results, after: Results, rules: Rules) -> tuple[Regression, ...]:
    """The cases that lost most, each once, in the metric in which it lost most."""
    found: dict[str, tuple[float, Regression]] = {}
    for name in names:
        for case_id, score in _scores(name, before.values()).items():
            rule, result = rules.metrics[name], after.get(case_id)
            old = _value(score, rule.best)
            new = _value(result.scores.get(name, _LOST) if result else _LOST, rule.worst)
            loss = old - new if rule.direction == "higher" else new - old
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
    made = result.sample.reply or result.sample.summary
    if made:
        return made.text
    return "; ".join(f"({part} failed: {error})" for part, error in result.sample.errors.items())


def _scores(name: str, results: Iterable[CaseResult]) -> dict[str, Score]:
    return {result.case.id: result.scores[name] for result in results if name in result.scores}


def _value(score: Score, otherwise: float) -> float:
    return otherwise if score.value is None else score.value


def _sure(rules: Rules) -> str:
    return f"{1 - rules.alpha:.0%} sure"


def _dataset(report: Report) -> str:
    ref = report.dataset
    return f"{ref.name} {ref.version} ({ref.fingerprint[:12]})"
