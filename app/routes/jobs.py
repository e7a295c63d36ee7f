"""`/v1/jobs`: how far documents have come on their way into the index."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from app.metrics import Metrics
from app.routes import replies
from app.routes.bodies import CollectionName, Strict, Time
from app.routes.caller import (
    Counters,
    Parts,
    Reader,
    Writer,
    reply,
    require_collections,
    stopping_of,
)
from app.routes.route import Exact
from app.sse import DONE, Connected, EventStream, event, first_of
from app.types import Principal
from app.wiring import Services
from ingestion.errors import NotFound
from ingestion.rules import breaches_json
from ingestion.types import Job, JobError, JobQuery, JobState

router = APIRouter(tags=["documents"], route_class=Exact)

UNFINISHED: tuple[JobState, ...] = ("queued", "running")
UNSUCCESSFUL: tuple[JobState, ...] = ("failed", "quarantined")
_REASON = r"^[a-z0-9_]{1,64}$"

Status = Annotated[JobState | None, Query(description="Only jobs in this state.")]
Reason = Annotated[
    str | None, Query(pattern=_REASON, description="Only jobs with this error code, as `needs_ocr`.")
]
Collection = Annotated[str | None, Query(max_length=200, description="Only of this collection.")]
Since = Annotated[
    Time | None, Query(description="Only accepted, or ended, at this time or later; UTC without an offset.")
]


class Which(Strict):
    """Which jobs to change. Nothing named means all that can be."""

    collection: CollectionName | None = None
    since: Time | None = Field(None, description="Accepted, or ended, at this time or later.")


class Named(Strict):
    ids: list[UUID] = Field(min_length=1, max_length=500)


class Cancelled(Which):
    status: Literal["queued", "running"] | None = Field(None, description="Only jobs in this state.")


class Retried(Which):
    status: Literal["failed", "quarantined", "cancelled"] | None = Field(
        None, description="Only jobs in this state. Without one, the failed and the quarantined."
    )
    reason: Annotated[str, Field(pattern=_REASON)] | None = Field(None, description="Only with this code.")


@router.get("/v1/jobs", summary="List jobs, the newest first", response_model=replies.JobsPage)
async def list_jobs(
    parts: Parts,
    caller: Reader,
    status: Status = None,
    reason: Reason = None,
    collection: Collection = None,
    since: Since = None,
    before: Annotated[str | None, Query(max_length=40, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Response:
    query = _query(caller, status, reason, collection, since)
    await _require(parts, caller, collection)
    jobs = await parts.intake.jobs(caller.tenant, query, limit=limit, before=before)
    older = jobs[-1].id if len(jobs) == limit else None
    return reply({"jobs": [job_json(job) for job in jobs], "next": older})


@router.get("/v1/jobs/summary", summary="Count jobs by state and reason", response_model=replies.JobCounts)
async def summary(
    parts: Parts, caller: Reader, status: Status = None, collection: Collection = None, since: Since = None
) -> Response:
    await _require(parts, caller, collection)
    tallies = await parts.intake.tally(caller.tenant, _query(caller, status, None, collection, since))
    states: dict[str, int] = {}
    for one in tallies:
        states[one.state] = states.get(one.state, 0) + one.jobs
    reasons = [{"status": one.state, "reason": one.reason, "jobs": one.jobs} for one in tallies if one.reason]
    return reply({"jobs": states, "reasons": reasons})


@router.post("/v1/jobs/cancel", summary="Cancel many jobs", response_model=replies.CancelledJobs)
async def cancel_many(body: Cancelled, parts: Parts, caller: Writer) -> Response:
    await _require(parts, caller, body.collection)
    states = (body.status,) if body.status else UNFINISHED
    query = JobQuery(states=states, collection=body.collection, since=body.since, groups=caller.groups)
    return reply({"cancelled": await parts.intake.cancel_jobs(caller.tenant, query)})


@router.post("/v1/jobs/retry", summary="Try many jobs again", response_model=replies.RetriedJobs)
async def retry_many(body: Retried, parts: Parts, caller: Writer) -> Response:
    await _require(parts, caller, body.collection)
    states = (body.status,) if body.status else UNSUCCESSFUL
    query = JobQuery(
        states=states,
        reason=body.reason,
        collection=body.collection,
        since=body.since,
        groups=caller.groups,
    )
    return reply({"retried": await parts.intake.retry_jobs(caller.tenant, query)})


@router.post("/v1/jobs/lookup", summary="Show many jobs by their ids", response_model=replies.JobsReply)
async def look_up(body: Named, parts: Parts, caller: Reader, metrics: Counters) -> Response:
    """Those that there are, in the order in which they were accepted."""
    query = JobQuery(groups=caller.groups, ids=tuple(str(one) for one in body.ids))
    jobs = await parts.intake.jobs(caller.tenant, query, limit=len(body.ids))
    for job in jobs:
        metrics.estimated(job)
    return reply({"jobs": [job_json(job) for job in reversed(jobs)]})


@router.get("/v1/jobs/{job_id}", summary="Show one job", response_model=replies.JobReply)
async def show(parts: Parts, caller: Reader, metrics: Counters, job_id: str) -> Response:
    job = await _job(parts, caller, job_id)
    metrics.estimated(job)
    return reply(job_json(job))


@router.get(
    "/v1/jobs/{job_id}/events",
    summary="Follow one job until it ends",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def events(request: Request, parts: Parts, caller: Reader, job_id: str, metrics: Counters) -> Response:
    """Server-sent events: the job whenever it changed, then `[DONE]`. When the service stops before that, an
    error event `service_stopping`: follow it again."""
    await _job(parts, caller, job_id)
    jobs = parts.intake.watch(caller.tenant, job_id)
    async with Connected(request.receive):
        first = await first_of(jobs)
    return EventStream(_told(first, jobs, metrics), until=stopping_of(request), failed=metrics.failure)


@router.post("/v1/jobs/{job_id}/cancel", summary="Cancel a job", response_model=replies.JobReply)
async def cancel(parts: Parts, caller: Writer, job_id: str) -> Response:
    await _job(parts, caller, job_id)
    return reply(job_json(await parts.intake.cancel(caller.tenant, job_id)))


@router.post("/v1/jobs/{job_id}/retry", summary="Try a failed job again", response_model=replies.JobReply)
async def retry(parts: Parts, caller: Writer, job_id: str) -> Response:
    await _job(parts, caller, job_id)
    return reply(job_json(await parts.intake.retry(caller.tenant, job_id)))


async def _require(parts: Services, caller: Principal, collection: str | None) -> None:
    if collection is not None:
        await require_collections(parts, caller, [collection])


async def _job(parts: Services, caller: Principal, job_id: str) -> Job:
    """The job, if the caller may read its document: a job tells the document's id."""
    job = await parts.intake.job(caller.tenant, job_id)
    if not await _readable(parts, caller, job):
        raise NotFound("job", job_id)
    return job


