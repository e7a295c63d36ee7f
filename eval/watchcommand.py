"""`plumbline controller`: the process that watches trials of releases and decides on them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from app.cli import console
from eval.rules import DEFAULT_RULES

commands = typer.Typer(add_completion=False)


@commands.command()
def controller(
    rules: Annotated[
        Path, typer.Option(envvar="PLUMBLINE_RULES", help="Rules for shadows and canaries.")
    ] = DEFAULT_RULES,
    data: Annotated[Path | None, typer.Option(help="Folder of the instance's data.")] = None,
) -> None:
    """Watch trials until a signal says stop. Any number may run; one at a time decides."""
    from app.settings import load_settings
    from eval.rules import load_rules
    from eval.types import EvalError

    with console.start_failures():
        from eval.controller import control

        try:
            asyncio.run(control(load_settings(data=data), load_rules(rules)))
        except EvalError as error:
            console.fail(str(error), console.CANNOT_START)
