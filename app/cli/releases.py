"""`plumbline release`: which releases there are, their indexes, and which one serves.

Trials of them are in `trials`, comparing two in `difference`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import console, difference, trials
from app.cli.paths import release as at
from app.cli.reference import Reason, Reference
from app.cli.servecommand import serve_command

commands = typer.Typer(
    help="List, add, try, promote and roll back releases; build their indexes.", no_args_is_help=True
)

commands.command("serve-command")(serve_command)

File = Annotated[Path, typer.Argument(help="Release file (TOML).")]


@commands.command("list")
def list_releases(
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """List releases, the newest first."""
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        found, standing = client.get("/v1/releases"), client.get("/v1/releases/standing")
    trials = [one for one in (standing["canary"], standing["shadow"]) if one]
    shares = {one["release"]: one["share"] if one["live"] else 0.0 for one in trials}
    listed = [{**one, "share": shares.get(one["id"])} for one in found["releases"]]
    if as_json:
        console.show_json({"releases": listed})
        return
    rows = [
        (one["id"], one["name"], _state(one), _evaluated(one), _share(one["share"]), one["forced"])
        for one in listed
    ]
    columns = ("id", "name", "state", "evaluated", "share", "forced")
    console.table(columns, rows, "There are no releases.")


@commands.command("show")
def show(
    release: Reference = "champion",
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Show a release; without a name, the one that serves."""
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        found = client.get(at(release))
    if as_json:
        console.show_json(found)
        return
    body = found.pop("release")
    console.show(found, as_json=False)
    console.say("")
    difference.show_keys(body)


@commands.command("validate")
def validate(file: File, as_json: console.AsJson = False) -> None:
    """Check a release file and print its fingerprint. Needs no service."""
    from app.release import load_release

    with console.failures():
        found = load_release(file)
        told = {"id": found.id, "name": found.name, "fingerprint": found.fingerprint}
    console.show(told, as_json)


@commands.command("add")
def add(file: File, as_json: console.AsJson = False, data: console.Data = None) -> None:
    """Register a release file as a draft, straight in the ledger."""
    import asyncio

    from app.cli.ledger import open_ledger
    from app.release import load_release
    from app.releases import Registered, Registry
    from app.settings import load_settings

    async def register() -> tuple[Registered, list[str]]:
        async with open_ledger(load_settings(data=data)) as engine:
            registry = Registry(engine)
            added = await registry.add(load_release(file))
            namesakes = [one.id for one in await registry.list() if one.name == added.name]
            return added, namesakes

    with console.failures():
        added, namesakes = asyncio.run(register())
    console.show({"id": added.id, "name": added.name, "state": added.state}, as_json)
    if len(namesakes) > 1:
        typer.echo(
            f"{len(namesakes)} releases are named {added.name}: the name means the newest, {namesakes[0]}.",
            err=True,
        )


@commands.command("judge")
def judge(
    verdict: Annotated[Path, typer.Argument(help="What `plumbline eval gate --out` wrote.")],
    as_json: console.AsJson = False,
    data: console.Data = None,
) -> None:
    """Keep the verdict of an evaluation against the release that serves; one that passed may be promoted."""
    import asyncio

    from app.cli.ledger import open_ledger
    from app.errors import ReleaseUnknown
    from app.releases import Registered, Registry
    from app.settings import load_settings

    async def keep(release: str, passed: bool, evidence: dict[str, Any]) -> Registered:
        async with open_ledger(load_settings(data=data)) as engine:
            return await Registry(engine).judge(release, evidence, passed=passed)

    release, passed, evidence = _read_verdict(verdict)
    with console.failures():
        try:
            judged = asyncio.run(keep(release, passed, evidence))
        except ReleaseUnknown:
            console.fail(f"Release {release} is not registered: `plumbline release add` its file first.")
    console.show({"id": judged.id, "name": judged.name, "passed": passed}, as_json)


def _read_verdict(file: Path) -> tuple[str, bool, dict[str, Any]]:
    """The release, whether it passed, and what is kept as evidence: on what, and which checks failed."""
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
        evidence = {
            "dataset": body["dataset"],
            "baseline": body["baseline"]["id"],
            "outcome": body["outcome"],
            "failed": [check["name"] for check in body["checks"] if not check["passed"]],
        }
        return str(body["candidate"]["id"]), body["passed"] is True, evidence
    except OSError as error:
        console.fail(f"Cannot read {file}: {error.strerror}.")
    except (ValueError, KeyError, TypeError):
        console.fail(
            f"{file} is not a verdict: write one with `plumbline eval gate BASELINE CANDIDATE --out VERDICT`."
        )


@commands.command("promote")
def promote(
    release: Reference,
    force: Annotated[
        bool, typer.Option("--force", help="Without a passed evaluation; needs a reason.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Let documents go that its index could not take.")
    ] = False,
    reason: Reason = "",
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Let a release serve."""
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        body = {"force": force, "allow_missing": allow_missing, "reason": reason}
        console.show(client.post(at(release, "promote"), body), as_json)


@commands.command("rollback")
def rollback(
    reason: Reason = "",
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Let the release before this one serve again."""
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        console.show(client.post("/v1/releases/rollback", {"reason": reason}), as_json)


@commands.command("build-index")
def build_index(
    release: Reference,
    wait: Annotated[bool, typer.Option(help="Stay until it is done; leaving earlier loses nothing.")] = True,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Embed and cut all documents as a release wants it, beside the index that serves. Run again, it goes on
    where it was, and tries again what failed."""
    from app.cli import building
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        status = building.build(client, at(release, "index"), wait=wait, quiet=as_json)
    if as_json:
        console.show_json(status)
    else:
        building.report(status)
    if status["documents"]["failed"]:
        raise typer.Exit(console.FAILED)


@commands.command("drop-index")
def drop_index(
    release: Reference,
    yes: console.Yes = False,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Give up an index that is being built."""
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        if not yes:
            console.confirm(f"Give up what was built of the index of {release}?", "nothing was given up")
        dropped = client.delete(at(release, "index"))
    if as_json:
        console.show_json(dropped)
    else:
        console.say(f"The index of release {dropped['release']} was given up; a worker removes it.")


def _evaluated(release: dict[str, Any]) -> str:
    evidence = release["evidence"] or {}
    if release["evaluated"]:
        return "passed"
    if evidence.get("withdrawn"):
        return "passed, then withdrawn"
    if evidence.get("outcome") == "no_verdict":
        return "no verdict"
    if evidence:
        return "failed"
    return "no (bootstrap)" if release["bootstrap"] else "no"


def _state(release: dict[str, Any]) -> str:
    return "bootstrap" if release["bootstrap"] and release["state"] == "champion" else str(release["state"])


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


trials.register(commands)
difference.register(commands)
