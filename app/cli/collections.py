"""`plumbline collections`: what each asks of its documents, and how they stand to that."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import console, paths

commands = typer.Typer(help="List collections, set their rules, see what broke them.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The collection's name.")]


@commands.command("list")
def list_collections(
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """List collections."""
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        found = client.get("/v1/collections")
    if as_json:
        console.show_json(found)
        return
    rows = [(one["name"], one["documents"]) for one in found["collections"]]
    console.table(("name", "documents"), rows, "There are no collections.")


@commands.command("rules")
def rules(
    name: Name,
    to: Annotated[
        Path | None,
        typer.Option("--set", help="JSON file with the rules that hold from now on.", show_default=False),
    ] = None,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Show or set what a collection asks of its documents."""
    from app.cli.client import connect

    path = paths.collection(name, "rules")
    asked = None if to is None else _read(to)
    with console.failures(), connect(url, key, data) as client:
        found = client.get(path) if asked is None else client.put(path, asked)
    if as_json:
        console.show_json(found)
        return
    refused = found["rules"].get("refuse", ())
    rows = [
        (rule, _shown(value), "refuse" if rule in refused else "warn")
        for rule, value in found["rules"].items()
        if rule != "refuse"
    ]
    console.table(("rule", "", "if broken"), rows, f"{name} asks nothing.")


@commands.command("report")
def report(
    name: Name,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Show which documents broke a collection's rules."""
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        found = client.get(paths.collection(name, "report"))
    if as_json:
        console.show_json(found)
        return
    rows = [
        (rule, outcome, one["documents"], " ".join(one["examples"]))
        for outcome in ("refused", "warned")
        for rule, one in found[outcome].items()
    ]
    empty = f"None of the {found['documents']} documents of {name} broke a rule."
    console.table(("rule", "outcome", "documents", "such as"), rows, empty)


def _read(path: Path) -> dict[str, Any]:
    import json

    try:
        asked = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        console.fail(f"{path} cannot be read as JSON: {error}", console.USAGE)
    if not isinstance(asked, dict):
        console.fail(f"{path} must hold a JSON object.", console.USAGE)
    return asked


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
