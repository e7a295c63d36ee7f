"""`plumbline documents`: what was handed in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import console, paths
from app.cli.where import Where, filter_of

if TYPE_CHECKING:
    from app.cli.client import Client

PAGE = 500
_DELETE = "/v1/documents/delete"
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
    yes: console.Yes = False,
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
    chosen: dict[str, Any] = {"filter": filter_of(where)}
    if named:
        chosen["ids"] = list(named)
    if collection is not None:
        chosen["collection"] = collection
    with console.failures(), connect(url, key, data) as client:
        if dry_run:
            found = client.post(_DELETE, {**chosen, "dry_run": True})
            gone = {"would delete": found["ids"], "count": found["count"]}
        else:
            if not yes:
                _confirm(client, named, chosen)
            gone = _deleted(client, named, chosen, quiet=as_json)
    if as_json:
        console.show_json(gone)
    elif dry_run:
        console.say(f"would delete {_counted(gone['count'])}")


def _confirm(client: Client, named: Mapping[str, str], chosen: dict[str, Any]) -> None:
    count = len(named) or client.post(_DELETE, {**chosen, "dry_run": True})["count"]
    what = next(iter(named)) if len(named) == 1 else _counted(count)
    if count:
        console.confirm(f"Delete {what}?", "nothing was deleted")


def _deleted(
    client: Client, named: Mapping[str, str], chosen: dict[str, Any], *, quiet: bool
) -> dict[str, Any]:
    """What is gone: the documents `named` one by one, with their addresses, or those that are `chosen`."""
    if named:
        for document_id, path in named.items():
            client.delete(path)
            if not quiet:
                console.say(f"deleted {document_id}")
        return {"deleted": list(named)}
    found = client.post(_DELETE, {**chosen, "dry_run": False})
    if not quiet:
        console.say(f"deleted {_counted(found['count'])}")
    return {"deleted": found["ids"], "count": found["count"]}


def _counted(count: int) -> str:
    return f"{count} document{'' if count == 1 else 's'}"


def _state(document: dict[str, Any]) -> str:
    """Whether it can be found, and how far its newest version is if that one cannot."""
    status = document["status"]
    if document["visible"] and status in ("succeeded", None):
        return "searchable"
    error = document["error"]  # One that is tried again has one, too.
    newest = f"{status} ({error['code']})" if error and status not in ("queued", "running") else str(status)
    return f"searchable, newer version {newest}" if document["visible"] else newest