async def _readable(parts: Services, caller: Principal, job: Job) -> bool:
    if caller.groups is None:
        return True
    try:
        await parts.intake.get(caller.tenant, caller.groups, job.document_id)
    except NotFound:
        return False
    return True


def _query(
    caller: Principal,
    status: JobState | None,
    reason: str | None,
    collection: str | None,
    since: Time | None,
) -> JobQuery:
    return JobQuery(
        states=(status,) if status else (),
        reason=reason,
        collection=collection,
        since=since,
        groups=caller.groups,
    )


async def _told(
    first: Job | None, jobs: AsyncGenerator[Job, None], metrics: Metrics
) -> AsyncGenerator[bytes, None]:
    async with aclosing(jobs):
        if first is not None:
            metrics.estimated(first)
            yield event(job_json(first))
        async for job in jobs:
            metrics.estimated(job)
            yield event(job_json(job))
    yield DONE


def error_json(error: JobError | None) -> dict[str, Any] | None:
    return {"code": error.code, "message": error.message, "part": error.part} if error else None


def job_json(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "document_id": job.document_id,
        "version": job.version,
        "status": job.state,
        "stage": job.stage,
        "done": job.done,
        "total": job.total,
        "reused": job.reused,
        "position": job.position,
        "eta_seconds": job.eta_seconds,
        "priority": job.priority,
        "attempts": job.attempts,
        "part": job.part,
        "pulse": job.pulse,
        "moved_at": job.moved_at,
        "error": error_json(job.error),
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "warnings": breaches_json(job.warnings),
    }
