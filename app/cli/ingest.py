"""`plumbline ingest PATH...`: hand files in and wait until they can be found."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import console

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.cli.sources import Found
    from app.cli.upload import Outcome

Told = Callable[[int, int, str], None]
"""Told how many are done, of how many, and anything else that is worth saying."""
MOST_SHOWN = 50
MOST_NAMED = 3
MOST_ENDINGS = 8


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
    priority: Annotated[
        str, typer.Option(help="low, normal, high, or -10 to 10: before which others of yours.")
    ] = "normal",
    again: Annotated[
        bool, typer.Option("--again", help="Hand in also what is there already, unchanged.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until they can be found.")] = True,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Hand in files of every type that can be read. An id is the path below the folder, with `:` for `/`.

    What is there already in the same form is left out: a run that was cut short goes on when it is run again.
    Fails if any document does.
    """
    from app.cli.already import Already, elsewhere, look
    from app.cli.client import connect
    from app.cli.describing import described
    from app.cli.upload import hand_in
    from app.settings import load_settings

    fields = described(collection, group or (), metadata or (), priority)
    with console.failures(), connect(url, key, data) as client, _bars(as_json) as bar:
        most, found = load_settings(data=data).upload_limit, _found(paths)
        known = look(client, collection, {one.id: one for one in found.sources})
        moved = elsewhere(client, [one.id for one in found.sources if one.id not in known.documents])
        already, told = Already({}) if again else known, bar("handing in", "files")
        outcomes = hand_in(
            client, found.sources, fields, lambda done, total: told(done, total, ""), already, most=most
        )
        moved -= {outcome.document_id for outcome in outcomes if outcome.status == "refused"}
        if wait:
            outcomes = _waited(client, outcomes, bar("indexing", "documents"))
    _report(outcomes, found, moved, as_json)
    if any(outcome.failed for outcome in outcomes):
        raise typer.Exit(console.FAILED)


def _found(paths: Sequence[str]) -> Found:
    from app.cli.sources import SourcesInvalid, find
    from ingestion.intake import EXTENSIONS

    try:
        found = find(paths, EXTENSIONS)
    except SourcesInvalid as error:
        console.fail(str(error), console.USAGE)
    if not found.sources:
        known = " ".join(sorted(EXTENSIONS))
        console.fail(f"No file there that can be read. Endings that are: {known}.", console.USAGE)
    return found


def _waited(client: Client, outcomes: Sequence[Outcome], told: Told) -> list[Outcome]:
    from app.cli.upload import Seen, finished

    begun = time.monotonic()

    def seen(now: Seen) -> None:
        speed = now.chunks / max(0.1, time.monotonic() - begun)
        said = [f"{now.chunks} chunks, {speed:.0f}/s"] if now.chunks else []
        said += [f"{console.duration(now.eta)} left"] if now.eta is not None else []
        said += [f"{now.failed} failed"] if now.failed else []
        told(now.done, now.total, ", ".join(said))

    places = {outcome.document_id: n for n, outcome in enumerate(outcomes)}
    ended = finished(client, outcomes, seen=seen)
    return sorted(ended, key=lambda outcome: places[outcome.document_id])


def _report(outcomes: Sequence[Outcome], found: Found, moved: Collection[str], as_json: bool) -> None:
    failed = [outcome for outcome in outcomes if outcome.failed]
    reasons = Counter(outcome.reason or outcome.status for outcome in failed)
    if as_json:
        console.show_json(
            {
                "documents": len(outcomes),
                "failed": len(failed),
                "reasons": dict(reasons.most_common()),
                "left_out": found.left_out.total(),
                "passed_over": found.passed_over,
                "moved": len(moved),
                "chunks": sum(outcome.chunks for outcome in outcomes),
                "outcomes": [_json(outcome) for outcome in outcomes],
            }
        )
        return
    if failed:
        rows = [(o.document_id, o.status, o.reason, o.part, o.message) for o in failed[:MOST_SHOWN]]
        console.table(("document", "status", "reason", "part", "why"), rows, "")
    if len(failed) > MOST_SHOWN:
        told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        console.say(f"and {len(failed) - MOST_SHOWN} more; in all {told}. `plumbline jobs list` shows them.")
    states = Counter(outcome.status for outcome in outcomes)
    named = ", ".join(found.passed_over[:MOST_NAMED])
    endings = ", ".join(ending or "no ending" for ending, _ in found.left_out.most_common(MOST_ENDINGS))
    parts = (
        f"{states['succeeded']} indexed",
        f"{states['unchanged']} there already",
        f"{states['queued'] + states['running']} queued",
        f"{len(failed)} failed",
        f"{len(moved)} moved here from other collections",
        f"{found.left_out.total()} of other types left out ({endings})",
        f"{len(found.passed_over)} passed over that are no files ({named})",
    )
    console.say(", ".join(part for part in parts if not part.startswith("0 ")))


def _json(outcome: Outcome) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(outcome)


@contextlib.contextmanager
def _bars(quiet: bool) -> Iterator[Callable[[str, str], Told]]:
    """Progress bars with what they count, its rate and more, on the terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn())
    said = TextColumn("{task.fields[said]}")
    shown = Progress(*columns, said, console=Console(stderr=True), disable=quiet)

    def bar(title: str, unit: str) -> Told:
        task = shown.add_task(title, total=None, said="")

        def told(done: int, total: int, more: str) -> None:
            speed = shown.tasks[task].speed
            rate = f"{unit}, {speed:.1f}/s" if speed else unit
            shown.update(task, completed=done, total=total, said=f"{rate}; {more}" if more else rate)

        return told

    with shown:
        yield bar
