"""`plumbline summarize`: a cited summary of documents, of text files, or of what comes in on stdin."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import console

if TYPE_CHECKING:
    from app.cli.client import Client

PATH = "/v1/summarize"


def register(commands: typer.Typer) -> None:
    commands.command("summarize")(summarize)


def summarize(
    targets: Annotated[
        list[str] | None,
        typer.Argument(help="Ids of documents, or text files; none reads stdin.", metavar="[ID|FILE]..."),
    ] = None,
    collection: Annotated[
        str | None, typer.Option(help="Summarize a whole collection.", show_default=False)
    ] = None,
    focus: Annotated[
        str | None,
        typer.Option(help="A question to answer along the way; alone, of everything.", show_default=False),
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Write in it, e.g. en or de.", show_default=False)
    ] = None,
    max_words: Annotated[int, typer.Option(min=10, max=2_000, help="At most this many words.")] = 200,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Summarize, with citations and with how much of the text the summary covers."""
    from app.cli.client import connect

    body: dict[str, Any] = {"max_words": max_words, **_what(targets or (), collection, focus)}
    if language:
        body["language"] = language
    if focus:
        body["focus"] = focus
    with console.failures(), connect(url, key, data) as client:
        if as_json:
            console.show_json(client.post(PATH, body))
        else:
            _stream(client, body)


def _what(targets: Sequence[str], collection: str | None, focus: str | None) -> dict[str, Any]:
    if collection is not None:
        if targets:
            console.fail("Name documents or --collection, not both.", console.USAGE)
        return {"collection": collection}
    if targets and not any(Path(target).is_file() for target in targets):
        return {"document_ids": list(targets)}
    if focus and not targets and sys.stdin.isatty():
        return {}  # What is said of it anywhere.
    text = "\n\n".join(map(_text, targets)) if targets else _stdin()
    if not text.strip():
        console.fail("There is no text to summarize.", console.USAGE)
    return {"text": text}


def _stdin() -> str:
    if sys.stdin.isatty():
        console.fail("Name documents or text files, or pipe a text in.", console.USAGE)
    return sys.stdin.read()


def _text(target: str) -> str:
    try:
        return Path(target).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        console.fail(
            f"{target} is not plain text. Ingest it first, then summarize it by its id.", console.USAGE
        )
    except OSError as error:
        console.fail(f"{target} cannot be read: {error.strerror}.", console.USAGE)


def _stream(client: Client, body: dict[str, Any]) -> None:
    from app.cli.answer import source_lines

    told: dict[str, Any] = {}
    for event in client.events("POST", PATH, {**body, "stream": True}):
        if event["object"] == "summary.progress" and sys.stderr.isatty():
            print(f"\rread {event['done']} of {event['total']} sections", end="", file=sys.stderr, flush=True)
            if event["done"] == event["total"]:
                print(file=sys.stderr)
        elif event["object"] == "summary.delta":
            print(event["delta"], end="", flush=True)
        elif event["object"] == "summary":
            told = event
    print()
    for line in source_lines(told):
        print(line)
    print(f"(speaks of {told['coverage']:.0%} of the text)")
