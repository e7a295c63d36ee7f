"""`plumbline summarize`: a cited summary of documents, of text files, or of what comes in on stdin."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from app.cli import console, paths
from app.printable import readable

if TYPE_CHECKING:
    from app.cli.client import Client

PATH = "/v1/summarize"
LONGEST_TEXT = 2_000_000
"""Characters that the service takes."""
_MOST_BYTES = 4 * LONGEST_TEXT
_NOT_FOUND = 404


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
    with console.failures(), connect(url, key, data) as client, _no_file_either(body):
        if as_json:
            console.show_json(client.post(PATH, body))
        else:
            _stream(client, body)


def _what(targets: Sequence[str], collection: str | None, focus: str | None) -> dict[str, Any]:
    if collection is not None:
        if targets:
            console.fail("Name documents or --collection, not both.", console.USAGE)
        return {"collection": collection}
    files = [one for one in targets if os.path.isfile(one)]  # noqa: PTH113  what is too long for a name is none
    if targets and not files:
        return {"document_ids": [_document(target) for target in targets]}
    if len(files) < len(targets):
        other = next(target for target in targets if target not in files)
        console.fail(f"{files[0]} is a file and {other} is none. Name files, or documents.", console.USAGE)
    if focus and not targets and sys.stdin.isatty():
        return {}  # What is said of it anywhere.
    text = "\n\n".join(map(_text, targets)) if targets else _stdin()
    if not text.strip():
        console.fail("There is no text to summarize.", console.USAGE)
    return {"text": text}


def _stdin() -> str:
    if sys.stdin.isatty():
        console.fail("Name documents or text files, or pipe a text in.", console.USAGE)
    return _read(sys.stdin.buffer, "What was piped in")


def _document(target: str) -> str:
    """A target that is no file, if it can be a document's id."""
    if not paths.is_document(target):
        console.fail(_neither(target), console.USAGE)
    return target


def _neither(target: str) -> str:
    if os.path.isdir(target):  # noqa: PTH112
        return f"{target} is a folder. Name its files, documents, or --collection."
    if os.path.exists(target):  # noqa: PTH110
        return f"{target} is not a regular file. Name a file, or pipe it in."
    return f"There is no file {target}, and it is no document's id."


@contextlib.contextmanager
def _no_file_either(body: Mapping[str, Any]) -> Iterator[None]:
    """Who named a document that is not there may have meant a file."""
    from app.cli.client import ClientError

    try:
        yield
    except ClientError as error:
        if error.status == _NOT_FOUND and "document_ids" in body:
            raise ClientError(f"{error} There is no such file here either.", error.status) from None
        raise


def _text(target: str) -> str:
    try:
        with Path(target).open("rb") as file:
            return _read(file, target)
    except OSError as error:
        console.fail(f"{target} cannot be read: {error.strerror}.", console.USAGE)


def _read(file: BinaryIO, name: str) -> str:
    raw = file.read(_MOST_BYTES + 1)
    if len(raw) > _MOST_BYTES:
        console.fail(f"{name} has more than the {LONGEST_TEXT:,} characters of a text.", console.USAGE)
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        console.fail(
            f"{name} is not text in UTF-8. `plumbline ingest` reads files of other kinds and encodings; then "
            "summarize it by its id.",
            console.USAGE,
        )


def _stream(client: Client, body: dict[str, Any]) -> None:
    from app.cli.answer import source_lines

    told: dict[str, Any] = {}
    for event in client.events("POST", PATH, {**body, "stream": True}):
        if event["object"] == "summary.progress" and sys.stderr.isatty():
            print(f"\rread {event['done']} of {event['total']} sections", end="", file=sys.stderr, flush=True)
            if event["done"] == event["total"]:
                print(file=sys.stderr)
        elif event["object"] == "summary.delta":
            console.write(event["delta"])
        elif event["object"] == "summary":
            told = event
    print()
    for line in source_lines(told):
        print(readable(line))
    print(f"(speaks of {told['coverage']:.0%} of the text)")
