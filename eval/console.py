"""What the commands of evaluation share: bars, results in every form, and failures as one sentence."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from app.cli.client import Misused
from app.release import ReleaseInvalid
from app.settings import SettingsError
from eval.forms import Form, rendered, write
from eval.outputs import require_folder, write_beside
from eval.run import Progress
from eval.types import EvalError, Report, Verdict
from ingestion.errors import IngestionError
from retrieval.errors import RetrievalError

CANNOT = 2
INSTALL = f"{shlex.quote(sys.executable)} -m pip install 'plumbline[eval]' (in a checkout: make eval)"
"""pip takes the extra of the Plumbline that is there."""


def room(out: Path | None) -> Path | None:
    """A place that takes no file ends the command before its work begins."""
    if out is not None:
        with failures():
            require_folder(out.parent)
    return out


Out = Annotated[
    Path | None, typer.Option(callback=room, help="Where to write it (JSON; Markdown beside it).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def give_found(found: Report | Verdict, out: Path | None, form: Form) -> None:
    """Write every form when there is a place for them, and print the one that was asked for."""
    if out is not None:
        with failures():
            written = write(found, out)
        typer.echo(f"Written: {', '.join(map(str, written))}", err=True)
    typer.echo(rendered(found, form), nl=False)


def give(body: str, text: str, out: Path | None, as_json: bool) -> None:
    """Write both forms when there is a place for them, and print the one that was asked for."""
    if out is not None:
        with failures():
            written = write_beside(out, {".json": body, ".md": text})
        typer.echo(f"Written: {', '.join(map(str, written))}", err=True)
    typer.echo(body if as_json else text, nl=False)


@contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    """A bar for each step, on stderr, with the time that is left; nothing where nobody watches."""
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Bars(*columns, console=console, disable=quiet or not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total)
            bars.update(tasks[step], completed=done, total=total)

        yield show


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """What is missing is of another extra than `eval`."""
    try:
        yield
    except ModuleNotFoundError as error:
        command = f"{shlex.quote(sys.executable)} -m pip install 'plumbline[{extra}]'"
        raise EvalError(f"{error}. Install it with: {command}") from None


@contextmanager
def failures() -> Iterator[None]:
    """What went wrong, in one sentence, and the exit code for "cannot judge"."""
    try:
        yield
    except (EvalError, IngestionError, Misused, ReleaseInvalid, RetrievalError, SettingsError) as error:
        typer.echo(f"plumbline eval: {error}", err=True)
        raise typer.Exit(CANNOT) from None
    except OSError as error:
        if error.filename is None:
            raise
        typer.echo(f"plumbline eval: {os.fsdecode(error.filename)}: {error.strerror}.", err=True)
        raise typer.Exit(CANNOT) from None
    except ModuleNotFoundError as error:
        typer.echo(f"plumbline eval: {error}. Install it with: {INSTALL}", err=True)
        raise typer.Exit(CANNOT) from None
