"""`GET /v1/models`: what a caller may name as `model`, in OpenAI's shape."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from app.errors import ModelUnknown
from app.release import Release
from app.releases import MODEL
from app.routes import replies
from app.routes.caller import Parts, Reader, champion_id, reply
from app.routes.route import Route
from app.wiring import Services

router = APIRouter(tags=["releases"], route_class=Route)


@router.get("/v1/models", summary="List models", response_model=replies.ModelsReply)
async def list_models(parts: Parts, caller: Reader) -> Response:
    return reply({"object": "list", "data": _models(parts)})


@router.get("/v1/models/{model}", summary="Show one model", response_model=replies.ModelReply)
async def show(parts: Parts, caller: Reader, model: str) -> Response:
    for one in _models(parts):
        if one["id"] == model:
            return reply(one)
    raise ModelUnknown(f"The model {model!r} does not exist. /v1/models lists those that do.")


def _models(parts: Services) -> list[dict[str, Any]]:
    """The champion under both of its names, and whatever else gets requests."""
    standing = parts.release.standing()
    champion = standing.champion
    served = _model(champion_id(parts), champion.release, champion.state, champion.forced)
    others = []
    if standing.canary and standing.canary.live:
        others.append(_model(standing.canary.release.id, standing.canary.release, "canary"))
    if standing.soaking:
        others.append(_model(standing.soaking.id, standing.soaking, "soaking"))
    return [{**served, "id": MODEL}, served, *others]


def _model(release_id: str, release: Release, state: str, forced: str | None = None) -> dict[str, Any]:
    return {
        "id": f"{MODEL}@{release_id}",
        "object": "model",
        "created": 0,
        "owned_by": "plumbline",
        "plumbline": {
            "release": release_id,
            "name": release.name,
            "state": state,
            "forced": forced,
            "models": [model.name for model in release.body.models],
        },
    }
