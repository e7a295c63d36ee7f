"""Reports and verdicts for people: the verdict first, then the numbers, then the worst cases.

Text from answers is quoted, and what Markdown would act on is escaped: an answer cannot redraw the report.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from eval.changes import line_diff
from eval.report import aggregates, by_metric, counted
from eval.statistics import mean_interval
from eval.types import Change, Check, Regression, ReleaseRef, Report, Verdict

_SHOWN = 600
_LONG = 120


def verdict_markdown(verdict: Verdict) -> str:
    failed = [check for check in verdict.checks if not check.passed]
    lines = [
        f"# {'PASS' if verdict.passed else 'FAIL'}: {_name(verdict.candidate)}",
        "",
        _sentence(verdict, failed),
        "",
        *_checks(verdict.checks),
    ]
    if failed:
        lines += ["", "## Why", "", *(f"- **{check.name}**: {_text(check.reason)}" for check in failed)]
    lines += ["", "## What changed in the release", "", *_changes(verdict.changes)]
    if verdict.regressions:
        lines += ["", "## Cases that lost most", *_regressions(verdict.regressions)]
    return "\n".join(lines) + "\n"


def report_markdown(report: Report) -> str:
    dataset = report.dataset
    lines = [
        f"# Evaluation of {_name(report.release)}",
        "",
        f"Data set {dataset.name} {dataset.version} (`{dataset.fingerprint[:12]}`), "
        f"{len(report.results)} cases, product {report.product}, {report.started_at}, "
        f"{report.seconds:.0f} s.",
        "",
    ]
    if report.error:
        lines += [f"**The evaluation broke off:** {_text(report.error)}", ""]
    lines += [*_means(report), *_failures(report)]
    return "\n".join(lines) + "\n"


def _name(release: ReleaseRef) -> str:
    return f"{release.name} (`{release.id}`)"


def _sentence(verdict: Verdict, failed: list[Check]) -> str:
    against = f"against {_name(verdict.baseline)} on {verdict.dataset.name} {verdict.dataset.version}"
    if not failed:
        return f"Nothing that the rules name got worse {against}."
    names = ", ".join(check.name for check in failed)
    return f"{len(failed)} of {len(verdict.checks)} checks failed {against}: {names}."


def _checks(checks: tuple[Check, ...]) -> list[str]:
    rows = ["| check | | baseline | candidate | difference | interval | margin |"]
    rows.append("|---|---|---:|---:|---:|---:|---:|")
    for check in checks:
        mark = "pass" if check.passed else "**FAIL**"
        rows.append(f"| {check.name} | {mark} | {' | '.join(_numbers(check))} |")
    return rows


def _numbers(check: Check) -> list[str]:
    difference = check.difference
    if difference is None or check.baseline is None or check.candidate is None:
        return [""] * 5
    return [
        f"{check.baseline:.3f}",
        f"{check.candidate:.3f}",
        f"{difference.mean:+.3f}",
        f"{difference.low:+.3f} to {difference.high:+.3f}",
        f"{check.margin:g}",
    ]


def _changes(changes: tuple[Change, ...]) -> Iterator[str]:
    if not changes:
        yield "Nothing: both reports are of the same release."
    for change in changes:
        before, after = change.before, change.after
        if before is not None and after is not None and _is_text(before + after):
            yield from (f"- `{change.path}`:", "", "  ~~~diff")
            yield from (f"  {line}" for line in line_diff(before, after))
            yield from ("  ~~~", "")
        else:
            yield f"- `{change.path}`: {_side(before)} to {_side(after)}"


def _is_text(values: str) -> bool:
    return "\n" in values or len(values) > _LONG


def _side(value: str | None) -> str:
    return "(absent)" if value is None else f"`{_short(value)}`"


def _regressions(regressions: tuple[Regression, ...]) -> Iterator[str]:
    for item in regressions:
        yield from (
            "",
            f"### {item.case_id}: {item.metric} {item.baseline:.3f} to {item.candidate:.3f}",
            "",
            _text(item.question),
            "",
            f"- before: {_text(item.baseline_answer)}",
            f"- after: {_text(item.candidate_answer)}",
        )


def _means(report: Report) -> list[str]:
    rows = ["| metric | mean | interval | cases | failed |", "|---|---:|---:|---:|---:|"]
    scores = by_metric(report)
    for name, aggregate in aggregates(report).items():
        clusters = [result.case.cluster for result in report.results if name in result.scores]
        interval = mean_interval(counted(name, scores[name]), clusters=clusters)
        rows.append(
            f"| {name} | {aggregate.mean:.3f} | {interval.low:.3f} to {interval.high:.3f} "
            f"| {aggregate.cases} | {aggregate.failed} |"
        )
    return rows


def _failures(report: Report) -> Iterator[str]:
    errors = Counter(
        f"{part}: {error}" for result in report.results for part, error in result.sample.errors.items()
    )
    errors.update(
        f"{name}: {score.error}"
        for result in report.results
        for name, score in result.scores.items()
        if score.error and score.error not in result.sample.errors.values()
    )
    if errors:
        yield from ("", "## Failures", "")
        yield from (f"- {count} times {_text(message)}" for message, count in errors.most_common(20))


def _text(value: str) -> str:
    """One line of plain text, nothing in it active."""
    return re.sub(r"([\\`*_\[\]<>|#!])", r"\\\1", _short(value))


def _short(value: str) -> str:
    line = " ".join(value.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
