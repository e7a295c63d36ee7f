"""`/v1/queue` and `/v1/workers`: how the queue stands, who works on it, holding it back and letting it go.

A pause lets nothing more begin; what runs is finished. Documents are accepted all the same. A queue that is
drained says so when nothing runs any more, to stop or upgrade what stands behind it.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from app import access
from app.routes import replies
from app.routes.bodies import Flag, Strict, Text
from app.routes.caller import Holder, Operator, Parts, Reader, reply
from app.routes.releases import who
from app.routes.route import Exact
from app.routes.uploads import MOST_DOCUMENTS
from app.types import Principal
from ingestion.types import Pause, Queue, WorkerStatus

router = APIRouter(tags=["operation"], route_class=Exact)


class Held(Strict):
    everybody: Flag = Field(
        False, description="The queues of all tenants, not this key's alone; takes the scope `operate`."
    )
    reason: Text = Field("", max_length=500, description="Shown to those who wait.")


class Resumed(Strict):
    everybody: Flag = Field(
        False, description="The pause of all tenants, not this one's own; takes the scope `operate`."
    )


@router.get("/v1/queue", summary="Show how the queue stands", response_model=replies.OwnQueueReply)
async def show(parts: Parts, caller: Reader) -> Response:
    """This tenant's jobs; pauses of all tenants hold them back, too. `limits` tells what is accepted:
    bytes of a document, documents of a request, and how many of them, and of how many bytes, may wait."""
    limits = {**asdict(parts.intake.limits), "request_documents": MOST_DOCUMENTS}
    return reply({**queue_json(await parts.intake.queue(caller.tenant)), "limits": limits})


@router.get(
    "/v1/queue/everybody",
    summary="Show how the queue of all tenants stands",
    response_model=replies.QueueReply,
)
async def show_all(parts: Parts, caller: Operator) -> Response:
    return reply(queue_json(await parts.intake.queue(None)))


@router.post(
    "/v1/queue/pause",
    summary="Let no job begin until the queue is resumed",
    response_model=replies.QueueReply,
)
async def pause(body: Held, parts: Parts, caller: Holder) -> Response:
    tenant = _whose(body, caller)
    return reply(queue_json(await parts.intake.pause(tenant, "paused", reason=body.reason, who=who(caller))))


@router.post(
    "/v1/queue/drain",
    summary="Let no job begin, and say when none runs any more",
    response_model=replies.QueueReply,
)
async def drain(body: Held, parts: Parts, caller: Holder) -> Response:
    tenant = _whose(body, caller)
    return reply(
        queue_json(await parts.intake.pause(tenant, "draining", reason=body.reason, who=who(caller)))
    )


@router.post("/v1/queue/resume", summary="End a pause", response_model=replies.QueueReply)
async def resume(body: Resumed, parts: Parts, caller: Holder) -> Response:
    return reply(queue_json(await parts.intake.resume(_whose(body, caller))))


@router.get(
    "/v1/workers", summary="List the workers that told of themselves", response_model=replies.WorkersReply
)
async def workers(parts: Parts, caller: Operator) -> Response:
    return reply({"workers": [_worker_json(one) for one in await parts.intake.workers()]})


def _whose(body: Held | Resumed, caller: Principal) -> str | None:
    """The tenant whose queue is meant, None for everybody's; if the caller may."""
    access.require(caller, "operate" if body.everybody else "admin")
    return None if body.everybody else caller.tenant


def queue_json(queue: Queue) -> dict[str, Any]:
    return {
        "state": queue.state,
        "queued": queue.queued,
        "queued_bytes": queue.queued_bytes,
        "running": queue.running,
        "oldest_seconds": queue.oldest_seconds,
        "held_up": dict(queue.held_up),
        "rate": queue.rate,
        "eta_seconds": queue.eta_seconds,
        "workers": queue.workers,
        "pauses": [_pause_json(pause) for pause in queue.pauses],
    }


def _pause_json(pause: Pause) -> dict[str, Any]:
    """Who held back all tenants is nobody's business but the operator's."""
    return {
        "everybody": pause.tenant is None,
        "mode": pause.mode,
        "reason": pause.reason,
        "since": pause.since,
    }


def _worker_json(worker: WorkerStatus) -> dict[str, Any]:
    return {
        "name": worker.name,
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "state": worker.state,
        "jobs": dict(worker.jobs),
        "started_at": worker.started_at,
        "beat_at": worker.beat_at,
    }
