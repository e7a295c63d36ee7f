"""`POST /v1/search`: passages that match a question, best first."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response
from starlette.types import Receive

from app import pages, telemetry
from app.assignment import Conversation, digest
from app.errors import RequestInvalid
from app.outcomes import facts_of_search
from app.releases import MODEL
from app.routes import replies
from app.routes.bodies import Selection, Text, Whole, such_as
from app.routes.caller import Asked, Inquiry, reach, reply
from app.routes.cited import span_json
from app.routes.route import Route
from app.sse import Connected
from app.watched import watched
from retrieval.types import Hit

router = APIRouter(tags=["answers"], route_class=Route)


class SearchRequest(Selection):
    model_config = such_as(
        {"query": "gateway outage", "limit": 5},
        {
            "query": "gateway outage",
            "collection": "default",
            "filter": {"year": {"$gte": 2024}},
            "group": "document",
        },
    )

    model: str = Field(MODEL, min_length=1, max_length=200, description="`plumbline@<release>` for one.")
    query: Text = Field(description="What to look for, in plain words.")
    limit: Annotated[Whole, Field(ge=1, le=100)] | None = Field(
        None, description="At most this many hits; by default as many as the release says."
    )
    group: Literal["chunk", "document"] = Field(
        "chunk", description="`document` gives the best passage of each document."
    )
    after: str | None = Field(
        None,
        max_length=pages.LONGEST,
        description="`next` of the page before, with the same question: the best hits that no page had yet.",
    )


@router.post("/v1/search", summary="Find passages", response_model=replies.SearchReply)
async def search(body: SearchRequest, request: Request, inquiry: Asked) -> Response:
    return reply(await hits_of(body, inquiry, request.receive))


async def hits_of(body: SearchRequest, inquiry: Inquiry, receive: Receive) -> dict[str, Any]:
    """What is found, as it is told. Raises `ClientGone` when the caller hangs up meanwhile."""
    parts, caller, deadline = inquiry.parts, inquiry.caller, inquiry.deadline
    _check_query(body.query, parts.settings.question_limit)
    told = _told(body)
    where = await reach(parts, caller, body.names, body.document_ids, body.where(), place=body.place)

    def named() -> str:
        return digest("search", caller.tenant, body.model_dump_json(exclude={"after"}))

    assigned = await parts.assigner.assign(body.model, caller, Conversation(named), named)
    telemetry.set_release(assigned.serving.release.id)
    name, limit = telemetry.request_id(), body.limit or assigned.serving.release.search.limit
    with watched(
        parts.outcomes, assigned, kind="search", tenant=caller.tenant, answer=name, deadline=deadline
    ) as watch:
        async with Connected(receive), parts.admission.turn(caller.tenant, deadline) as place:
            found, release_id = await parts.search.find(
                body.query,
                where,
                deadline=deadline,
                limit=limit + len(told.digests),
                group_by_document=body.group == "document",
                pressure=place.pressure,
                serving=assigned.serving,
            )
        if assigned.enrolled:
            watch.facts = facts_of_search(found, watch.seconds)
    inquiry.metrics.degraded(found.degraded)
    telemetry.tell_degraded(found.degraded)
    hits, following = told.page(found.hits, limit)
    return {
        "hits": [hit_json(hit) for hit in hits],
        "next": following,
        "degraded": list(found.degraded),
        "release": release_id,
    }


def _told(body: SearchRequest) -> pages.Told:
    try:
        return pages.Told.read(body.after, documents=body.group == "document")
    except ValueError:
        raise RequestInvalid("`after` is `next` of the page before.", "after") from None


def hit_json(hit: Hit) -> dict[str, Any]:
    chunk = hit.chunk
    return {
        "document_id": chunk.document_id,
        "chunk_id": chunk.id,
        "score": float(hit.score),
        "title": chunk.title,
        "heading": chunk.heading,
        "text": chunk.text,
        "page": chunk.page,
        "span": span_json(chunk.span),
        "collection": chunk.collection,
        "metadata": dict(chunk.metadata),
    }


def _check_query(query: str, limit: int) -> None:
    if not query.strip():
        raise RequestInvalid("The query is empty.", "query")
    if len(query) > limit:
        raise RequestInvalid(
            f"The query has {len(query)} characters; at most {limit} are searched for. Shorten it.",
            "query",
            "context_length_exceeded",
        )
