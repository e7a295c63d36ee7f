"""`POST /v1/rerank`, and `/v2/rerank`, where Cohere's newer clients ask: Jina's and Cohere's shape, by the
release's reranker or else by its embedder.

`model` in the reply says which."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BeforeValidator, Field
from starlette.responses import Response

from app import deadline as time_left
from app.errors import ModelUnknown, RequestInvalid
from app.rerankers import rerank_seconds
from app.routes import replies
from app.routes.bodies import Flag, Strict, Text, Whole, such_as
from app.routes.caller import Deadline, Parts, Reader, reply
from app.routes.route import Route
from app.similarity import Similarity
from app.sse import Connected
from retrieval.errors import RerankerUnavailable
from retrieval.search import Index

MOST_DOCUMENTS = 512
LONGEST_DOCUMENT = 100_000
router = APIRouter(tags=["answers"], route_class=Route)


class RerankDocument(Strict):
    text: Annotated[Text, Field(max_length=LONGEST_DOCUMENT)]


def _as_document(given: Any) -> Any:
    """A text as a document. Of a union, errors would be told by the parser's names."""
    if isinstance(given, str):
        return {"text": given}
    if isinstance(given, dict):
        return given
    raise ValueError("a text is needed, or an object with a `text`")


class RerankRequest(Strict):
    model_config = such_as(
        {"query": "paid leave", "documents": ["Everybody has 28 days.", {"text": "It rains."}], "top_n": 1}
    )

    query: Text
    documents: Annotated[
        list[
            Annotated[
                RerankDocument,
                BeforeValidator(_as_document, json_schema_input_type=str | RerankDocument),
            ]
        ],
        Field(min_length=1, max_length=MOST_DOCUMENTS),
    ]
    model: str = Field("plumbline", max_length=200)
    top_n: Annotated[Whole, Field(ge=1)] | None = Field(None, description="At most so many; by default all.")
    return_documents: Flag = False


@router.post(
    "/v1/rerank", summary="Order texts by how well they answer a question", response_model=replies.RerankReply
)
@router.post("/v2/rerank", name="rerank_v2", summary="The same", response_model=replies.RerankReply)
async def rerank(
    body: RerankRequest, request: Request, parts: Parts, caller: Reader, deadline: Deadline
) -> Response:
    if not body.query.strip() or len(body.query) > parts.settings.question_limit:
        limit = parts.settings.question_limit
        raise RequestInvalid(f"The query must have 1 to {limit} characters.", "query")
    serving = parts.current()
    index = serving.index
    names = [index.reranker.name] if index.reranker else []
    if body.model not in ("plumbline", *names, index.embedder.spec.name):
        known = " and ".join(repr(name) for name in ("plumbline", *names, index.embedder.spec.name))
        raise ModelUnknown(f"The reranking model {body.model!r} does not serve here; {known} do.")
    texts = [one.text for one in body.documents]
    async with (
        Connected(request.receive),
        parts.admission.turn(caller.tenant, deadline),
        time_left.within(deadline, "reranking"),
    ):
        seconds = rerank_seconds(serving.release, deadline)
        model, scores = await _scored(index, caller.tenant, body, texts, seconds)
    order = sorted(range(len(texts)), key=lambda number: (-scores[number], number))[: body.top_n]
    results = [_result(number, scores[number], texts, body.return_documents) for number in order]
    return reply({"model": model, "results": results})


async def _scored(
    index: Index, tenant: str, body: RerankRequest, texts: list[str], seconds: float
) -> tuple[str, list[float]]:
    """The model that answered, and scores in [0, 1]; a cosine below 0 counts as 0."""
    embedder, reranker = index.embedder, index.reranker
    if reranker is not None and body.model != embedder.spec.name:
        # One that is down is known by the name in the reply.
        with suppress(RerankerUnavailable):
            return reranker.name, list(await reranker.rerank(body.query, texts, seconds))
    cosines = await Similarity(embedder).score(tenant, body.query, texts)
    return embedder.spec.name, [min(1.0, max(0.0, cosine)) for cosine in cosines]


def _result(number: int, score: float, texts: list[str], with_text: bool) -> dict[str, Any]:
    document = {"document": {"text": texts[number]}} if with_text else {}
    return {"index": number, "relevance_score": score, **document}
