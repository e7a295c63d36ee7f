"""`POST /v1/embeddings`: OpenAI's shape, by the embedder of the serving release."""

from __future__ import annotations

import asyncio
import base64
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BeforeValidator, Field
from starlette.responses import Response

from app import deadline as time_left
from app.errors import ModelUnknown, RequestInvalid
from app.routes import replies
from app.routes.bodies import Strict, Text, Whole, such_as
from app.routes.caller import Deadline, Parts, Reader, reply
from app.routes.route import Route
from app.sse import Connected
from retrieval.embedders.prefixed import SPECIAL_TOKENS, behind
from retrieval.types import Embedder, Side, Vector

MOST_TEXTS = 512
LONGEST_TEXT = 100_000
router = APIRouter(tags=["answers"], route_class=Route)


def _several(value: Any) -> Any:
    if isinstance(value, list) and any(isinstance(one, int | list) for one in value):
        # LangChain does, unless it is told otherwise.
        raise ValueError(
            "token ids are not taken, send texts; with LangChain: check_embedding_ctx_length=False"
        )
    return [value] if isinstance(value, str) else value


class EmbeddingsRequest(Strict):
    model_config = such_as({"input": ["paid leave", "gateway outage"], "encoding_format": "base64"})

    input: Annotated[
        list[Annotated[Text, Field(min_length=1, max_length=LONGEST_TEXT)]],
        BeforeValidator(_several, json_schema_input_type=str | list[str]),
        Field(min_length=1, max_length=MOST_TEXTS),
    ]
    model: str = Field("plumbline", max_length=200)
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Whole | None = None
    input_type: Side | None = Field(
        None,
        description="What the texts are: the prefix that the release has for it goes before each. By default "
        "they are embedded as they are.",
    )
    user: str | None = None


@router.post("/v1/embeddings", summary="Embed texts", response_model=replies.EmbeddingsReply)
async def embeddings(
    body: EmbeddingsRequest, request: Request, parts: Parts, caller: Reader, deadline: Deadline
) -> Response:
    embedder = parts.embedder
    spec = embedder.spec
    if body.model not in ("plumbline", spec.name):
        raise ModelUnknown(f"The embedding model {body.model!r} does not serve here; {spec.name!r} does.")
    if body.dimensions not in (None, spec.dimension):
        raise RequestInvalid(f"{spec.name} has {spec.dimension} dimensions.", "dimensions")
    async with (
        Connected(request.receive),
        parts.admission.turn(caller.tenant, deadline),
        time_left.within(deadline, "embedding"),
    ):
        matrix = await embedder.embed(body.input, body.input_type)
        # A full request takes a fifth of a second, for which every other one would wait.
        tokens = await asyncio.to_thread(_tokens, embedder, body.input, body.input_type)
    data = [
        {"object": "embedding", "index": i, "embedding": _encoded(vector, body.encoding_format)}
        for i, vector in enumerate(matrix)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return reply({"object": "list", "data": data, "model": spec.name, "usage": usage})


def _encoded(vector: Vector, encoding: Literal["float", "base64"]) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(x) for x in np.asarray(vector)]


def _tokens(embedder: Embedder, texts: list[str], side: Side | None) -> int:
    """Tokens of the texts behind their prefix, with the special ones that frame each."""
    read = behind(embedder.spec.prefixes.of(side), texts)
    return sum(len(embedder.token_spans(text)) + SPECIAL_TOKENS for text in read)
