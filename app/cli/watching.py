"""A trial while it runs, as `plumbline release watch` shows it.

Whoever watches may leave: the controller goes on without.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from app.cli import console
from app.cli.client import Client, ClientError, Unreachable

if TYPE_CHECKING:
    from rich.console import Group

INTERVAL = 1.0
REPORT = 60.0
"""Seconds after which, where there is no terminal to redraw, it is told how far a step is."""
PATIENCE = 60.0
"""Seconds without an answer after which watching fails: a service that restarts is back before."""

Trial = dict[str, Any]
Show = Callable[[Trial], None]


def watch(client: Client, path: str, *, as_json: bool) -> Trial:
    """The latest trial of a release, once it has ended; shown until then."""
    with _lines() if as_json else _table() as show:
        while True:
            trial = _latest(client, path)
            show(trial)
            if trial["state"] != "running":
                break
            time.sleep(INTERVAL)
    if not as_json:
        console.say(_ended(trial))
    return trial


def _latest(client: Client, path: str) -> Trial:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            found = client.get(path)
        except Unreachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(INTERVAL)
            continue
        if not found["trials"]:
            raise ClientError(f"Release {found['id']} has never been on trial.")
        return dict(found["trials"][-1])


@contextmanager
def _lines() -> Iterator[Show]:
    """A line of JSON for every state that differs from the one before."""
    before = ""

    def show(trial: Trial) -> None:
        nonlocal before
        line = json.dumps(trial, ensure_ascii=False)
        if line != before:
            console.say(line)
        before = line

    yield show


@contextmanager
def _table() -> Iterator[Show]:
    """A table that follows the trial, in a terminal; elsewhere a line whenever its step or share changes, and
    how far it is now and then."""
    from rich.console import Console
    from rich.live import Live

    terminal = Console(stderr=True)
    if not terminal.is_terminal:
        yield _steps()
        return
    with Live(console=terminal, auto_refresh=False) as live:
        yield lambda trial: live.update(shown(trial), refresh=True)


def _steps() -> Show:
    before, told_at = "", time.monotonic()

    def show(trial: Trial) -> None:
        nonlocal before, told_at
        line, now = headline(trial), time.monotonic()
        if line != before:
            console.say(line)
        elif now - told_at >= REPORT:
            console.say(f"{_units(trial)}. {_waiting(trial)}")
        else:
            return
        before, told_at = line, now

    return show


def headline(trial: Trial) -> str:
    """What it is, how far it is, and with what share."""
    steps = _evidence(trial).get("steps") or ()
    step = f", step {trial['step'] + 1} of {len(steps)}" if steps else ""
    share = "no requests" if not (trial["live"] and trial["share"]) else f"{trial['share']:.2%}"
    if trial["state"] == "running" and not trial["live"]:
        share += ": no controller watches it now"
    return (
        f"{trial['kind']} of {trial['release']} against {trial['control']}: {trial['state']}{step}, {share}"
    )


def shown(trial: Trial) -> Group:
    """The evidence so far, a row for each metric."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    columns = ("metric", "candidate", "champion", "e-value", "harm at", "")
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for one in _evidence(trial).get("metrics", ()):
        bar = ProgressBar(
            total=1.0,
            completed=nearness(one["highest"], one["threshold"]),
            width=20,
            complete_style="yellow",
            finished_style="red",
        )
        cells = (one["metric"], _rate(one, "candidate"), _rate(one, "control"))
        numbers = (_short(one["e_value"]), _short(one["threshold"]))
        table.add_row(*(Text(cell) for cell in (*cells, *numbers)), bar)
    return Group(
        Text(headline(trial), style="bold"),
        Text(_units(trial)),
        table,
        Text(_waiting(trial) if trial["state"] == "running" else ""),
    )


def _evidence(trial: Trial) -> dict[str, Any]:
    """What it was ended on, or what has been seen so far."""
    return dict((trial["decision"] or {}).get("evidence") or trial["evidence"])


def _waiting(trial: Trial) -> str:
    return str(trial["evidence"].get("waiting_for") or "No controller has looked at it yet.")


def nearness(e_value: float, threshold: float) -> float:
    """How near evidence is to showing harm, in [0, 1]: 0 at 1, where every test begins, logarithmically."""
    from math import log

    return min(1.0, max(0.0, log(max(e_value, 1.0)) / log(threshold)))


def _units(trial: Trial) -> str:
    evidence = _evidence(trial)
    if "pairs" in evidence:
        return f"{evidence['pairs']} pairs"
    units = evidence.get("units") or {}
    return ", ".join(f"{count} conversations of the {_ARMS.get(arm, arm)}" for arm, count in units.items())


_ARMS = {"candidate": "candidate", "control": "champion"}


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _rate(one: dict[str, Any], arm: str) -> str:
    rate = one.get(f"rate_{arm}")
    return "" if rate is None else f"{rate:.2%}"


def _ended(trial: Trial) -> str:
    decision = trial["decision"] or {}
    return f"{trial['state'].replace('_', ' ')}: {decision.get('why') or 'no reason was kept.'}"
