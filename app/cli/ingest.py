"""`plumbline ingest PATH...`: hand files in and wait until they can be found."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import console

if TYPE_CHECKING:
    from app.cli.upload import Outcome, Progress

Bars = Callable[[str], "Progress"]


def register(commands: typer.Typer) -> None:
    commands.command("ingest")(ingest)


def ingest(
    paths: Annotated[list[str], typer.Argument(help="Files, folders and patterns.", metavar="PATH...")],
    collection: Annotated[str, typer.Option(help="Collection to put them in.")] = "default",
    group: Annotated[
        list[str] | None,
        typer.Option(help="Group that may read them; repeat for several.", show_default=False),
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE noted on each; repeatable.", show_default=False)
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until they can be found.")] = True,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Hand in files of every type that can be read. An id is the path below the folder, with `:` for `/`."""
    from app.cli.client import connect
    from app.cli.sources import SourcesInvalid, find
    from app.cli.upload import hand_in
    from ingestion.intake import EXTENSIONS

    with console.failures(), connect(url, key, data) as client, _bars(as_json) as bars:
        try:
            sources, left_out = find(paths, EXTENSIONS)
        except SourcesInvalid as error:
            console.fail(str(error), console.USAGE)
        if not sources:
            known = " ".join(sorted(EXTENSIONS))
            console.fail(f"No file there that can be read. Endings that are: {known}.", console.USAGE)
        fields = {"collection": collection, **_said(group, metadata)}
        outcomes = hand_in(client, sources, fields, bars("handing in"))
        if wait:
            outcomes = _waited(client, outcomes, bars("indexing"))
    _report(outcomes, left_out, as_json)
    if any(outcome.failed for outcome in outcomes):
        raise typer.Exit(console.FAILED)


def _waited(client: Any, outcomes: Sequence[Outcome], progress: Progress) -> list[Outcome]:
    from app.cli.upload import finished

    ended: list[Outcome] = []
    for outcome in finished(client, outcomes):
        ended.append(outcome)
        progress(len(ended), len(outcomes))
    return ended


def _said(group: Sequence[str] | None, metadata: Sequence[str] | None) -> dict[str, Any]:
    """The query fields that describe each document."""
    said: dict[str, Any] = {"groups": list(group)} if group else {}
    pairs = [pair.partition("=") for pair in metadata or ()]
    for name, equals, _ in pairs:
        if not (name and equals):
            console.fail(f"--metadata {name!r}: write KEY=VALUE.", console.USAGE)
    if pairs:
        said["metadata"] = json.dumps({name: _value(value) for name, _, value in pairs})
    return said


def _value(text: str) -> Any:
    """A number, true or false where the text is one, else the text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def _report(outcomes: Sequence[Outcome], left_out: int, as_json: bool) -> None:
    failed = [outcome for outcome in outcomes if outcome.failed]
    if as_json:
        console.show_json(
            {
                "documents": len(outcomes),
                "failed": len(failed),
                "left_out": left_out,
                "outcomes": [_json(outcome) for outcome in outcomes],
            }
        )
        return
    if failed:
        rows = [(o.document_id, o.status, o.part, o.message) for o in failed]
        console.table(("document", "status", "part", "why"), rows, "")
    done = sum(outcome.status == "succeeded" for outcome in outcomes)
    waiting = len(outcomes) - done - len(failed)
    parts = (
        f"{done} indexed",
        f"{waiting} queued",
        f"{len(failed)} failed",
        f"{left_out} of other types left out",
    )
    console.say(", ".join(part for part in parts if not part.startswith("0 ")))


def _json(outcome: Outcome) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(outcome)


@contextlib.contextmanager
def _bars(quiet: bool) -> Iterator[Bars]:
    """Progress bars with rate and time left, on the terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Shown

    columns = ("{task.description:<10}", BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    shown = Shown(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=quiet)

    def bar(title: str) -> Progress:
        task = shown.add_task(title, rate="")

        def progress(done: int, total: int) -> None:
            speed = shown.tasks[task].speed
            shown.update(task, completed=done, total=total, rate=f"{speed:.1f}/s" if speed else "")

        return progress

    with shown:
        yield bar
