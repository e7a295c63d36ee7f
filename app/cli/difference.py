"""`plumbline release diff`: what differs between two releases, files or registered ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import console, paths
from app.printable import readable

if TYPE_CHECKING:
    from app.changes import Change

Side = Annotated[str, typer.Argument(help="A release file, or a registered release's id or name.")]
_COLOURS = {"-": typer.colors.RED, "+": typer.colors.GREEN}


def register(commands: typer.Typer) -> None:
    commands.command("diff")(diff)


def diff(
    before: Side,
    after: Side,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Show what differs between two releases, key by key, prompts line by line. Two files need no service."""
    from app.changes import changes

    with console.failures():
        texts = [_canonical(side, url, key, data) for side in (before, after)]
    found = changes(*texts)
    if as_json:
        told = [{"path": each.path, "before": each.before, "after": each.after} for each in found]
        console.show_json({"changes": told})
        return
    for change in found:
        _show(change)
    if not found:
        console.say("Nothing: both are the same release.")


def show_keys(body: object) -> None:
    """A release's keys by dotted path, texts of several lines after the others."""
    from app.changes import leaves

    texts = []
    for path, value in leaves(body):
        if "\n" in value.strip():
            texts.append((path, value))
        else:
            console.say(f"{path}: {json.dumps(value) if value != value.strip() else value}")
    for path, value in texts:
        console.say(f"{path}:")
        for line in value.splitlines():
            console.say(f"  {line}".rstrip())


def _canonical(side: str, url: str | None, key: str | None, data: Path | None) -> str:
    """A release as text in which equal releases are equal."""
    from app.cli.client import connect
    from app.release import load_release

    if Path(side).is_file() or side.endswith(".toml"):
        return load_release(Path(side)).canonical()
    if not paths.is_release(side):
        console.fail(f"There is no file {side}, and it is no release's id or name.", console.USAGE)
    with connect(url, key, data) as client:
        return json.dumps(client.get(paths.release(side))["release"])


def _show(change: Change) -> None:
    from app.changes import hunks, is_text

    if change.before is None or change.after is None or not is_text(change):
        console.say(f"{change.path}: {_side(change.before)} -> {_side(change.after)}")
        return
    console.say(f"{change.path}:")
    for line in hunks(change.before, change.after, context=1):
        typer.secho(f"  {'...' if line == '@' else readable(line)}", fg=_COLOURS.get(line[:1]))


def _side(value: str | None) -> str:
    return "(absent)" if value is None else value
