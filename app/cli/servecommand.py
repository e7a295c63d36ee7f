"""`plumbline release serve-command`: the command that serves a release's model with vLLM."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from app.cli import console


def serve_command(
    file: Annotated[Path, typer.Argument(help="Release file (TOML).")],
    model: Annotated[
        str | None, typer.Option(help="Which of its models; by default the first.", show_default=False)
    ] = None,
    host: Annotated[str, typer.Option(help="Address that vLLM listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Its port.")] = 8000,
    python: Annotated[str, typer.Option(help="Python of the environment that has vLLM.")] = "python",
    cpu: Annotated[bool, typer.Option("--cpu", help="For the CPU build of vLLM.")] = False,
    as_json: console.AsJson = False,
) -> None:
    """Print the command that serves a release's model with vLLM. Needs no service."""
    from app.release import EXTRACTIVE, load_release

    with console.failures():
        refs = [ref for ref in load_release(file).body.models if ref.name != EXTRACTIVE]
    found = next((ref for ref in refs if model in (None, ref.name)), None)
    if found is None:
        wanted = f"no model {model!r}" if model else "no model but the built-in one"
        console.fail(f"{file} names {wanted}.")
    command = found.spec().command(python, host, port, gpu=not cpu)
    if as_json:
        console.show_json({"command": command})
    else:
        typer.echo(shlex.join(command))
