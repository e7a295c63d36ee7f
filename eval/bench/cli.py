"""`plumbline bench`: what the service costs beside a floor, what it takes in, and how it bears that."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import uvloop
from rich.console import Console
from rich.table import Table

from app.child import StartFailed
from app.embedded import EmbeddedError
from app.release import ReleaseInvalid
from app.settings import SettingsError
from eval.types import EvalError
from retrieval.errors import RetrievalError

commands = typer.Typer(
    help="Measure the service against a floor, on parts of its own.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print everything that was measured as JSON.")]
Out = Annotated[Path | None, typer.Option(help="Write the JSON to this file too.")]
Requests = Annotated[int, typer.Option(min=20, help="Requests in a round.")]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds of floor and service in turn.")]
FAILED, CANNOT = 1, 2
WIDE = 200


@commands.command()
def hop(requests: Requests = 1_000, rounds: Rounds = 3, as_json: AsJson = False, out: Out = None) -> None:
    """The whole path of a question on a store and a model that take no time."""
    from eval.bench.hop import hop as measure

    _show(_run(lambda say: measure(requests, rounds, say), as_json), as_json, out)


@commands.command()
def cache(requests: Requests = 1_000, rounds: Rounds = 3, as_json: AsJson = False, out: Out = None) -> None:
    """The same question again, answered from the cache."""
    from eval.bench.hop import cache as measure

    _show(_run(lambda say: measure(requests, rounds, say), as_json), as_json, out)


@commands.command()
def search(
    passages: Annotated[int, typer.Option(min=100, help="Passages to search in.")] = 20_000,
    store: Annotated[Literal["memory", "served"], typer.Option(help="`served` is Milvus Lite.")] = "memory",
    requests: Requests = 300,
    rate: Annotated[float, typer.Option(min=0.1, help="Arrivals a second of the open loop.")] = 10.0,
    load: Annotated[bool, typer.Option("--load", help="And while a worker takes documents in.")] = False,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Searches over many passages: the service's own time, the store's and the embedder's."""
    from eval.bench.find import search as measure

    told = _run(lambda say: measure(passages, store, requests, rate, say, load=load), as_json)
    _show(told, as_json, out)


@commands.command()
def chat(
    model_url: Annotated[
        str, typer.Option(help="A model that runs; ends in /v1. Without it a paced one.")
    ] = "",
    model: Annotated[str, typer.Option(help="Its name there.")] = "",
    in_flight: Annotated[
        int | None, typer.Option(min=1, help="Answers at once: 200, or 32 of a model that runs.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens of an answer.")] = 256,
    rounds: Rounds = 3,
    spread: Annotated[float, typer.Option(min=0, help="Seconds in which paced answers begin.")] = 10.0,
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds of arrivals, for each load.")] = 10.0,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Streamed answers through the service and straight from the model; ten times too much load."""
    from eval.bench import chat as bench

    if bool(model_url) is not bool(model):
        raise typer.BadParameter("--model-url and --model go together.")
    if model_url:
        told = _run(lambda say: bench.served(model_url, model, in_flight or 32, tokens, rounds, say), as_json)
    else:
        told = _run(lambda say: bench.paced(in_flight or 200, tokens, rounds, spread, seconds, say), as_json)
    _show(told, as_json, out)


@commands.command()
def shadow(
    rate: Annotated[float, typer.Option(min=0.1, help="Arrivals a second of the open loop.")] = 8.0,
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds of arrivals in a round.")] = 15.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds with a shadow, and as many without.")] = 4,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Answers while a shadow mirrors them to a second model, and while it does not."""
    from eval.bench.shadow import shadow as measure

    _show(_run(lambda say: measure(rate, seconds, rounds, say), as_json), as_json, out)


@commands.command()
def embed(
    model: Annotated[
        str | None, typer.Option(help="Embedding model, as a release names it; by default the release's.")
    ] = None,
    passages: Annotated[int, typer.Option(min=64, help="Passages of 112 tokens.")] = 512,
    cache_folder: Annotated[Path, typer.Option("--cache", help="Where compiled models are kept.")] = Path(
        ".plumbline/cache/embedders"
    ),
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Passages and questions embedded, of a BERT that runs here against the processor's matrix product."""
    from eval.bench.embed import embed as measure

    _show(_run(lambda say: measure(model, passages, cache_folder, say), as_json), as_json, out)


