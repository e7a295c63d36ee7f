"""`plumbline jobs`: how far documents have come on their way into the index."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli import console

commands = typer.Typer(help="List, follow, cancel and retry jobs.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="The job's id.")]


@commands.command("list")
def list_jobs(
    status: Annotated[
        str | None,
        typer.Option(help="queued, running, succeeded, failed, quarantined, cancelled.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most this many.")] = 50,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """List jobs, the newest first."""
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        found = client.get("/v1/jobs", status=status, limit=limit)
    if as_json:
        console.show_json(found)
        return
    rows = [
        (one["id"], one["document_id"], one["status"], _progress(one), _why(one)) for one in found["jobs"]
    ]
    console.table(("id", "document", "status", "progress", "why"), rows, "There are no jobs.")


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
        console.show(client.get(f"/v1/jobs/{_in_path(job_id)}"), as_json)


@commands.command("cancel")
def cancel(
    job_id: Id,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Cancel a job that has not ended."""
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        console.show(client.post(f"/v1/jobs/{_in_path(job_id)}/cancel"), as_json)


@commands.command("retry")
def retry(
    job_id: Id,
    as_json: console.AsJson = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Try a job again that failed, was quarantined or cancelled."""
    from app.cli.client import connect

    with console.failures(), connect(url, key, data) as client:
        console.show(client.post(f"/v1/jobs/{_in_path(job_id)}/retry"), as_json)


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
        for job in client.events("GET", f"/v1/jobs/{_in_path(job_id)}/events"):
            line = f"{job['status']:<12} {job['stage']:<8} {_progress(job)} {_why(job)}"
            print(json.dumps(job) if as_json else line.rstrip(), flush=True)
    if job.get("status") != "succeeded":
        raise typer.Exit(console.FAILED)


def _progress(job: dict[str, Any]) -> str:
    if job["status"] == "queued" and job["position"] is not None:
        return f"{job['position']} ahead"
    return f"{job['done']}/{job['total']}" if job["total"] else ""


def _why(job: dict[str, Any]) -> str:
    error = job["error"]
    if not error:
        return ""
    part = f" ({error['part']})" if error["part"] else ""
    return f"{error['code']}: {error['message']}{part}"


def _in_path(job_id: str) -> str:
    from urllib.parse import quote

    return quote(job_id, safe="")
