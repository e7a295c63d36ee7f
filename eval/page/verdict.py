"""A verdict as one HTML file: the outcome and why, what changed, every check, the cases that lost most."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from eval.page.changed import changes_html
from eval.page.checks import check_tables
from eval.page.markup import Html, page, tag
from eval.page.parts import (
    GRADED,
    bullets,
    coded,
    commands,
    dataset,
    facts,
    figure,
    graded,
    moment,
    plots,
    quote,
    section,
)
from eval.page.words import compared
from eval.report import LATENCY
from eval.types import Regression, Verdict
from eval.wording import TITLES, blocking, check_name, headline, next_step, power, release_name, sentence

_REASONS_SHOWN = 6


def verdict_html(verdict: Verdict) -> str:
    return page(
        f"{TITLES[verdict.outcome]}: {release_name(verdict.candidate)}",
        tag("p", "Plumbline · verdict of an evaluation", class_="kicker"),
        _outcome(verdict),
        facts(_facts(verdict)),
        _leaks(verdict),
        section("What changed in the release", changes_html(verdict.changes)),
        section("Checks", *check_tables(verdict.checks)),
        _regressions(verdict),
        _distributions(verdict),
        section("How to reproduce it", commands(*_commands(verdict))),
    )


def _outcome(verdict: Verdict) -> Html:
    found = blocking(verdict)
    reasons = [tag("li", tag("strong", check_name(each)), f": {each.reason}") for each in found]
    more = len(found) - _REASONS_SHOWN
    return tag(
        "header",
        tag("span", TITLES[verdict.outcome], class_="stamp"),
        tag("h1", f"{headline(verdict)}."),
        tag("p", sentence(verdict), class_="lead"),
        tag("ul", *reasons[:_REASONS_SHOWN]) if found else None,
        tag("p", f"{more} more are among the checks below.", class_="soft") if more > 0 else None,
        tag("p", power(verdict.checks)),
        tag("p", tag("strong", "Next: "), coded(next_step(verdict))),
        class_=f"verdict {verdict.outcome}",
    )


def _facts(verdict: Verdict) -> Iterator[tuple[str, str | None]]:
    yield "Data set", dataset(verdict.dataset)
    for side, run in zip(("Baseline", "Candidate"), verdict.runs, strict=False):
        leaks = f"{len(run.leaks)} found" if run.leaks else "none found"
        lasted = f"{run.seconds:.0f}\N{NO-BREAK SPACE}s"
        yield f"{side}'s run", f"{moment(run.started_at)}, {lasted}, product {run.product}"
        yield f"{side}'s cases", f"{run.cases}, of which {run.lost} lost; leaks: {leaks}"


def _leaks(verdict: Verdict) -> Html | None:
    leaks = [leak for run in verdict.runs for leak in run.leaks]
    return section("Evaluation cases that leaked", bullets(dict.fromkeys(leaks))) if leaks else None


def _regressions(verdict: Verdict) -> Html | None:
    if not verdict.regressions:
        return None
    note = tag("p", "Words that went and words that came are marked.", class_="soft")
    return section("Cases that lost most", note, *(_regression(each) for each in verdict.regressions))


def _regression(found: Regression) -> Html:
    before, after = compared(found.baseline_answer, found.candidate_answer)
    change = f"{found.metric} {figure(found.baseline)} → {figure(found.candidate)}"
    return tag(
        "article",
        tag("h3", found.question or "(no question)", dir="auto"),
        tag("p", f"{found.case_id} · {change}", class_="soft"),
        tag("div", _side("baseline", before), _side("candidate", after), class_="sides"),
        class_="card",
    )


def _side(name: str, text: Html) -> Html:
    return tag("div", tag("h4", name), quote(text), class_="side")


def _distributions(verdict: Verdict) -> Html | None:
    """Time, the gated metrics and whatever did not pass; the rest behind a click."""
    spreads = graded(verdict.spreads)
    if not spreads:
        return None
    telling = {check.name for check in verdict.checks if not check.passed or check.role == "gated"} | {
        LATENCY
    }
    shown = [each for each in spreads if each.metric in telling]
    rest = [each for each in spreads if each.metric not in telling]
    return section(
        "Distributions",
        tag("p", _key("before", "baseline"), _key("after", "candidate"), class_="key"),
        tag("p", GRADED, class_="soft"),
        plots(shown),
        tag("details", tag("summary", f"{len(rest)} more metrics"), plots(rest)) if rest else None,
    )


def _key(class_: str, name: str) -> Html:
    return tag("span", tag("i", class_=class_), name)


def _commands(verdict: Verdict) -> Iterator[str]:
    name = shlex.quote(verdict.dataset.name)
    for side, release in (("baseline", verdict.baseline), ("candidate", verdict.candidate)):
        yield f"# {side}: release {' '.join(release_name(release).split())}"
        yield f"plumbline eval run --dataset {name} --release {side}.toml --out {side}.json"
    yield "plumbline eval gate baseline.json candidate.json --out verdict.json"
