"""`plumbline serve` and `plumbline worker`: one process of the service each, on parts that run elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli import console


def register(commands: typer.Typer) -> None:
    commands.command("serve")(serve)
    commands.command("worker")(worker)
    commands.command("version")(version)


def serve(
    host: Annotated[
        str | None,
        typer.Option("--host", help="Address to listen on (PLUMBLINE_HOST).", show_default=False),
    ] = None,
    port: console.Port = None,
    data: console.Data = None,
) -> None:
    """Run the API. Needs DATABASE_URL, REDIS_URL and a store (such as MILVUS_URI), as `plumbline up` starts
    them."""
    from app.settings import load_settings
    from app.standalone import check_port

    with console.start_failures():
        from app import main

        settings = load_settings(host=host, port=port, data=data)
        check_port(settings.host, settings.port)
        main.run(settings)


def worker(
    data: console.Data = None,
    nice: Annotated[
        int, typer.Option(min=0, max=19, help="Lower its share of a busy processor, once it is ready.")
    ] = 0,
) -> None:
    """Run one worker, which indexes documents. Needs DATABASE_URL and a store (such as MILVUS_URI)."""
    import asyncio

    from app.settings import load_settings

    with console.start_failures():
        from app.cli.workerprocess import run

        asyncio.run(run(load_settings(data=data), nice))


def version(as_json: console.AsJson = False) -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    found = installed("plumbline")
    if as_json:
        console.show_json({"version": found})
    else:
        console.say(f"plumbline {found}")
