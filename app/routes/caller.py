"""What every route asks about a request first: the service's parts, who is calling, how long it may take."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, cast

import orjson
from fastapi import Depends, Header, Request
from fastapi.dependencies.models import Dependant
from pydantic import WithJsonSchema
from starlette.responses import Response

from app import access, deadline, telemetry
from app.admission import Admission
from app.assignment import Assigned
from app.errors import RequestInvalid
from app.metrics import Metrics
from app.types import Principal, Scope
from app.wiring import Services
from ingestion.errors import NotFound
from llm.types import Caching
from retrieval.types import Condition, Filter

LONGEST_TIMEOUT = 600.0
SHORTEST_TIMEOUT = 0.05


def services_of(request: Request) -> Services:
    return cast(Services, request.state.services)


def uploads_of(request: Request) -> Admission:
    """Bounds how many uploads are held in memory at once."""
    return cast(Admission, request.state.uploads)


def stopping_of(request: Request) -> asyncio.Event:
    """Set once this process was told to stop."""
    return cast(asyncio.Event, request.state.stopping)


def metrics_of(request: Request) -> Metrics:
    return cast(Metrics, request.state.metrics)


# Dependencies that are not `async` would each cost a hop to a thread.
async def _services(request: Request) -> Services:
    return services_of(request)


async def _metrics(request: Request) -> Metrics:
    return metrics_of(request)


_CALLER = "plumbline.caller"
_IN_FULL = "plumbline.in_full"


class Needs:
    """A dependency: the caller, who must have one of these scopes, or, where none is named, just a key.
    Routes ask it before they read a body, so that nobody without a key has one parsed; then it is known."""

    def __init__(self, *scopes: Scope) -> None:
        self.scopes = scopes

    async def __call__(self, request: Request) -> Principal:
        known: Principal | None = request.scope.get(_CALLER)
        if known is None:
            known = await services_of(request).access.authenticate(caller_of(request))
            if self.scopes:
                access.require(known, *self.scopes)
            request.scope[_CALLER] = known
            if self.scopes == ("operate",):
                request.scope[_IN_FULL] = True
        return known


def in_full(request: Request) -> bool:
    """Whether the caller operates the instance, by this very request: who does must hear why a part fails."""
    return _IN_FULL in request.scope


def caller_of(request: Request) -> access.Caller:
    headers = request.headers
    return access.Caller(
        authorization=headers.get("authorization"), host=headers.get("host"), origin=headers.get("origin")
    )


def needs_of(dependant: Dependant) -> Needs | None:
    """What an endpoint asks of its callers' keys; None of one that answers anybody."""
    if isinstance(dependant.call, Needs):
        return dependant.call
    return next((found for one in dependant.dependencies if (found := needs_of(one))), None)


_Timeout = Annotated[
    str | None,
    Header(description="Seconds that the answer may take; clamped."),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0}),
]


async def _deadline(request: Request, x_request_timeout: _Timeout = None) -> float:
    return deadline_of(request, x_request_timeout)


def deadline_of(request: Request, x_request_timeout: str | None) -> float:
    seconds = services_of(request).settings.request_timeout
    if x_request_timeout is not None:
        try:
            seconds = float(x_request_timeout)
        except ValueError:
            seconds = float("nan")
        if not seconds > 0:
            raise RequestInvalid("X-Request-Timeout must be a number of seconds.", "X-Request-Timeout")
    return deadline.after(min(max(seconds, SHORTEST_TIMEOUT), LONGEST_TIMEOUT))


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What a route that answers questions asks about a request, in one dependency: each one more costs a
    question a tenth of what the whole frame around it does."""

    parts: Services
    metrics: Metrics
    caller: Principal
    deadline: float


def inquiry_of(request: Request, caller: Principal, x_request_timeout: str | None) -> Inquiry:
    return Inquiry(
        parts=services_of(request),
        metrics=metrics_of(request),
        caller=caller,
        deadline=deadline_of(request, x_request_timeout),
    )


async def _inquire(request: Request, caller: Reader, x_request_timeout: _Timeout = None) -> Inquiry:
    return inquiry_of(request, caller, x_request_timeout)


Anybody = Annotated[Principal, Depends(Needs())]
"""Whoever has a key, whatever it may do."""
Reader = Annotated[Principal, Depends(Needs("read"))]
Writer = Annotated[Principal, Depends(Needs("write"))]
Admin = Annotated[Principal, Depends(Needs("admin"))]
"""Of the key's own tenant."""
Operator = Annotated[Principal, Depends(Needs("operate"))]
"""Of the whole instance."""
Spectator = Annotated[Principal, Depends(Needs("read", "operate"))]
Holder = Annotated[Principal, Depends(Needs("admin", "operate"))]
"""Who may hold a queue back: their tenant's, or everybody's."""
Asked = Annotated[Inquiry, Depends(_inquire)]
Parts = Annotated[Services, Depends(_services)]
Counters = Annotated[Metrics, Depends(_metrics)]
Deadline = Annotated[float, Depends(_deadline)]


async def reach(
    parts: Services,
    caller: Principal,
    collections: Sequence[str] = (),
    document_ids: Sequence[str] = (),
    where: Condition | None = None,
    *,
    place: str = "collection",
) -> Filter:
    """What the caller may read of these; a collection that is not there is an error, not an empty result."""
    await require_collections(parts, caller, collections, place)
    return access.filter_for(caller, collections, document_ids, where)


async def require_collections(
    parts: Services, caller: Principal, names: Sequence[str], place: str = "collection"
) -> None:
    """Raise `NotFound` for the first of these that is not there: a misspelt one would look like one without
    documents."""
    if names:
        with named_at(place, names):
            await parts.intake.require_collections(caller.tenant, caller.groups, names)


@contextmanager
def named_at(place: str, names: Sequence[str]) -> Iterator[None]:
    """Has what is not found told with its place in the request: `place`, whose `[]` is that in a list."""
    try:
        yield
    except NotFound as missing:
        if missing.name in names:
            missing.param = place.replace("[]", f"[{names.index(missing.name)}]")
        raise


def caching(assigned: Assigned, asked: bool) -> Caching:
    """What a request does with kept outputs: as its release is tried, else as its caller asked."""
    return (assigned.caching or "use") if asked else "off"


def champion_id(parts: Services) -> str:
    """The release that serves now, noted on the request's log lines, span and response."""
    release_id = parts.release.champion().release.id
    telemetry.set_release(release_id)
    return release_id


def reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, media_type="application/json")
