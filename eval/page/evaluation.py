"""The report of one evaluation as one HTML file: its metrics, their distributions, what failed, what was
worst."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from eval.means import means
from eval.metrics.catalogue import about
from eval.page.markup import Html, joined, page, tag
from eval.page.parts import (
    GRADED,
    Column,
    Row,
    bullets,
    commands,
    dataset,
    facts,
    figure,
    graded,
    moment,
    plots,
    quote,
    section,
    table,
)
from eval.page.plots import Bar, forest, unit_scale
from eval.report import failures
from eval.spread import spreads_of
from eval.types import CaseResult, Interval, Report
from eval.wording import release_name

_CASES_SHOWN = 6
_FAILURES_SHOWN = 20
_ZEROS_SHOWN = 4
_TIERS = {
    0: ("Flaws of the answers", "Looked for in every answer, live ones too. 0 is none, 1 is all."),
    1: ("Against the data set", "Found, given, cited and said, against what the data set knows."),
    2: ("By a judge", "Another model read the answers."),
}
_COLUMNS = (
    Column("metric"),
    Column("mean", "number"),
    Column("95 % interval", "plot"),
    Column("better"),
    Column("cases", "number"),
    Column("without a value", "number"),
)


def report_html(report: Report) -> str:
    return page(
        f"Evaluation of {release_name(report.release)}",
        tag("p", "Plumbline · report of an evaluation", class_="kicker"),
        _outcome(report),
        facts(_facts(report)),
        _leaks(report),
        section("Metrics", *_metrics(report)),
        _failures(report),
        _weakest(report),
        section("Distributions", tag("p", GRADED, class_="soft"), plots(graded(spreads_of(report)))),
        section("How to reproduce it", commands(*_commands(report))),
    )


def _outcome(report: Report) -> Html:
    """A report passes no judgement; it only says whether it is whole."""
    lost = sum(bool(result.sample.errors) for result in report.results)
    state = "INCOMPLETE" if lost or report.error else "LEAKED" if report.leaks else "COMPLETE"
    cases = f"{len(report.results)} cases were run, {lost} of them with a failed request."
    return tag(
        "header",
        tag("span", state, class_="stamp"),
        tag("h1", f"{release_name(report.release)} on {report.dataset.name} {report.dataset.version}"),
        tag("p", cases, class_="lead"),
        tag("p", tag("strong", "The evaluation broke off: "), report.error) if report.error else None,
        class_=f"verdict {'plain' if state == 'COMPLETE' else 'failed'}",
    )


def _facts(report: Report) -> Iterator[tuple[str, str | None]]:
    yield "Data set", dataset(report.dataset)
    yield "Release", joined(f"{report.release.name} ", tag("code", report.release.id))
    yield "Run", f"{moment(report.started_at)}, {report.seconds:.0f} s"
    yield "Product", report.product
    yield "Judge", report.judge
    yield "Leaks", f"{len(report.leaks)} found" if report.leaks else "none found"


def _leaks(report: Report) -> Html | None:
    return section("Evaluation cases that leaked", bullets(report.leaks)) if report.leaks else None


def _metrics(report: Report) -> Iterator[Html]:
    found = means(report)
    for tier, (title, meaning) in _TIERS.items():
        rows: list[Row] = [
            [
                joined(tag("strong", name), tag("span", about(name).meaning, class_="reason")),
                figure(aggregate.mean),
                _interval(name, interval),
                about(name).direction,
                str(aggregate.cases),
                str(aggregate.failed) if aggregate.failed else "none",
            ]
            for name, (aggregate, interval) in found.items()
            if about(name).tier == tier
        ]
        if rows:
            yield tag("h3", title)
            yield tag("p", meaning, class_="soft")
            yield table(_COLUMNS, rows)


def _interval(name: str, interval: Interval) -> Html:
    """Drawn where the range is 0 to 1; seconds and counts have no scale in common."""
    figures = tag("span", f"{figure(interval.low)} to {figure(interval.high)}", class_="range")
    share = about(name).worst is not None
    return joined(forest(Bar(interval), unit_scale(), "plain") if share else None, figures)


def _failures(report: Report) -> Html | None:
    found = failures(report).most_common(_FAILURES_SHOWN)
    return section("Failures", bullets(f"{count} × {message}" for message, count in found)) if found else None


def _weakest(report: Report) -> Html | None:
    """The cases that did worst over the metrics whose range is 0 to 1, each metric weighing the same."""
    ordered = sorted(report.results, key=lambda result: (_goodness(result), result.case.id))
    weak = [result for result in ordered if _goodness(result) < 1][:_CASES_SHOWN]
    if not weak:
        return None
    note = tag("p", "By the mean of their metrics against the data set.", class_="soft")
    return section("Weakest cases", note, *(_case(result) for result in weak))


def _goodness(result: CaseResult) -> float:
    values = [
        score.value or 0.0
        for name, score in result.scores.items()
        if about(name).tier > 0 and about(name).worst == 0
    ]
    return sum(values) / len(values) if values else 1.0


def _case(result: CaseResult) -> Html:
    case, sample = result.case, result.sample
    said = sample.reply or sample.summary
    answer = said.text if said else "; ".join(f"({part}: {why})" for part, why in sample.errors.items())
    return tag(
        "article",
        tag("h3", case.question or "(a summary)", dir="auto"),
        tag("p", f"{case.id} · {_zeros(result)}", class_="soft"),
        tag(
            "div",
            _side("answer", answer),
            _side("reference", case.reference or "(none: the documents do not answer it)"),
            class_="sides",
        ),
        class_="card",
    )


def _zeros(result: CaseResult) -> str:
    names = [name for name, score in result.scores.items() if about(name).worst == 0 and not score.value]
    if not names:
        return f"mean {_goodness(result):.2f}"
    more = f" and {len(names) - _ZEROS_SHOWN} more" if len(names) > _ZEROS_SHOWN else ""
    return f"nothing for {', '.join(names[:_ZEROS_SHOWN])}{more}"


def _side(name: str, text: str) -> Html:
    return tag("div", tag("h4", name), quote(text), class_="side")


def _commands(report: Report) -> Sequence[str]:
    name = shlex.quote(report.dataset.name)
    return [
        f"# release {' '.join(release_name(report.release).split())}",
        f"plumbline eval run --dataset {name} --release release.toml --out report.json",
    ]
