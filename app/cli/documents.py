"""`plumbline documents`: what was handed in."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli import console, paths
from app.cli.where import Where, filter_of

PAGE = 500
commands = typer.Typer(help="List, show and delete documents.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="The document's id.")]


@commands.command("list")
def list_documents(
    collection: Annotated[str | None, typer.Option(help="This collection only.", show_default=False)] = None,
    named: Annotated[
        str | None,
        typer.Option(help="Words that all stand in title, file name or id.", show_default=False),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many.", show_default=False)] = None,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """List documents."""
    from app.cli.client import connect

    found: list[dict[str, Any]] = []
    after: str | None = None
    with console.failures(), connect(url, key, data) as client:
        while True:
            size = PAGE if limit is None else min(PAGE, limit - len(found))
            page = client.get("/v1/documents", collection=collection, named=named, after=after, limit=size)
            found += page["documents"]
            after = page["next"]
            if after is None or (limit is not None and len(found) >= limit):
                break
    if as_json:
        console.show_json({"documents": found})
        return
    rows = [(one["id"], one["collection"], one["title"], one["chunks"], _state(one)) for one in found]
    console.table(("id", "collection", "title", "chunks", "state"), rows, "There are no documents.")


@commands.command("show")
def show(
    document_id: Id,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Show what is known about a document."""
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        found = client.get(paths.document(document_id))
    console.show(found, as_json)


@commands.command("delete")
def delete(
    document_ids: Annotated[
        list[str] | None, typer.Argument(help="Ids of documents.", metavar="[ID]...", show_default=False)
    ] = None,
    where: Where = None,
    collection: Annotated[str | None, typer.Option(help="All of a collection.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which these are.")] = False,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Delete documents by id, metadata or collection. Nothing that is asked afterwards uses their text."""
    from app.cli.client import connect

    meant = bool(where) or collection is not None
    if bool(document_ids) == meant:
        console.fail(
            "Name documents by their ids, or say which with --where and --collection.", console.USAGE
        )
    named = {document_id: paths.document(document_id) for document_id in document_ids or ()}
    with console.failures(), connect(url, key, data) as client:
        if named and not dry_run:
            for document_id, path in named.items():
                client.delete(path)
                if not as_json:
                    console.say(f"deleted {document_id}")
            gone: dict[str, Any] = {"deleted": list(named)}
        else:
            chosen = {"filter": filter_of(where), "dry_run": dry_run}
            if named:
                chosen["ids"] = list(named)
            if collection is not None:
                chosen["collection"] = collection
            found = client.post("/v1/documents/delete", chosen)
            gone = {"would delete" if dry_run else "deleted": found["ids"], "count": found["count"]}
            if not as_json:
                console.say(f"{'would delete' if dry_run else 'deleted'} {found['count']} documents")
    if as_json:
        console.show_json(gone)


def _state(document: dict[str, Any]) -> str:
    """Whether it can be found, and how far its newest version is if that one cannot."""
    status = document["status"]
    if document["visible"] and status in ("succeeded", None):
        return "searchable"
    error = document["error"]  # One that is tried again has one, too.
    newest = f"{status} ({error['code']})" if error and status not in ("queued", "running") else str(status)
    return f"searchable, newer version {newest}" if document["visible"] else newest
