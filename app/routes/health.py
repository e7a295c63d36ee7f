"""`/health/live`, `/health/ready` and `/metrics`: for supervisors, load balancers and Prometheus.

They need no key and tell nothing about tenants or documents, and of a part that is down no address, path or
driver: `plumbline doctor` tells those where it runs.
"""

from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response

from app.metrics import CONTENT_TYPE
from app.problems import told_as
from app.routes import replies
from app.routes.caller import Counters, Parts, reply
from app.routes.route import Route
from app.wiring import Services
from ingestion.errors import LedgerUnavailable

router = APIRouter(tags=["operation"], route_class=Route)

PATIENCE = 2.0
NEEDED = frozenset({"ledger", "store"})
"""Without these nothing can be answered; without another, answers are degraded and say so, or, without files,
no document can be handed in."""


# Load balancers ask with HEAD.
@router.head("/health/live", include_in_schema=False)
@router.get("/health/live", summary="Whether the process runs", response_model=replies.Live)
async def live() -> Response:
    return reply({"status": "live"})


@router.head("/health/ready", include_in_schema=False)
@router.get(
    "/health/ready",
    summary="Whether questions can be answered, and what is down",
    responses={503: {"model": replies.Ready, "description": "None can; the body is the same."}},
    response_model=replies.Ready,
)
async def ready(parts: Parts) -> Response:
    states = await _states(parts)
    down = [name for name, state in states.items() if state != "up"]
    status = "ready" if not down else "degraded" if NEEDED.isdisjoint(down) else "not ready"
    champion = parts.release.champion()
    told = {
        "status": status,
        "parts": states,
        "down": down,
        "release": champion.release.id,
        "release_state": champion.state,
        "release_forced": champion.forced,
    }
    return reply(told, 503 if status == "not ready" else 200, {"Cache-Control": "no-store"})


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(parts: Parts, counters: Counters) -> Response:
    counters.admission(parts.admission.running, parts.admission.waiting)
    counters.serving(parts.release.standing())
    counters.trials(parts.shadow.counts, parts.outcomes.lost)
    counters.parts({name: state == "up" for name, state in (await _states(parts)).items()})
    counters.disk(await asyncio.to_thread(_free, parts.settings.data))
    try:
        async with asyncio.timeout(PATIENCE):
            counters.queue(await parts.intake.operation())
            counters.reused(await parts.intake.embeddings_reused())
    except (LedgerUnavailable, TimeoutError):
        counters.queue(None)
    return Response(counters.text(), media_type=CONTENT_TYPE)


def _free(folder: Path) -> float:
    """Bytes free where the folder is; NaN when that cannot be told."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return math.nan


async def _states(parts: Services) -> dict[str, str]:
    """Each part's: `up`, or what is wrong with it."""
    checks = parts.health()
    return dict(zip(checks, await asyncio.gather(*map(_state, checks.values())), strict=True))


async def _state(check: Callable[[], Awaitable[None]]) -> str:
    try:
        async with asyncio.timeout(PATIENCE):
            await check()
    except TimeoutError:
        return f"no answer in {PATIENCE:g} s"
    except Exception as error:  # noqa: BLE001 - whatever a part fails with, it is down
        return f"down: {told_as(error)[1]}"
    return "up"