@commands.command()
def ingest(
    folders: Annotated[list[Path], typer.Argument(help="Folders in BEIR's layout, or of Markdown files.")],
    documents: Annotated[
        int | None, typer.Option(min=1, help="Only the first documents of each folder.")
    ] = None,
    chunks: Annotated[
        int | None, typer.Option(min=1, help="Add changed copies of the documents until there are so many.")
    ] = None,
    rate: Annotated[float, typer.Option(min=0.1, help="Searches a second.")] = 5.0,
    seconds: Annotated[
        float, typer.Option(min=0, help="Seconds of searches, idle and during a load; 0 for none.")
    ] = 60.0,
    peer_python: Annotated[
        Path | None,
        typer.Option(help="Python with langchain-milvus, langchain-huggingface and milvus-lite: a peer."),
    ] = None,
    peer_chunks: Annotated[int | None, typer.Option(min=1, help="Only so many for the peer.")] = None,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Documents handed in until they can be found, against embedding their chunks alone."""
    from eval.bench.ingest import ingest as measure
    from eval.bench.peer import Peer

    peer = Peer(peer_python, peer_chunks) if peer_python else None
    told = _run(
        lambda say: measure(
            folders,
            most=documents,
            chunks=chunks,
            rate=rate,
            seconds=seconds,
            peer=peer,
            environment={},
            say=say,
        ),
        as_json,
    )
    _show(told, as_json, out)


@commands.command()
def update(
    documents: Annotated[int, typer.Option(min=10, help="Documents of the collection.")] = 5_000,
    share: Annotated[float, typer.Option(min=0, max=1, help="Share of them that is changed.")] = 0.01,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """A share of a collection updated, and all of it handed in again: what is embedded, and how long."""
    from eval.bench.update import update as measure

    _show(_run(lambda say: measure(documents, share, say), as_json), as_json, out)


@commands.command()
def files(
    folder: Annotated[Path, typer.Argument(help="Files, and a MANIFEST.json that labels them.")],
    rate: Annotated[float, typer.Option(min=0.1, help="Searches a second.")] = 10.0,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of idle searches.")] = 30.0,
    as_json: AsJson = False,
    report: Annotated[Path | None, typer.Option(help="Write the JSON to this file too.")] = None,
) -> None:
    """Files that break readers: how each ends, and what searches notice. Fails unless all is as labelled."""
    from eval.bench.files import files as measure

    told = _run(lambda say: measure(folder, rate, seconds, say), as_json)
    if not as_json:
        _show_files(told["files"])
    _show(told, as_json, report)
    if not told["passed"]:
        raise typer.Exit(FAILED)


def _show_files(rows: list[dict[str, Any]]) -> None:
    columns = ("file", "expect", "state", "reason", "part", "seconds", "peak_mib", "words", "fault")
    table = Table(*columns, title="files")
    for row in rows:
        table.add_row(*("" if row[name] is None else str(row[name]) for name in columns))
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


@commands.command()
def workers(
    folder: Annotated[Path, typer.Argument(help="Folder in BEIR's layout, or of Markdown files.")],
    count: Annotated[
        list[int] | None, typer.Option("--workers", min=1, help="Worker processes; several times.")
    ] = None,
    documents: Annotated[int | None, typer.Option(min=1, help="Only the first documents.")] = None,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """The same documents with one, two and four worker processes, and whether any was done twice."""
    from eval.bench.workers import workers as measure

    _show(_run(lambda say: measure(folder, count or [1, 2, 4], documents, say), as_json), as_json, out)


def _run(measure: Callable[[Callable[[str], None]], Coroutine[Any, Any, Any]], as_json: bool) -> Any:
    console = Console(stderr=True)
    with _failures(console), console.status("starting") as status:
        say: Callable[[str], None] = status.update if console.is_terminal else console.print
        return uvloop.run(measure(say))


@contextmanager
def _failures(console: Console) -> Iterator[None]:
    try:
        yield
    except (EvalError, EmbeddedError, ReleaseInvalid, RetrievalError, SettingsError, StartFailed) as error:
        console.print(f"[red]{error}[/red]")
        raise typer.Exit(CANNOT) from None


def _show(told: dict[str, Any], as_json: bool, out: Path | None) -> None:
    text = json.dumps(told, indent=2)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    if as_json:
        print(text)  # noqa: T201
        return
    table = Table(title=f"bench {told['bench']}", show_header=False)
    for key, value in told.items():
        if key in ("bench", "rounds", "files"):
            continue
        if isinstance(value, dict):
            for name, figure in value.items():
                table.add_row(key, name, str(figure))
        else:
            table.add_row(key, "", str(value))
    Console().print(table)
