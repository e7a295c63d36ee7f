"""`/v1/releases`: which releases there are, which serves, their indexes, moving the pointer.

Trials of them are in `trials`.
"""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path
from pydantic import Field
from starlette.responses import Response

from app.releases import Registered
from app.routes import replies
from app.routes.bodies import Flag, Strict, Text
from app.routes.caller import Operator, Parts, Spectator, champion_id, reply
from app.routes.route import Exact
from app.types import Principal
from ingestion.types import Build

router = APIRouter(tags=["releases"], route_class=Exact)

Reference = Annotated[str, Path(max_length=100, description="Id, the beginning of one, or name.")]


class Promotion(Strict):
    force: Flag = Field(False, description="Promote without a passed evaluation; needs a reason.")
    allow_missing: Flag = Field(
        False, description="Let documents go that could not be put into the release's index."
    )
    reason: Text = Field("", max_length=2_000)


class Rollback(Strict):
    reason: Text = Field("", max_length=2_000)


@router.get("/v1/releases", summary="List releases, the newest first", response_model=replies.ReleasesReply)
async def list_releases(parts: Parts, caller: Spectator) -> Response:
    return reply({"releases": [release_json(one) for one in await parts.release.list()]})


@router.get(
    "/v1/releases/champion", summary="Show the release that serves", response_model=replies.ChampionReply
)
async def champion(parts: Parts, caller: Spectator) -> Response:
    served = parts.release.champion()
    body = orjson.loads(served.release.canonical())
    told = {"id": champion_id(parts), "name": served.release.name, "state": served.state}
    return reply({**told, "forced": served.forced, "release": body})


@router.get("/v1/releases/{reference}", summary="Show one release", response_model=replies.WholeRelease)
async def show(parts: Parts, caller: Spectator, reference: Reference) -> Response:
    found = await parts.release.show(reference)
    return reply({**release_json(found), "release": orjson.loads(found.release.canonical())})


@router.post(
    "/v1/releases/rollback",
    summary="Let the champion before this one serve again",
    response_model=replies.ReleaseReply,
)
async def rollback(body: Rollback, parts: Parts, caller: Operator) -> Response:
    return reply(release_json(await parts.promotions.rollback(reason=body.reason, who=who(caller))))


@router.post(
    "/v1/releases/{reference}/promote", summary="Let a release serve", response_model=replies.ReleaseReply
)
async def promote(body: Promotion, parts: Parts, caller: Operator, reference: Reference) -> Response:
    promoted = await parts.promotions.promote(
        reference,
        force=body.force,
        allow_missing=body.allow_missing,
        reason=body.reason,
        who=who(caller),
    )
    return reply(release_json(promoted))


@router.post(
    "/v1/releases/{reference}/index",
    summary="Build a release's index, or go on building it",
    response_model=replies.IndexReply,
    status_code=202,
)
async def build_index(parts: Parts, caller: Operator, reference: Reference) -> Response:
    found = await parts.release.show(reference)
    return reply(_index(found, await parts.indexes.build(found.release)), 202)


@router.get(
    "/v1/releases/{reference}/index",
    summary="Show how far a release's index is",
    response_model=replies.IndexReply,
)
async def show_index(parts: Parts, caller: Operator, reference: Reference) -> Response:
    found = await parts.release.show(reference)
    return reply(_index(found, await parts.indexes.status(found.release)))


@router.delete(
    "/v1/releases/{reference}/index",
    summary="Give up an index that is being built",
    response_model=replies.DroppedIndex,
)
async def drop_index(parts: Parts, caller: Operator, reference: Reference) -> Response:
    found = await parts.release.show(reference)
    await parts.indexes.discard(found.release)
    return reply({"release": found.id, "state": "retired"})


def who(caller: Principal) -> str:
    return f"key {caller.key_id}" if caller.key_id else "local user"


def _index(found: Registered, build: Build) -> dict[str, Any]:
    return {
        "release": found.id,
        "generation": build.generation,
        "state": build.state,
        "documents": {
            "total": build.documents,
            "done": build.done,
            "failed": sum(build.failed.values()),
            "left": build.behind,
        },
        "failures": dict(build.failed),
        "trouble": build.trouble,
        "cost": {
            "chunks": build.chunks,
            "tokens_estimate": build.tokens,
            "embedding_seconds": round(build.embedding_seconds, 3),
            "embedding_seconds_left": _rounded(build.embedding_seconds_left),
        },
        "eta_seconds": _rounded(build.eta_seconds),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def release_json(found: Registered) -> dict[str, Any]:
    return {
        "id": found.id,
        "name": found.name,
        "state": found.state,
        "bootstrap": found.bootstrap,
        "evaluated": found.evaluated,
        "forced": found.forced,
        "evidence": found.evidence,
        "created_at": found.created_at,
    }
