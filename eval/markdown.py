"""Reports and verdicts for people: the verdict first, then the numbers, then the worst cases.

Text from answers is quoted, and what Markdown would act on is escaped: an answer cannot redraw the report.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from app.changes import Change, is_text, line_diff
from eval.means import means
from eval.report import failures
from eval.types import Check, Regression, ReleaseRef, Report, Verdict
from eval.wording import (
    ROLES,
    TITLES,
    blocking,
    check_name,
    headline,
    next_step,
    of_role,
    power,
    sentence,
    state,
)

_SHOWN = 600
_STEERING = "[\u0000-\u0008\u000e-\u001f\u007f\u200e\u200f\u202a-\u202e\u2066-\u2069]"


def verdict_markdown(verdict: Verdict) -> str:
    found = blocking(verdict)
    lines = [
        f"# {TITLES[verdict.outcome]}: {_release(verdict.candidate)}",
        "",
        f"{plain(headline(verdict))}. {plain(sentence(verdict))}",
    ]
    if found:
        lines += [
            "",
            "## Why",
            "",
            *(f"- **{plain(check_name(each))}**: {plain(each.reason)}" for each in found),
        ]
    lines += ["", "## What to do next", "", next_step(verdict)]
    lines += ["", "## What changed in the release", "", *changes_markdown(verdict.changes)]
    lines += ["", "## Checks", *_checks(verdict.checks)]
    lines += ["", *filter(None, [power(verdict.checks)])]
    if verdict.regressions:
        lines += ["", "## Cases that lost most", *_regressions(verdict.regressions)]
    lines += ["", "## What it rests on", "", *_evidence(verdict)]
    return "\n".join(lines) + "\n"


def report_markdown(report: Report) -> str:
    dataset = report.dataset
    lines = [
        f"# Evaluation of {_release(report.release)}",
        "",
        f"Data set {dataset.name} {dataset.version} (`{dataset.fingerprint[:12]}`), "
        f"{len(report.results)} cases, product {report.product}, {report.started_at}, "
        f"{report.seconds:.0f} s.",
        "",
    ]
    if report.judge:
        lines += [f"Judged by {plain(report.judge)}.", ""]
    if report.error:
        lines += [f"**The evaluation broke off:** {plain(report.error)}", ""]
    if report.leaks:
        lines += ["**Evaluation cases leaked:**", "", *(f"- {plain(leak)}" for leak in report.leaks), ""]
    lines += [*_means(report), *_failures(report)]
    return "\n".join(lines) + "\n"


def _release(release: ReleaseRef) -> str:
    return f"{plain(release.name)} ({code(release.id)})"


def _checks(checks: tuple[Check, ...]) -> Iterator[str]:
    for role, (title, asks) in ROLES.items():
        chosen = of_role(checks, role)
        if chosen:
            head, row = (_FOUND, _found) if role == "evidence" else (_COMPARED, _compared)
            yield from ("", f"**{title}.** {asks}", "", *head, *map(row, chosen))


_FOUND = ("| check | | what was found |", "|---|---|---|")
_COMPARED = (
    "| check | | baseline | candidate | difference | interval | margin | visible | cases | lost |",
    "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
)


def _found(check: Check) -> str:
    return f"| {plain(check_name(check))} | {_mark(check)} | {plain(check.reason)} |"


def _compared(check: Check) -> str:
    numbers = [_number(check.baseline), _number(check.candidate), *_difference(check)]
    numbers += [_number(check.margin), _number(check.visible), str(check.cases), str(check.lost)]
    return f"| {plain(check_name(check))} | {_mark(check)} | {' | '.join(numbers)} |"


def _mark(check: Check) -> str:
    return state(check) if check.passed else f"**{state(check)}**"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _difference(check: Check) -> list[str]:
    """A ratio is marked as such: it stands where differences do."""
    if check.ratio is not None:
        return [f"× {check.ratio.mean:.3f}", f"× {check.ratio.low:.3f} to {check.ratio.high:.3f}"]
    if check.difference is not None:
        low, high = check.difference.low, check.difference.high
        return [f"{check.difference.mean:+.3f}", f"{low:+.3f} to {high:+.3f}"]
    return ["", ""]


def _evidence(verdict: Verdict) -> Iterator[str]:
    dataset = verdict.dataset
    yield f"- data set {plain(dataset.name)} {plain(dataset.version)} (`{dataset.fingerprint[:12]}`)"
    for side, run in zip(("baseline", "candidate"), verdict.runs, strict=False):
        yield (
            f"- {side}: {run.cases} cases, {run.lost} lost, {run.started_at}, {run.seconds:.0f} s, "
            f"product {run.product}"
        )
        yield from (f"- {side} leaks: {plain(leak)}" for leak in run.leaks)


def changes_markdown(changes: tuple[Change, ...]) -> Iterator[str]:
    if not changes:
        yield "Nothing: both reports are of the same release."
    for change in changes:
        before, after = change.before, change.after
        if before is not None and after is not None and is_text(change):
            yield from (f"- {code(change.path)}:", "", "  ~~~diff")
            yield from (f"  {_unsteered(line)}" for line in line_diff(before, after))
            yield from ("  ~~~", "")
        else:
            yield f"- {code(change.path)}: {_side(before)} to {_side(after)}"


def _side(value: str | None) -> str:
    return "(absent)" if value is None else code(value)


def _regressions(regressions: tuple[Regression, ...]) -> Iterator[str]:
    for item in regressions:
        yield from (
            "",
            f"### {plain(item.case_id)}: {plain(item.metric)} {item.baseline:.3f} to {item.candidate:.3f}",
            "",
            plain(item.question),
            "",
            f"- before: {plain(item.baseline_answer)}",
            f"- after: {plain(item.candidate_answer)}",
        )


def _means(report: Report) -> list[str]:
    rows = ["| metric | mean | interval | cases | failed |", "|---|---:|---:|---:|---:|"]
    for name, (aggregate, interval) in means(report).items():
        rows.append(
            f"| {plain(name)} | {aggregate.mean:.3f} | {interval.low:.3f} to {interval.high:.3f} "
            f"| {aggregate.cases} | {aggregate.failed} |"
        )
    return rows


def _failures(report: Report) -> Iterator[str]:
    errors = failures(report)
    if errors:
        yield from ("", "## Failures", "")
        yield from (f"- {count} times {plain(message)}" for message, count in errors.most_common(20))


def plain(value: str) -> str:
    """One line of plain text, nothing in it active. Underscores within words do nothing in Markdown."""
    escaped = re.sub(r"([\\`*\[\]<>|#!~]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", _short(value))
    return escaped.replace("://", r"\://").replace("www.", r"www\.")


def code(value: str) -> str:
    """A code span that ends where it should, whatever backquotes are in it (CommonMark 6.1). Not for cells of
    tables, which a bar ends even within it."""
    line = _short(value)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{fence}{line}{fence}" if len(fence) == 1 else f"{fence} {line} {fence}"


def _short(value: str) -> str:
    """On one line, cut, and without characters that steer the direction of text."""
    line = _unsteered(" ".join(value.split()))
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def _unsteered(line: str) -> str:
    return re.sub(_STEERING, "\N{REPLACEMENT CHARACTER}", line)
