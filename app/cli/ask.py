"""`plumbline ask QUESTION`: a cited answer, written as it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import console
from app.cli.where import Where, filter_of
from app.printable import readable

if TYPE_CHECKING:
    from app.cli.client import Client

PATH = "/v1/chat/completions"


def register(commands: typer.Typer) -> None:
    commands.command("ask")(ask)


def ask(
    question: Annotated[str, typer.Argument(help="What to ask, in plain words.")],
    collection: Annotated[
        list[str] | None, typer.Option(help="Ask this collection only; repeatable.", show_default=False)
    ] = None,
    where: Where = None,
    model: Annotated[str, typer.Option(help="`plumbline`, or `plumbline@RELEASE`.")] = "plumbline",
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Use finished answers.")] = True,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Ask the documents. The sources are numbered as the answer names them."""
    from app.cli.client import connect

    extra: dict[str, Any] = {"cache": cache}
    if collection:
        extra["collections"] = collection
    if where:
        extra["filter"] = filter_of(where)
    body = {"model": model, "messages": [{"role": "user", "content": question}], "plumbline": extra}
    with console.failures(), connect(url, key, data) as client:
        if as_json:
            console.show_json(client.post(PATH, body))
        else:
            _stream(client, body)


def _stream(client: Client, body: dict[str, Any]) -> None:
    from app.cli.answer import source_lines
    from app.cli.underway import under_way

    told: dict[str, Any] = {"citations": [], "degraded": []}
    with under_way(client) as not_yet:
        for chunk in client.events("POST", PATH, {**body, "stream": True}):
            for choice in chunk["choices"]:
                console.write(choice["delta"].get("content") or "")
            found = chunk.get("plumbline") or {}
            told = found if "citations" in found else told
        print()
        for line in source_lines(told):
            print(readable(line))
        if reading := not_yet():
            print(f"\n({reading})")
