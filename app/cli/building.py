"""An index while it is built, as `plumbline release build-index` shows it. The work is the service's: whoever
watches may leave at any moment."""

from __future__ import annotations

import time
from typing import Any

from app.cli import console
from app.cli.client import Client

INTERVAL = 0.5


def build(client: Client, path: str, *, wait: bool, quiet: bool) -> Any:
    """Start or go on, and with `wait` follow it until nothing is left to do; how far it is then."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    status = client.post(path)
    columns = ("building", BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"))
    idle = not (wait and status["documents"]["left"])
    with Progress(*columns, console=Console(stderr=True), disable=quiet or idle) as shown:
        task = shown.add_task("", told="")
        while wait and status["documents"]["left"]:
            documents = status["documents"]
            done = documents["done"] + documents["failed"]
            shown.update(task, completed=done, total=documents["total"], told=_told(status))
            begun = time.monotonic()
            status = client.get(path)
            # Counting a large index takes a while itself.
            time.sleep(INTERVAL + 2 * (time.monotonic() - begun))
    return status


def report(status: Any) -> None:
    """What became of it, and what to do next."""
    documents, cost = status["documents"], status["cost"]
    if status["state"] in ("serving", "rollback"):
        console.say(
            f"There is nothing to build: release {status['release']} cuts and embeds text as an index does "
            f"that is kept up to date, with {documents['done']} documents in {cost['chunks']} chunks."
        )
        return
    console.say(
        f"{documents['done']} of {documents['total']} documents in {cost['chunks']} chunks, about "
        f"{cost['tokens_estimate']} tokens, {cost['embedding_seconds']:.1f} s of embedding."
    )
    for reason, count in status["failures"].items():
        console.say(f"{count} could not be put into it: {reason}.")
    if documents["left"]:
        console.say(f"{documents['left']} are left. {_told(status)}".rstrip())
    elif status["state"] == "building":
        console.say(
            f"It is ready. Try the release with `plumbline release shadow {status['release']}` or `canary`, "
            f"or let it serve with `plumbline release promote {status['release']}`."
        )


def _told(status: Any) -> str:
    if status["trouble"]:
        return str(status["trouble"])
    left, embedding = status["eta_seconds"], status["cost"]["embedding_seconds_left"]
    if left is None or embedding is None:
        return ""
    return f"{left:.0f} s left, {embedding:.0f} s of them embedding"
