"""`plumbline up` and `plumbline stop`: a whole instance on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli import console


def register(commands: typer.Typer) -> None:
    commands.command("up")(up)
    commands.command("stop")(stop)


def up(
    data: console.Data = None,
    host: Annotated[
        str | None,
        typer.Option("--host", help="Address to listen on (PLUMBLINE_HOST).", show_default=False),
    ] = None,
    port: console.Port = None,
    release: Annotated[
        Path | None,
        typer.Option(
            help="Release file that a new instance starts with (PLUMBLINE_RELEASE).", show_default=False
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Serve this model with vLLM: its name, or the folder it is in.", show_default=False
        ),
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample/--no-sample", help="Fill a new instance with the sample corpus.")
    ] = True,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show every line of every part, and every request.")
    ] = False,
) -> None:
    """Start the parts that no URL names, a worker and the API; stop them all at Ctrl-C."""
    import asyncio
    import os

    from app import otel
    from app.child import StartFailed
    from app.cli.firstrun import FirstRun
    from app.embedded import EmbeddedError
    from app.instance import InstanceError
    from app.settings import load_settings
    from app.standalone import PortTaken, Standalone

    os.umask(0o077)  # What an instance writes is for its own user.
    with console.failures():
        settings = load_settings(data=data, host=host, port=port, release=release)
        otel.require_usable()
        settings = settings.model_copy(update={"data": settings.data.resolve()})
        first_run = FirstRun(settings, console.say, sample=sample)
        try:
            standalone = Standalone(settings, console.say, model, verbose=verbose, at_ready=first_run)
            asyncio.run(standalone.run())
        except (InstanceError, PortTaken, EmbeddedError, StartFailed) as error:
            console.fail(str(error), console.CANNOT_START)


def stop(data: console.Data = None) -> None:
    """Stop the instance that runs on a data folder, and wait until it has."""
    from app import instance
    from app.settings import load_settings

    with console.failures():
        settings = load_settings(data=data)
        if instance.stop(settings.data):
            console.say("stopped")
        else:
            console.say(f"Nothing runs on {settings.data}.")
