"""`/v1/jobs`: how far documents have come on their way into the index."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.routes.caller import Counters, Parts, Reader, Writer, reply
from app.sse import DONE, Connected, EventStream, event, first_of
from app.types import Principal
from app.wiring import Services
from ingestion.errors import NotFound
from ingestion.types import Job, JobState

router = APIRouter(tags=["documents"])


@router.get("/v1/jobs", summary="List jobs, the newest first")
async def list_jobs(
    parts: Parts,
    caller: Reader,
    status: Annotated[JobState | None, Query(description="Only jobs in this state.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Response:
    jobs = await parts.intake.jobs(caller.tenant, state=status, limit=limit)
    return reply({"jobs": [job_json(job) for job in jobs if await _readable(parts, caller, job)]})


@router.get("/v1/jobs/{job_id}", summary="Show one job")
async def show(parts: Parts, caller: Reader, job_id: str) -> Response:
    return reply(job_json(await _job(parts, caller, job_id)))


@router.get("/v1/jobs/{job_id}/events", summary="Follow one job until it ends")
async def events(request: Request, parts: Parts, caller: Reader, job_id: str, metrics: Counters) -> Response:
    """Server-sent events: the job whenever it changed, then `[DONE]`."""
    await _job(parts, caller, job_id)
    jobs = parts.intake.watch(caller.tenant, job_id)
    async with Connected(request.receive):
        first = await first_of(jobs)
    return EventStream(_told(first, jobs), failed=metrics.failure)


@router.post("/v1/jobs/{job_id}/cancel", summary="Cancel a job")
async def cancel(parts: Parts, caller: Writer, job_id: str) -> Response:
    await _job(parts, caller, job_id)
    return reply(job_json(await parts.intake.cancel(caller.tenant, job_id)))


@router.post("/v1/jobs/{job_id}/retry", summary="Try a failed job again")
async def retry(parts: Parts, caller: Writer, job_id: str) -> Response:
    await _job(parts, caller, job_id)
    return reply(job_json(await parts.intake.retry(caller.tenant, job_id)))


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


async def _told(first: Job | None, jobs: AsyncGenerator[Job, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(jobs):
        if first is not None:
            yield event(job_json(first))
        async for job in jobs:
            yield event(job_json(job))
    yield DONE


def job_json(job: Job) -> dict[str, Any]:
    error = job.error
    return {
        "id": job.id,
        "document_id": job.document_id,
        "version": job.version,
        "status": job.state,
        "stage": job.stage,
        "done": job.done,
        "total": job.total,
        "position": job.position,
        "eta_seconds": job.eta_seconds,
        "attempts": job.attempts,
        "error": error and {"code": error.code, "message": error.message, "part": error.part},
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
    }
