"""`/v1/key`: what the caller's key may do."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from app.routes import replies
from app.routes.caller import Anybody, reply
from app.routes.route import Exact

router = APIRouter(tags=["operation"], route_class=Exact)


@router.get("/v1/key", summary="Show what the key may do", response_model=replies.KeyReply)
async def show(caller: Anybody) -> Response:
    """Its tenant, its groups (null: every group) and its scopes, those that others include, too. `id` is null
    where no key is needed."""
    told = {
        "id": caller.key_id,
        "tenant": caller.tenant,
        "groups": None if caller.groups is None else sorted(caller.groups),
        "scopes": sorted(caller.scopes),
    }
    return reply(told, headers={"Cache-Control": "no-store"})
