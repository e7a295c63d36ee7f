"""`plumbline keys`: who may call. Straight in the ledger, because the first key is made before any exists."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from app.cli import console

if TYPE_CHECKING:
    from pathlib import Path

    from app.access import Access, Key
    from app.types import Scope

T = TypeVar("T")
Reference = Annotated[str, typer.Argument(help="Id, or a name that only one key has.")]
Expires = Annotated[
    datetime | None, typer.Option(help="When the new key stops, in UTC. Default: never.", show_default=False)
]
commands = typer.Typer(help="Make, list, replace and revoke keys.", no_args_is_help=True)


@commands.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    tenant: Annotated[str, typer.Option(help="Tenant it belongs to; made if it is new.")] = "default",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="read, write, admin (a tenant's owner: all groups, rules, erasures), operate (the instance: "
            "releases, everybody's queues, workers) or evaluate; repeatable. Default: read.",
            show_default=False,
        ),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="Group whose documents it may read; repeatable.", show_default=False),
    ] = None,
    expires: Expires = None,
    as_json: console.AsJson = False,
    data: console.Data = None,
) -> None:
    """Make a key. Its secret is shown once and kept nowhere."""
    scopes = _scopes(scope or ["read"])
    groups = frozenset(group) if group else None

    async def make(access: Access) -> tuple[Key, str]:
        return await access.create_key(
            tenant, name, groups=groups, scopes=scopes, expires_at=_in_utc(expires)
        )

    with console.failures():
        made, secret = _in_ledger(data, make)
    _show_made(made, secret, as_json)
    if "write" in scopes and "admin" not in scopes and not groups:
        typer.echo(
            "It may add no documents: it adds for its own groups only, and has none. Name some with --group.",
            err=True,
        )


@commands.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Of this tenant only.", show_default=False)] = None,
    as_json: console.AsJson = False,
    data: console.Data = None,
) -> None:
    """List keys, without their secrets."""

    async def read(access: Access) -> list[Key]:
        return await access.list_keys(tenant)

    with console.failures():
        found = _in_ledger(data, read)
    if as_json:
        console.show_json({"keys": [_told(key) for key in found]})
        return
    rows = [
        (
            *(key.id, key.name, key.tenant, f"{key.prefix}…{key.last4}", " ".join(sorted(key.scopes))),
            "all" if key.groups is None else " ".join(sorted(key.groups)),
            _minute(key.used_at) or "never",
            _minute(key.expires_at),
            "" if key.state == "active" else key.state,
        )
        for key in found
    ]
    columns = ("id", "name", "tenant", "key", "scopes", "groups", "last used", "expires", "")
    console.table(columns, rows, "There are no keys.")


@commands.command("rotate")
def rotate(
    reference: Reference,
    grace: Annotated[
        int, typer.Option(help="Seconds for which the old key goes on beside the new one.", min=0)
    ] = 0,
    expires: Expires = None,
    as_json: console.AsJson = False,
    data: console.Data = None,
) -> None:
    """Put another key in the place of one, that may the same. Its secret is shown once."""

    async def replace(access: Access) -> tuple[Key, str]:
        return await access.rotate_key(reference, grace=grace, expires_at=_in_utc(expires))

    with console.failures():
        made, secret = _in_ledger(data, replace)
    _show_made(made, secret, as_json)


@commands.command("revoke")
def revoke(
    reference: Reference,
    yes: console.Yes = False,
    as_json: console.AsJson = False,
    data: console.Data = None,
) -> None:
    """Revoke a key; within two seconds it opens nothing."""

    async def end(access: Access) -> Key:
        return await access.revoke_key(reference)

    with console.failures():
        if not yes:
            console.confirm(f"Revoke the key {reference}, for good?", "nothing was revoked")
        gone = _in_ledger(data, end)
    if as_json:
        console.show_json(_told(gone))
    else:
        console.say(f"Key {gone.id} ({gone.name}) is revoked.")


def _in_ledger(data: Path | None, act: Callable[[Access], Awaitable[T]]) -> T:
    import asyncio

    from app.access import Access
    from app.cli.ledger import open_ledger
    from app.settings import load_settings

    async def run() -> T:
        async with open_ledger(load_settings(data=data)) as engine:
            return await act(Access(engine))

    return asyncio.run(run())


def _scopes(names: list[str]) -> list[Scope]:
    from app.access import SCOPES

    unknown = sorted(set(names) - set(SCOPES))
    if unknown:
        console.fail(f"Unknown scope {unknown[0]!r}: {', '.join(SCOPES)}.", console.USAGE)
    return [scope for scope in SCOPES if scope in names]


def _show_made(made: Key, secret: str, as_json: bool) -> None:
    if as_json:
        console.show_json({**_told(made), "key": secret})
        return
    console.say(f"Key {made.id} for {made.name} of tenant {made.tenant}. This is shown once:")
    console.say(secret)


def _in_utc(moment: datetime | None) -> datetime | None:
    return moment and moment.replace(tzinfo=moment.tzinfo or UTC)


def _minute(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M") if moment else ""


def _told(key: Key) -> dict[str, Any]:
    from app.access import key_json

    return key_json(key)
