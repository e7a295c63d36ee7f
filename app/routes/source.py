"""`GET /v1/documents/{id}/text`: what a place in a document says, and what stands around it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from app import excerpts
from app.errors import RequestInvalid
from app.routes import replies
from app.routes.caller import Parts, Reader, reply
from app.routes.cited import span_json
from app.routes.documents import Id, only
from app.routes.route import Exact
from retrieval.types import Span

router = APIRouter(tags=["documents"], route_class=Exact)

LONGEST = 50_000
"""Characters that one request may ask for, and on each side of them at most a fifth of it."""

Place = Annotated[int, Query(ge=0, le=2**31, description="Character of the extracted text, from 0.")]


@router.get(
    "/v1/documents/{document_id}/text",
    summary="Show a place in a document",
    response_model=replies.PlaceReply,
)
async def text(
    parts: Parts,
    caller: Reader,
    document_id: Id,
    start: Place,
    end: Place,
    around: Annotated[
        int, Query(ge=0, le=LONGEST // 5, description="Characters before and after it.")
    ] = 1_000,
    chunk_id: Annotated[
        str | None,
        Query(max_length=40, pattern=r"^[0-9]{1,18}-[0-9]{1,9}$", description="The passage that named it."),
    ] = None,
) -> Response:
    """The text that a citation's span holds. With the citation's `chunk_id`, a document that was replaced
    since is not found, rather than shown at a place that means something else now."""
    if not 0 < end - start <= LONGEST:
        raise RequestInvalid(f"`end` must be greater than `start`, by at most {LONGEST:,}.", "end")
    where = only(caller, document_id)
    revision = None if chunk_id is None else int(chunk_id.split("-")[0])
    index, place = parts.current().index, Span(start, end)
    found = await excerpts.read(index, where, document_id, place, around, revision=revision)
    return reply(
        {
            "document_id": document_id,
            "title": found.chunk.title,
            "page": found.chunk.page,
            "heading": found.chunk.heading,
            "span": span_json(found.span),
            "before": found.before,
            "text": found.text,
            "after": found.after,
        }
    )
