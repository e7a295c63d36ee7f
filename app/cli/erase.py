"""`plumbline erase`: documents taken out of every store for good, and the receipts of that."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import console, paths
from app.cli.where import Where, filter_of

if TYPE_CHECKING:
    from app.settings import Settings
    from ingestion.receipts import Receipt

POLL = 0.5
ReceiptFiles = Annotated[
    list[Path] | None, typer.Argument(help="Receipts, or folders of them. Default: the instance's own.")
]
commands = typer.Typer(
    help="Erase documents from every store, with a signed receipt.", invoke_without_command=True
)


@commands.callback()
def erase(
    context: typer.Context,
    ids: Annotated[list[str] | None, typer.Option("--id", help="A document; repeatable.")] = None,
    where: Where = None,
    collection: Annotated[str | None, typer.Option(help="All of a collection.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--tenant", help="Everything of the key's tenant.")] = False,
    yes: console.Yes = False,
    wait: Annotated[bool, typer.Option(help="Until every store is done.")] = True,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Erase documents by id, by metadata, by collection, or a whole tenant.

    Nobody is shown any of them from the answer on; then every store is gone through. Fails when it did not
    finish."""
    if context.invoked_subcommand is not None:
        return
    from app.cli.client import connect

    if not (ids or where or everything or collection is not None):
        console.fail("Name --id, --where, --collection or --tenant.", console.USAGE)
    for name in ids or ():
        paths.document(name)
    chosen: dict[str, Any] = {"filter": filter_of(where), "tenant": everything}
    if ids:
        chosen["ids"] = ids
    if collection is not None:
        chosen["collection"] = collection
    with console.failures(), connect(url, key, data) as client:
        if not yes:
            console.confirm(
                f"Erase {_meant(client, chosen)} from every store, for good?", "nothing was erased"
            )
        begun = client.post("/v1/erase", chosen)
        ended = _followed(client, begun, quiet=as_json) if wait else begun
    if as_json:
        console.show_json(ended)
    elif wait:
        _show(ended)
    else:
        console.say(f"erasure {ended['id']} of {ended['documents']} documents has begun")


@commands.command("list")
def listed(
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """List erasures."""
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        found = client.get("/v1/erasures")
    if as_json:
        console.show_json(found)
        return
    rows = [
        (one["id"], one["scope"], one["documents"], one["state"], one["asked_at"])
        for one in found["erasures"]
    ]
    console.table(("id", "scope", "documents", "state", "asked"), rows, "Nothing was erased.")


@commands.command("show")
def show(
    erasure_id: Annotated[str, typer.Argument(help="The erasure's id.", metavar="ID")],
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Show how far an erasure is, and its receipt."""
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        found = client.get(paths.erasure(erasure_id))
    console.show_json(found) if as_json else _show(found)


@commands.command("verify")
def verify(
    receipts: ReceiptFiles = None,
    as_json: console.AsJson = False,
    data: console.Data = None,
) -> None:
    """Check the signatures of receipts. Fails when one does not hold."""
    from app.settings import load_settings

    with console.failures():
        found = _read(receipts, load_settings(data=data))
    rows = [(one.id, "holds" if one.signed else "BROKEN", "yes" if one.ours else "no") for one in found]
    if as_json:
        console.show_json(
            {"receipts": [{"id": one.id, "signed": one.signed, "ours": one.ours} for one in found]}
        )
    else:
        console.table(("receipt", "signature", "of this instance"), rows, "There are no receipts.")
    if not all(one.signed for one in found):
        raise typer.Exit(console.FAILED)


@commands.command("reapply")
def reapply(
    receipts: ReceiptFiles = None,
    as_json: console.AsJson = False,
    data: console.Data = None,
) -> None:
    """Erase again what a restored backup has brought back. Straight in the ledger; a worker does the rest."""
    import asyncio

    from app.cli.ledger import open_ledger
    from app.settings import load_settings

    with console.failures():
        settings = load_settings(data=data)
        found = _read(receipts, settings)
        unsigned = [one.id for one in found if not one.signed]
        if unsigned:
            console.fail(f"The signature of {unsigned[0]} does not hold: nothing was erased.")

        async def again() -> list[dict[str, Any]]:
            from app.wiring import reapply as apply

            async with open_ledger(settings) as engine:
                begun = await apply(engine, found, "command line")
            return [
                {"receipt": one.id, "erasure": new.id, "documents": new.documents}
                for one, new in zip(found, begun, strict=True)
            ]

        told = asyncio.run(again())
    if as_json:
        console.show_json({"reapplied": told})
    else:
        rows = [(one["receipt"], one["erasure"], one["documents"]) for one in told]
        console.table(("receipt", "erasure", "documents found again"), rows, "There are no receipts.")


def _read(paths: list[Path] | None, settings: Settings) -> list[Receipt]:
    """Those at the paths, or else the instance's own."""
    from app.erasure import receipts_of
    from ingestion import receipts

    kept = receipts_of(settings)
    return [kept.read(path) for path in receipts.found(paths)] if paths else list(kept.all())


def _meant(client: Any, chosen: dict[str, Any]) -> str:
    if chosen["tenant"]:
        return "everything of this tenant"
    asked = {name: value for name, value in chosen.items() if name != "tenant"}
    return f"{client.post('/v1/documents/delete', {**asked, 'dry_run': True})['count']} documents"


def _followed(client: Any, erasure: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Say what each store says, until all are done."""
    said: dict[str, str] = {}
    while erasure["state"] != "finished":
        time.sleep(POLL)
        erasure = client.get(f"/v1/erasures/{erasure['id']}")
        for store, told in erasure["stores"].items():
            line = f"{store:<10} {told['state']:<8} {told['removed']:>6}  {told['detail']}"
            if not quiet and said.get(store) != line:
                console.say(line)
                said[store] = line
    return erasure


def _show(erasure: dict[str, Any]) -> None:
    rows = [(name, one["state"], one["removed"], one["detail"]) for name, one in erasure["stores"].items()]
    console.table(("store", "state", "removed", ""), rows, "No store was gone through yet.")
    console.say(f"erasure {erasure['id']} of {erasure['documents']} documents: {erasure['state']}")
    if erasure.get("receipt"):
        console.say(
            f"receipt   receipts/{erasure['id']}.json in the data folder, or under PLUMBLINE_BLOBS_URL"
        )
