"""`/v1/erase`, `/v1/erasures`: documents taken out of every store for good, with a signed receipt."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import AfterValidator, Field, model_validator
from starlette.responses import Response

from app.routes import filters, replies
from app.routes.bodies import AT_LEAST_ONE, CollectionName, DocumentId, Flag, Strict, not_empty
from app.routes.caller import Admin, Parts, named_at, reach, reply
from app.routes.route import Exact
from ingestion.types import Erasure, ErasureScope
from retrieval.types import Condition

router = APIRouter(tags=["documents"], route_class=Exact)

MOST_IDS = 1_000
Id = Annotated[
    str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", description="The erasure's id.")
]


class Chosen(Strict):
    """Documents by their ids, by what was said about them, or all of a collection."""

    ids: Annotated[list[DocumentId], AfterValidator(not_empty)] = Field(
        default=[], max_length=MOST_IDS, json_schema_extra=AT_LEAST_ONE
    )
    filter: dict[str, Any] = Field(default={}, description=filters.DESCRIPTION, examples=filters.EXAMPLES)
    collection: CollectionName | None = None

    @model_validator(mode="after")
    def _something(self) -> Chosen:
        if self.ids and (self.filter or self.collection is not None):
            raise ValueError("name `ids`, or else `filter`, `collection` or both")
        return self

    @property
    def named(self) -> bool:
        return bool(self.ids or self.filter or self.collection is not None)

    @property
    def collections(self) -> list[str]:
        return [] if self.collection is None else [self.collection]

    def where(self) -> Condition | None:
        return filters.condition(self.filter, "filter")


class ToErase(Chosen):
    tenant: Flag = Field(False, description="Everything of the key's tenant, feedback and trials included.")

    @model_validator(mode="after")
    def _one_of_them(self) -> ToErase:
        if self.tenant is self.named:
            raise ValueError("name `ids`, `filter`, `collection`, or set `tenant`")
        return self

    @property
    def scope(self) -> ErasureScope:
        if self.tenant:
            return "tenant"
        return "documents" if self.ids else "filter" if self.filter else "collection"


@router.post(
    "/v1/erase",
    status_code=202,
    summary="Erase documents from every store",
    response_model=replies.ErasureReply,
)
async def erase(parts: Parts, caller: Admin, body: ToErase) -> Response:
    """Once this is answered nobody is shown any of them. Ledger, index, files, outputs, logs and what the
    database keeps of rows that are gone follow; then there is a signed receipt.

    An id of which nothing is known, not as a deleted document's either, is misspelt or was erased before: the
    answer is 404, and nothing is erased.
    """
    which = await reach(parts, caller, body.collections, body.ids, body.where())
    with named_at("ids[]", body.ids):
        erasure = await parts.intake.erase(which, body.scope, caller.key_id or "local")
    return reply(erasure_json(erasure), 202)


@router.get("/v1/erasures", summary="List erasures", response_model=replies.ErasuresReply)
async def listed(parts: Parts, caller: Admin, limit: Annotated[int, Query(ge=1, le=500)] = 100) -> Response:
    found = await parts.intake.erasures(caller.tenant, limit)
    return reply({"erasures": [erasure_json(one) for one in found]})


@router.get(
    "/v1/erasures/{erasure_id}",
    summary="Show how far an erasure is",
    response_model=replies.ErasureWithReceipt,
)
async def show(parts: Parts, caller: Admin, erasure_id: Id) -> Response:
    """With its receipt, once it is finished."""
    erasure = await parts.intake.erasure(caller.tenant, erasure_id)
    finished = erasure.state == "finished"
    receipt = await asyncio.to_thread(parts.receipts.get, erasure.id) if finished else None
    return reply({**erasure_json(erasure), "receipt": receipt and receipt.whole})


def erasure_json(erasure: Erasure) -> dict[str, Any]:
    return {
        "id": erasure.id,
        "object": "erasure",
        "scope": erasure.scope,
        "state": erasure.state,
        "documents": erasure.documents,
        "stores": {
            name: {"state": one.state, "removed": one.removed, "detail": one.detail, "at": one.at}
            for name, one in erasure.stores.items()
        },
        "asked_at": erasure.asked_at,
        "finished_at": erasure.finished_at,
    }
