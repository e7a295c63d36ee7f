"""`plumbline migrate`: the schema of the ledger's database, to this version's or back to an earlier one."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli import console


def register(commands: typer.Typer) -> None:
    commands.command("migrate")(migrate)


def migrate(
    to: Annotated[
        str | None,
        typer.Option(
            help="Back to this schema, before an earlier version takes over: its refusal to start names it. "
            "What later ones keep is lost.",
            show_default=False,
        ),
    ] = None,
    yes: console.Yes = False,
    as_json: console.AsJson = False,
    data: console.Data = None,
) -> None:
    """Bring the database to this version's schema, as every process does when it starts; or back, with --to,
    once every process is stopped."""
    import asyncio

    from app import instance
    from app import migrate as schema
    from app.cli.ledger import open_database
    from app.settings import load_settings

    async def act() -> str:
        settings = load_settings(data=data)
        if to is not None and instance.running(settings.data):
            console.fail(f"An instance runs on {settings.data}: stop it first (plumbline stop).")
        async with open_database(settings) as url:
            await (schema.upgrade(url) if to is None else schema.downgrade(url, to))
            return await schema.applied(url)

    with console.failures():
        if to is not None and not yes:
            console.confirm(
                f"Take the database back to the schema {to}, and lose what later ones keep?",
                "nothing was changed",
            )
        now = asyncio.run(act())
    if as_json:
        console.show_json({"schema": now})
    else:
        console.say(f"The database has the schema {now or 'of nothing'}.")
