"""`plumbline release shadow | canary | stop | watch | history`: releases on trial, over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli import console
from app.cli.paths import release as at
from app.cli.reference import Reason, Reference

Force = Annotated[bool, typer.Option("--force", help="Without a passed evaluation; needs a reason.")]
STOPPED = 3
"""Exit code of `watch` when the trial was stopped: neither passed nor failed."""
_CODES = {"promoted": 0, "passed": 0, "rolled_back": console.FAILED, "failed": console.FAILED}


def register(commands: typer.Typer) -> None:
    for command in (shadow, canary, stop, watch, history):
        commands.command(command.__name__)(command)


def shadow(
    release: Reference,
    share: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the answers that is mirrored.", show_default=False),
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(min=1, help="So many pairs without harm are enough.", show_default=False)
    ] = None,
    force: Force = False,
    reason: Reason = "",
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Let a release answer, unseen, what the champion has just answered."""
    from app.cli.client import connect

    body = {"force": force, "reason": reason, "share": share, "pairs": pairs}
    with console.failures(), connect(url, key, data) as client:
        _started(client.post(at(release, "shadow"), body), as_json)


def canary(
    release: Reference,
    steps: Annotated[
        str,
        typer.Option(
            help="Shares, and how many conversations each is for: 0.01:200,0.05:1000.", show_default=False
        ),
    ] = "",
    promote: Annotated[bool, typer.Option(help="Promote it after the last step; else wait.")] = True,
    force: Force = False,
    reason: Reason = "",
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Let a release answer a growing share of the conversations."""
    from app.cli.client import connect

    body: dict[str, Any] = {"force": force, "reason": reason, "promote": promote}
    if steps:
        body["steps"] = _steps(steps)
    with console.failures(), connect(url, key, data) as client:
        _started(client.post(at(release, "canary"), body), as_json)


def stop(
    release: Reference,
    reason: Reason = "",
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """End a release's trials; its conversations go back to the champion."""
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        console.show(client.post(at(release, "stop"), {"reason": reason}), as_json)


def watch(
    release: Reference,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: a line for every change.")] = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Show a release's latest trial until it ends: exit 0 passed or promoted, 1 failed or rolled back, 3
    stopped."""
    from app.cli import watching
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        ended = watching.watch(client, at(release, "trials"), as_json=as_json)
    raise typer.Exit(_CODES.get(ended["state"], STOPPED))


def history(
    release: Reference,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Show what was done with a release: when, by whom, why."""
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        audit = client.get(at(release, "trials"))["audit"]
    if as_json:
        console.show_json({"audit": audit})
        return
    rows = [(one["at"][:19], one["who"], one["what"], _why(one["evidence"])) for one in audit]
    console.table(("at (UTC)", "who", "what", "why"), rows, "Nothing was done with it.")


def _started(trial: dict[str, Any], as_json: bool) -> None:
    if as_json:
        console.show_json(trial)
        return
    console.say(
        f"The {trial['kind']} of {trial['release']} against {trial['control']} has begun. It gets requests "
        f"as soon as a controller watches it. Follow it: plumbline release watch {trial['release']}"
    )


def _steps(text: str) -> list[dict[str, float | int]]:
    steps: list[dict[str, float | int]] = []
    for part in text.split(","):
        share, _, units = part.partition(":")
        try:
            steps.append({"share": float(share), "units": int(units)})
        except ValueError:
            console.fail(f"--steps: {part!r} is not a share and a number, as in 0.01:200.", console.USAGE)
    return steps


def _why(evidence: dict[str, Any]) -> str:
    """What the audit holds of a reason; the rest is in its JSON."""
    decision = evidence.get("decision") or {}
    parts = [evidence.get("reason"), decision.get("why")]
    if "share" in evidence:
        parts.append(f"share {evidence['share']:.2%}")
    if evidence.get("failed"):
        parts.append(f"failed: {', '.join(evidence['failed'])}")
    if evidence.get("force"):
        parts.append("by force")
    return "; ".join(str(part) for part in parts if part)
