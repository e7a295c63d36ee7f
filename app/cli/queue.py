"""`plumbline queue`: how the queue of documents stands, holding it back and letting it go."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli import console

POLL = 0.5
commands = typer.Typer(help="Show, pause, drain and resume the queue.", no_args_is_help=True)

All = Annotated[bool, typer.Option("--all", help="The queues of all tenants, not this key's alone.")]
Why = Annotated[str, typer.Option("--reason", help="Shown to those who wait.", show_default=False)]


@commands.command("show")
def show(
    everybody: All = False,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Show what waits and runs, how fast it goes, and what holds it back."""
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        _tell(client.get(_path(everybody)), as_json)


@commands.command("pause")
def pause(
    everybody: All = False,
    reason: Why = "",
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Let no job begin until the queue is resumed. Documents are accepted all the same."""
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        _tell(client.post("/v1/queue/pause", {"everybody": everybody, "reason": reason}), as_json)


@commands.command("resume")
def resume(
    everybody: All = False,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """End a pause."""
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        _tell(client.post("/v1/queue/resume", {"everybody": everybody}), as_json)


@commands.command("drain")
def drain(
    everybody: All = False,
    reason: Why = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until nothing runs any more.")] = True,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Let no job begin, and wait until what runs is finished: to stop or upgrade what stands behind it."""
    import time

    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        now = client.post("/v1/queue/drain", {"everybody": everybody, "reason": reason})
        while wait and now["state"] == "draining":
            time.sleep(POLL)
            now = client.get(_path(everybody))
    _tell(now, as_json)
    if wait and now["state"] != "drained":
        console.fail("The queue was resumed while it drained.")


def _path(everybody: bool) -> str:
    return "/v1/queue/everybody" if everybody else "/v1/queue"


def _tell(queue: dict[str, Any], as_json: bool) -> None:
    if as_json:
        console.show_json(queue)
        return
    rate, eta, oldest = queue["rate"], queue["eta_seconds"], queue["oldest_seconds"]
    size = queue["queued_bytes"] / 2**20
    held_up = [f"{count} by {code}" for code, count in sorted(queue["held_up"].items())]
    told = {
        "state": queue["state"],
        "waiting": f"{queue['queued']} documents, {size:.1f} MiB",
        "running": queue["running"],
        "oldest": None if oldest is None else console.duration(oldest),
        "held up": ", ".join(held_up),
        "rate": None if rate is None else f"{rate:.1f} documents/s",
        "left": "not known" if eta is None else console.duration(eta),
        "workers": queue["workers"],
    }
    console.show(told, as_json=False)
    for one in queue["pauses"]:
        whose = "all queues" if one["everybody"] else "this queue"
        console.say(f"{one['mode']:<14} {whose} since {one['since']}: {one['reason'] or 'no reason given'}")
