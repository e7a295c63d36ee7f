"""`plumbline search QUERY`: passages that match, best first."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli import console
from app.cli.where import Where, filter_of

SNIPPET = 160


def register(commands: typer.Typer) -> None:
    commands.command("search")(search)


def search(
    query: Annotated[str, typer.Argument(help="What to look for, in plain words.")],
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most this many.")] = 10,
    collection: Annotated[
        list[str] | None, typer.Option(help="Search this collection only; repeatable.", show_default=False)
    ] = None,
    where: Where = None,
    by_document: Annotated[
        bool, typer.Option("--by-document", help="The best passage of each document only.")
    ] = False,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Find passages."""
    from app.cli.client import connect
    from app.cli.underway import under_way

    body: dict[str, Any] = {"query": query, "limit": limit, "group": "document" if by_document else "chunk"}
    if collection:
        body["collections"] = collection
    if where:
        body["filter"] = filter_of(where)
    with console.failures(), connect(url, key, data) as client:
        if as_json:
            console.show_json(client.post("/v1/search", body))
            return
        with under_way(client) as not_yet:
            found = client.post("/v1/search", body)
            reading = not_yet()
    rows = [
        (f"{hit['score']:.3f}", hit["document_id"], hit["title"], hit["page"], _snippet(hit["text"]))
        for hit in found["hits"]
    ]
    console.table(("score", "document", "title", "page", "passage"), rows, "Nothing matches.")
    if found["degraded"]:
        print(f"(searched without: {', '.join(found['degraded'])})")
    if reading:
        print(f"({reading})")


def _snippet(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SNIPPET else line[:SNIPPET].rsplit(" ", 1)[0] + " …"
