"""`GET /v1/models`: what a caller may name as `model`, in OpenAI's shape."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from app.errors import ModelUnknown
from app.releases import MODEL
from app.routes.caller import Parts, Reader, champion_id, reply
from app.wiring import Services

router = APIRouter(tags=["releases"])


@router.get("/v1/models", summary="List models")
async def list_models(parts: Parts, caller: Reader) -> Response:
    return reply({"object": "list", "data": _models(parts)})


@router.get("/v1/models/{model}", summary="Show one model")
async def show(parts: Parts, caller: Reader, model: str) -> Response:
    for one in _models(parts):
        if one["id"] == model:
            return reply(one)
    raise ModelUnknown(f"The model {model!r} does not exist. /v1/models lists those that do.")


def _models(parts: Services) -> list[dict[str, Any]]:
    release_id = champion_id(parts)
    champion = parts.release.champion()
    told = {
        "object": "model",
        "created": 0,
        "owned_by": "plumbline",
        "plumbline": {
            "release": release_id,
            "name": champion.release.name,
            "state": champion.state,
            "models": [model.name for model in champion.release.body.models],
        },
    }
    return [{"id": MODEL, **told}, {"id": f"{MODEL}@{release_id}", **told}]
