"""`plumbline jobs`: how far documents have come on their way into the index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import console, paths
from app.printable import readable

if TYPE_CHECKING:
    from app.cli.client import Client

commands = typer.Typer(help="List, follow, cancel and retry jobs.", invoke_without_command=True)

Id = Annotated[str, typer.Argument(help="The job's id.")]
Ids = Annotated[list[str] | None, typer.Argument(help="Ids of jobs.", metavar="[ID]...")]
Status = Annotated[
    str | None,
    typer.Option(help="queued, running, succeeded, failed, quarantined, cancelled.", show_default=False),
]
Reason = Annotated[
    str | None, typer.Option(help="Of this error code only, as needs_ocr.", show_default=False)
]
Collection = Annotated[str | None, typer.Option(help="Of this collection only.", show_default=False)]
Since = Annotated[
    str | None,
    typer.Option(help="Accepted or ended then or later: 2026-11-26, 2026-11-26T18:00.", show_default=False),
]
Limit = Annotated[int, typer.Option(min=1, max=500, help="At most this many.")]


@commands.callback()
def jobs(
    context: typer.Context,
    status: Status = None,
    reason: Reason = None,
    collection: Collection = None,
    since: Since = None,
    limit: Limit = 50,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """List jobs, the newest first, unless a command is named."""
    if context.invoked_subcommand is None:
        list_jobs(status, reason, collection, since, limit, as_json, url, key, data)


@commands.command("list")
def list_jobs(
    status: Status = None,
    reason: Reason = None,
    collection: Collection = None,
    since: Since = None,
    limit: Limit = 50,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """List jobs, the newest first."""
    from app.cli.client import connect

    which = {"status": status, "reason": reason, "collection": collection, "since": _moment(since)}
    with console.failures(), connect(url, key, data) as client:
        found = client.get("/v1/jobs", **which, limit=limit)
    if as_json:
        console.show_json(found)
        return
    rows = [
        (one["id"], one["document_id"], _state(one), _progress(one), _left(one), _why(one))
        for one in found["jobs"]
    ]
    console.table(("id", "document", "status", "progress", "left", "why"), rows, "There are no jobs.")


@commands.command("summary")
def summary(
    collection: Collection = None,
    since: Since = None,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Count jobs by state, and those that did not succeed by reason."""
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        found = client.get("/v1/jobs/summary", collection=collection, since=_moment(since))
    if as_json:
        console.show_json(found)
        return
    told = {(one["status"], one["reason"]): one["jobs"] for one in found["reasons"]}
    rows = [(state, "", jobs) for state, jobs in found["jobs"].items()]
    rows += [(f"  {state}", reason, jobs) for (state, reason), jobs in told.items()]
    console.table(("status", "reason", "jobs"), rows, "There are no jobs.")


@commands.command("workers")
def workers(
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """List the workers, what they hold, and whether they are heard of."""
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        found = client.get("/v1/workers")
    if as_json:
        console.show_json(found)
        return
    rows = [
        (one["name"], one["state"], _held(one["jobs"]), one["version"], one["started_at"], one["beat_at"])
        for one in found["workers"]
    ]
    heads = ("worker", "state", "holds", "version", "started", "heard of")
    console.table(heads, rows, "No worker told of itself: start one with `plumbline worker`.")


@commands.command("show")
def show(
    job_id: Id,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Show one job."""
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        console.show(client.get(paths.job(job_id)), as_json)


@commands.command("cancel")
def cancel(
    job_ids: Ids = None,
    status: Annotated[str | None, typer.Option(help="queued or running.", show_default=False)] = None,
    collection: Collection = None,
    since: Since = None,
    every: Annotated[bool, typer.Option("--all", help="All that have not ended.")] = False,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Cancel jobs that have not ended: by id, or all that the options name."""
    from app.cli.client import connect

    which = {"status": status, "collection": collection, "since": _moment(since)}
    with console.failures(), connect(url, key, data) as client:
        _change(client, "cancel", "cancelled", job_ids or [], which, every, as_json)


@commands.command("retry")
def retry(
    job_ids: Ids = None,
    status: Annotated[
        str | None, typer.Option(help="failed, quarantined or cancelled.", show_default=False)
    ] = None,
    reason: Reason = None,
    collection: Collection = None,
    since: Since = None,
    every: Annotated[bool, typer.Option("--all", help="All that failed or were quarantined.")] = False,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Try jobs again that failed, were quarantined or cancelled: by id, or all that the options name."""
    from app.cli.client import connect

    which = {"status": status, "reason": reason, "collection": collection, "since": _moment(since)}
    with console.failures(), connect(url, key, data) as client:
        _change(client, "retry", "retried", job_ids or [], which, every, as_json)


@commands.command("watch")
def watch(
    job_id: Id,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Follow a job until it ends; fails unless it succeeds."""
    import json

    from app.cli.client import connect

    job: dict[str, Any] = {}
    with console.failures(), connect(url, key, data) as client:
        for job in client.events("GET", paths.job(job_id, "events")):
            line = f"{job['status']:<12} {job['stage']:<8} {_progress(job)} {_why(job)}"
            print(json.dumps(job) if as_json else readable(line.rstrip()), flush=True)
    if job.get("status") != "succeeded":
        raise typer.Exit(console.FAILED)


def _change(
    client: Client,
    verb: str,
    done: str,
    job_ids: Sequence[str],
    which: Mapping[str, str | None],
    every: bool,
    as_json: bool,
) -> None:
    """Change the jobs named, or those that are meant."""
    meant = {name: value for name, value in which.items() if value is not None}
    if bool(job_ids) == (bool(meant) or every):
        console.fail("Name jobs by their ids, or say which with options (--all: every one).", console.USAGE)
    if job_ids:
        jobs = [client.post(path) for path in [paths.job(job_id, verb) for job_id in job_ids]]
        if as_json:
            console.show_json({"jobs": jobs})
        for job in jobs if not as_json else ():
            console.say(f"{job['id']} {job['document_id']} {job['status']}")
        return
    told = client.post(f"/v1/jobs/{verb}", meant)
    if as_json:
        console.show_json(told)
    else:
        console.say(f"{told[done]} jobs {done}")


def _moment(given: str | None) -> str | None:
    """A date or a time as the service takes it; without a zone, this machine's is meant."""
    from datetime import datetime

    if given is None:
        return None
    try:
        return datetime.fromisoformat(given).astimezone().isoformat()
    except ValueError:
        console.fail(f"--since {given!r} is no date: write 2026-11-26 or 2026-11-26T18:00.", console.USAGE)


def _state(job: dict[str, Any]) -> str:
    return f"running, {job['pulse']}" if job.get("pulse") in ("slow", "lost") else str(job["status"])


def _progress(job: dict[str, Any]) -> str:
    if job["status"] == "queued" and job["position"] is not None:
        return f"{job['position']} ahead"
    if job["status"] == "running" and job.get("part"):
        return str(job["part"])
    return f"{job['done']}/{job['total']}" if job["total"] else ""


def _left(job: dict[str, Any]) -> str:
    return "" if job["eta_seconds"] is None else console.duration(job["eta_seconds"])


def _held(jobs: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {stage}" for stage, count in sorted(jobs.items()))


def _why(job: dict[str, Any]) -> str:
    error = job["error"]
    if not error:
        return ""
    part = f" ({error['part']})" if error["part"] else ""
    return f"{error['code']}: {error['message']}{part}"
