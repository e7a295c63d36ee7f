"""`plumbline doctor`: what is in order, what is not, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import console

if TYPE_CHECKING:
    from app.settings import Setting

_STYLE = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def register(commands: typer.Typer) -> None:
    commands.command("doctor")(doctor)


def doctor(
    settings: Annotated[
        bool, typer.Option("--settings", help="List the settings instead: names, values, what they mean.")
    ] = False,
    as_json: console.AsJson = False,
    url: console.Url = None,
    port: console.Port = None,
    data: console.Data = None,
) -> None:
    """Examine this machine, the data folder and every part. Fails when something must be mended."""
    import asyncio

    from app import otel
    from app.settings import load_settings

    with console.failures():
        found = load_settings(url=url, port=port, data=data)
        if settings:
            _list([*found.listed(), *otel.listed()], as_json)
        otel.require_usable()
        if settings:
            return
        # It imports OpenTelemetry, which some of those values end.
        from app.doctor import examine

        findings = asyncio.run(examine(found))
    if as_json:
        console.show_json({"findings": [asdict(finding) for finding in findings]})
    else:
        _show([(finding.state, finding.name, finding.detail, finding.remedy) for finding in findings])
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(console.FAILED)


def _list(settings: list[Setting], as_json: bool) -> None:
    if as_json:
        console.show_json({"settings": [asdict(one) for one in settings]})
    else:
        rows = [(one.variable, one.value, one.description) for one in settings]
        console.table(("variable", "value", "meaning"), rows, "no settings")


def _show(rows: list[tuple[str, str, str, str]]) -> None:
    from rich.console import Console
    from rich.text import Text

    out = Console(soft_wrap=True)
    for state, name, detail, remedy in rows:
        out.print(Text.assemble((f"{state:<5}", _STYLE[state]), (f"{name:<20}", "bold"), detail))
        if remedy:
            out.print(Text(f"{'':<25}-> {remedy}", style="dim"))
