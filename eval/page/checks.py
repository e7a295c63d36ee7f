"""The checks of a verdict as tables, one for each role, intervals drawn on one scale in each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eval.page.markup import Html, joined, tag
from eval.page.parts import Column, Row, figure, table
from eval.page.plots import Bar, Scale, forest, scale_of
from eval.types import Check
from eval.wording import ROLES, check_name, of_role, state

_UNFOLDED = 15
_FOUND = (Column("check"), Column("result", "state"), Column("what was found", "wide"))
_COMPARED = (
    Column("check"),
    Column("result", "state"),
    Column("baseline", "number"),
    Column("candidate", "number"),
    Column("difference", "number"),
    Column("interval", "plot"),
    Column("margin", "number"),
    Column("visible loss", "number"),
    Column("cases", "number"),
)
_DEAR = (*_COMPARED[:4], Column("ratio", "number"), _COMPARED[5], Column("at most", "number"), _COMPARED[8])

_LEGEND = (
    "A difference is the candidate's mean minus the baseline's over the same cases, turned so that more is "
    "better. Dot: the difference; bar: its interval; shaded: a loss beyond the margin. Visible loss: the "
    "smallest true loss that these cases show in 4 of 5 such evaluations."
)


def check_tables(checks: Sequence[Check]) -> Iterator[Html]:
    yield tag("p", _LEGEND, class_="soft")
    for role, (title, asks) in ROLES.items():
        chosen = of_role(checks, role)
        if chosen:
            yield tag("h3", title)
            yield tag("p", asks, class_="soft")
            yield from _tables(chosen)


def _tables(checks: Sequence[Check]) -> Iterator[Html]:
    """Many that passed are folded away, so that those which did not are seen."""
    passed = [check for check in checks if check.passed]
    rest = [check for check in checks if not check.passed]
    scale = scale_of([bar for bar in map(_bar, checks) if bar is not None])
    if len(passed) <= _UNFOLDED:
        yield _table(checks, scale)
        return
    if rest:
        yield _table(rest, scale)
    yield tag("details", tag("summary", f"{len(passed)} passed"), _table(passed, scale))


def _table(checks: Sequence[Check], scale: Scale) -> Html:
    """Checks that compare no two numbers have only their reasons to show."""
    bars = [_bar(check) for check in checks]
    if not any(bars):
        return table(_FOUND, ([_name(check), badge(check), check.reason] for check in checks))
    dear = any(check.ratio for check in checks)
    return table(
        _DEAR if dear else _COMPARED,
        ((_dear if dear else _compared)(check, bar, scale) for check, bar in zip(checks, bars, strict=True)),
    )


def _bar(check: Check) -> Bar | None:
    if check.ratio is not None:
        return Bar(check.ratio, same=1.0, limit=check.margin, more_is_better=False)
    if check.difference is not None:
        return Bar(check.difference, limit=None if check.margin is None else -check.margin)
    return None


def _compared(check: Check, bar: Bar | None, scale: Scale) -> Row:
    return [
        *_means(check),
        f"{bar.interval.mean:+.3f}" if bar else "",
        _interval(check, bar, scale, "+.3f"),
        figure(check.margin),
        figure(check.visible),
        _cases(check),
    ]


def _dear(check: Check, bar: Bar | None, scale: Scale) -> Row:
    return [
        *_means(check),
        f"{bar.interval.mean:.2f}" if bar else "",
        _interval(check, bar, scale, ".2f"),
        f"{check.margin:g}" if check.margin is not None else "",
        _cases(check),
    ]


def _means(check: Check) -> Row:
    name = joined(_name(check), tag("span", check.reason, class_="reason"))
    return [name, badge(check), figure(check.baseline), figure(check.candidate)]


def _cases(check: Check) -> str:
    return f"{check.cases}" + (f", {check.lost} lost" if check.lost else "")


def _name(check: Check) -> Html:
    return tag("strong", check_name(check))


def badge(check: Check) -> Html:
    return tag("span", state(check), class_=f"badge {tone(check)}")


def tone(check: Check) -> str:
    return "undecided" if check.undecided else "passed" if check.passed else "failed"


def _interval(check: Check, bar: Bar | None, scale: Scale, form: str) -> Html | None:
    if bar is None:
        return None
    figures = f"{bar.interval.low:{form}} to {bar.interval.high:{form}}"
    return joined(forest(bar, scale, tone(check)), tag("span", figures, class_="range"))
