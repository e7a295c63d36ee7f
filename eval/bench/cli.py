"""`plumbline bench hop | cache | search | chat | shadow | embed`: what the service costs, beside a floor."""

from __future__ import annotations

import json
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
from eval.types import EvalError

commands = typer.Typer(
    help="Measure the service against a floor, on parts of its own.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print everything that was measured as JSON.")]
Out = Annotated[Path | None, typer.Option(help="Write the JSON to this file too.")]
Requests = Annotated[int, typer.Option(min=20, help="Requests in a round.")]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds of floor and service in turn.")]
CANNOT = 2


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
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Searches over many passages: the service's own time, the store's and the embedder's."""
    from eval.bench.find import search as measure

    _show(_run(lambda say: measure(passages, store, requests, rate, say), as_json), as_json, out)


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
    model: Annotated[str, typer.Option(help="Embedding model.")] = "all-MiniLM-L6-v2",
    passages: Annotated[int, typer.Option(min=64, help="Passages of 112 tokens.")] = 512,
    cache_folder: Annotated[Path, typer.Option("--cache", help="Where compiled models are kept.")] = Path(
        ".plumbline/cache/embedders"
    ),
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Passages and questions embedded, against the processor's matrix product."""
    from eval.bench.embed import embed as measure

    _show(_run(lambda say: measure(model, passages, cache_folder, say), as_json), as_json, out)


def _run(measure: Callable[[Callable[[str], None]], Coroutine[Any, Any, Any]], as_json: bool) -> Any:
    console = Console(stderr=True)
    with _failures(console), console.status("starting") as status:
        say: Callable[[str], None] = status.update if console.is_terminal else console.print
        return uvloop.run(measure(say))


@contextmanager
def _failures(console: Console) -> Iterator[None]:
    try:
        yield
    except (EvalError, EmbeddedError, StartFailed) as error:
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
        if isinstance(value, dict):
            for name, figure in value.items():
                table.add_row(key, name, str(figure))
        elif key not in ("bench", "rounds"):
            table.add_row(key, "", str(value))
    Console().print(table)
