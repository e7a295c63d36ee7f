"""`/v1/releases`: which releases there are, which serves, and moving the pointer between them."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path
from pydantic import Field
from starlette.responses import Response

from app.releases import Registered
from app.routes.bodies import Strict, Text
from app.routes.caller import Admin, Parts, Reader, champion_id, reply
from app.types import Principal

router = APIRouter(tags=["releases"])

Reference = Annotated[str, Path(max_length=100, description="Id, the beginning of one, or name.")]


class Promotion(Strict):
    force: bool = Field(False, description="Promote without a passed evaluation; needs a reason.")
    reason: Text = Field("", max_length=2_000)


class Rollback(Strict):
    reason: Text = Field("", max_length=2_000)


@router.get("/v1/releases", summary="List releases, the newest first")
async def list_releases(parts: Parts, caller: Reader) -> Response:
    return reply({"releases": [_json(one) for one in await parts.release.list()]})


@router.get("/v1/releases/champion", summary="Show the release that serves")
async def champion(parts: Parts, caller: Reader) -> Response:
    served = parts.release.champion()
    body = orjson.loads(served.release.canonical())
    told = {"id": champion_id(parts), "name": served.release.name, "state": served.state, "release": body}
    return reply(told)


@router.get("/v1/releases/{reference}", summary="Show one release")
async def show(parts: Parts, caller: Reader, reference: Reference) -> Response:
    found = await parts.release.show(reference)
    return reply({**_json(found), "release": orjson.loads(found.release.canonical())})


@router.post("/v1/releases/rollback", summary="Let the champion before this one serve again")
async def rollback(body: Rollback, parts: Parts, caller: Admin) -> Response:
    return reply(_json(await parts.release.rollback(reason=body.reason, who=_who(caller))))


@router.post("/v1/releases/{reference}/promote", summary="Let a release serve")
async def promote(body: Promotion, parts: Parts, caller: Admin, reference: Reference) -> Response:
    promoted = await parts.release.promote(reference, force=body.force, reason=body.reason, who=_who(caller))
    return reply(_json(promoted))


def _who(caller: Principal) -> str:
    return f"key {caller.key_id}" if caller.key_id else "local user"


def _json(found: Registered) -> dict[str, Any]:
    return {
        "id": found.id,
        "name": found.name,
        "state": found.state,
        "bootstrap": found.bootstrap,
        "evaluated": bool(found.evidence and found.evidence.get("passed")),
        "evidence": found.evidence,
        "created_at": found.created_at,
    }
