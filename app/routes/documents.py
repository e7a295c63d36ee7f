"""`/v1/documents`: hand in, list, read, replace and delete documents.

An answer 202 promises that the document is kept; its job says when it can be found.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import BaseModel, Field, model_validator
from starlette.responses import Response

from app import access, telemetry
from app.errors import Forbidden
from app.passages import Passages
from app.routes import replies, uploads
from app.routes.bodies import Flag
from app.routes.caller import (
    Deadline,
    Parts,
    Reader,
    Writer,
    reach,
    reply,
    require_collections,
    uploads_of,
)
from app.routes.cited import span_json
from app.routes.conditional import (
    NOT_MODIFIED,
    Known,
    OfAddition,
    OfChange,
    OfPut,
    headers_of,
    tagged,
    unchanged,
)
from app.routes.erasures import Chosen
from app.routes.jobs import error_json, job_json
from app.routes.route import Exact
from app.types import Principal
from app.wiring import Services
from ingestion.errors import Refused
from ingestion.intake import known_form
from ingestion.rules import breaches_json
from ingestion.types import Document, Expected, NewDocument
from retrieval.types import Chunk, Filter

router = APIRouter(tags=["documents"], route_class=Exact)

_FIRST = "documents[0]."
"""Where intake finds what is wrong with a document, in a request that holds no list of them."""
MOST_NAMED = 1_000
"""Ids in the answer to a deletion."""

Id = Annotated[str, Path(max_length=200, description="The document's id.")]
IdempotencyKey = Annotated[
    str | None,
    Header(pattern=r"^[\x21-\x7e]{1,200}$", description="The same key hands the same documents in once."),
]


class ToDelete(Chosen):
    dry_run: Flag = Field(False, description="Only say which documents these are.")

    @model_validator(mode="after")
    def _named(self) -> ToDelete:
        if not self.named:
            raise ValueError("name `ids`, `filter` or `collection`")
        return self


def _in_schema(*schemas: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """A request body in several types, for the OpenAPI document."""
    content = {kind: {"schema": schema} for kind, schema in schemas}
    return {"requestBody": {"required": True, "content": content}}


def _named(model: type[BaseModel]) -> dict[str, Any]:
    """One of the schemas that `app.description` adds."""
    return {"$ref": f"#/components/schemas/{model.__name__}"}


_FILE = {"type": "string", "format": "binary"}
_SAID = {
    "collection": {"type": "string", "default": "default"},
    "groups": {"type": "array", "items": {"type": "string"}},
    "metadata": {"type": "string", "description": "A JSON object."},
    "title": {"type": "string"},
    "id": {"type": "string"},
    "priority": {"type": "string", "description": "high, normal, low, or a number from -10 to 10."},
}
_QUERY = [
    {"name": name, "in": "query", "schema": _SAID.get(name, {"type": "string"})}
    for name in uploads.QUERY_FIELDS
]
_FORM = {
    "type": "object",
    "required": ["files"],
    "properties": {"files": {"type": "array", "items": _FILE}, **_SAID},
}


@router.post(
    "/v1/documents",
    status_code=202,
    summary="Hand in documents",
    openapi_extra=_in_schema(
        ("multipart/form-data", _FORM),
        ("application/json", _named(uploads.JsonDocuments)),
    ),
    response_model=replies.JobsAccepted,
)
async def add(
    request: Request,
    parts: Parts,
    caller: Writer,
    deadline: Deadline,
    expected: OfAddition,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Files in a form, or up to 1 000 texts as JSON. A document whose id is known is replaced."""
    async with uploads_of(request).turn(caller.tenant, deadline):
        documents = await uploads.documents_of(request)
        return await _hand_in(parts, caller, documents, idempotency_key, expected)


@router.put(
    "/v1/documents/{document_id}",
    status_code=202,
    summary="Hand in or replace one document",
    openapi_extra={
        **_in_schema(
            ("application/octet-stream", _FILE),
            ("multipart/form-data", _FORM),
            ("application/json", _named(uploads.OneJsonDocument)),
        ),
        "parameters": _QUERY,
    },
    response_model=replies.JobsAccepted,
)
async def put(
    request: Request,
    parts: Parts,
    caller: Writer,
    document_id: Id,
    deadline: Deadline,
    expected: OfPut,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """The body is the file itself (what to say about it goes into the query), a form, or JSON."""
    async with uploads_of(request).turn(caller.tenant, deadline):
        document = await uploads.document_of(request, document_id)
        try:
            return await _hand_in(parts, caller, [document], idempotency_key, expected)
        except Refused as error:
            error.param = (error.param or "").removeprefix(_FIRST) or None
            raise


async def _hand_in(
    parts: Services,
    caller: Principal,
    documents: list[NewDocument],
    idempotency_key: str | None,
    expected: Expected | None,
) -> Response:
    _require_own(caller, documents)
    if any(document.priority > 0 for document in documents) and "admin" not in caller.scopes:
        raise Forbidden("A priority above normal takes a key with the scope `admin`.")
    jobs = await parts.intake.put(
        caller.tenant,
        documents,
        idempotency_key=idempotency_key,
        traceparent=telemetry.traceparent(),
        groups=caller.groups,
        expected=expected,
    )
    return reply({"jobs": [job_json(job) for job in jobs]}, 202)


def _require_own(caller: Principal, documents: list[NewDocument]) -> None:
    """A key of some groups writes for those groups only."""
    if caller.groups is None:
        return
    for document in documents:
        if not document.groups or not document.groups <= caller.groups:
            own = ", ".join(sorted(caller.groups)) or "none"
            raise Forbidden(f"Name `groups` among this key's ({own}): it may write for those only.")


@router.get(
    "/v1/documents",
    summary="List documents",
    response_model=replies.DocumentsReply,
    responses=NOT_MODIFIED,
)
async def list_documents(
    parts: Parts,
    caller: Reader,
    known: Known,
    collection: Annotated[str | None, Query(max_length=200)] = None,
    named: Annotated[
        str,
        Query(max_length=200, description="Words that all stand in a document's title, file name or id."),
    ] = "",
    after: Annotated[str | None, Query(max_length=1_000, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Response:
    """In the order of their ids: whoever goes on with `next` meets every document that was there all the time
    once, whatever comes and goes meanwhile."""
    found = await documents_of(parts, caller, collection=collection, named=named, after=after, limit=limit)
    return tagged(found, known)


async def documents_of(
    parts: Services,
    caller: Principal,
    *,
    collection: str | None,
    named: str,
    after: str | None,
    limit: int,
) -> dict[str, Any]:
    """A page of the documents that the caller may read, as they are told."""
    if collection is not None:
        await require_collections(parts, caller, [collection])
    found, cursor = await parts.intake.list_documents(
        caller.tenant, caller.groups, collection=collection, named=named, after=after, limit=limit
    )
    return {"documents": [document_json(one) for one in found], "next": cursor}


@router.get(
    "/v1/documents/{document_id}",
    summary="Show one document",
    response_model=replies.DocumentReply,
    responses=NOT_MODIFIED,
)
async def show(parts: Parts, caller: Reader, document_id: Id, known: Known) -> Response:
    """Its `ETag`, sent back in `If-Match` with a PUT or DELETE, keeps that from undoing another's change."""
    document = await parts.intake.get(caller.tenant, caller.groups, document_id)
    return tagged(document_json(document), known, document.version)


@router.delete(
    "/v1/documents/{document_id}", summary="Delete one document", response_model=replies.DeletedDocument
)
async def delete(parts: Parts, caller: Writer, document_id: Id, expected: OfChange) -> Response:
    """No request that starts after the reply uses its text, from anywhere."""
    gone = await parts.intake.delete(caller.tenant, caller.groups, document_id, expected)
    return reply({"id": gone.id, "object": "document.deleted", "deleted": True})


@router.post(
    "/v1/documents/delete",
    summary="Delete documents by ids, metadata or collection",
    response_model=replies.DeletedDocuments,
)
async def delete_all(parts: Parts, caller: Writer, body: ToDelete) -> Response:
    """No request that starts after the reply uses their text. Ids of documents that are not there, or that
    the key may not read, are left out."""
    which = await reach(parts, caller, body.collections, body.ids, body.where())
    if body.dry_run:
        ids = await parts.intake.matching(which)
        return reply({**_deletion_json(ids), "deleted": False, "dry_run": True})
    return reply(_deletion_json([one.id for one in await parts.intake.delete_all(which)]))


@router.delete(
    "/v1/collections/{name}",
    summary="Delete a collection with its documents",
    response_model=replies.DeletedCollection,
)
async def delete_collection(
    parts: Parts, caller: Writer, name: Annotated[str, Path(max_length=200)]
) -> Response:
    """Of a key of some groups: those of its documents that the key can read."""
    gone = await parts.intake.delete_collection(access.filter_for(caller, [name]))
    return reply({**_deletion_json([one.id for one in gone]), "collection": name})


@router.get(
    "/v1/documents/{document_id}/content",
    summary="Download the original file",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {"schema": _FILE}, "*/*": {"schema": _FILE}}},
        **NOT_MODIFIED,
    },
)
async def content(parts: Parts, caller: Reader, document_id: Id, known: Known) -> Response:
    if known:
        now = await parts.intake.get(caller.tenant, caller.groups, document_id)
        if same := unchanged(str(now.version), known):
            return same
    document, original = await parts.intake.original(caller.tenant, caller.groups, document_id)
    headers = {
        **headers_of(str(document.version)),
        "Content-Disposition": _attachment(document.filename or document.id),
        # What was uploaded must not run as a page of this origin, whatever it says it is.
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    return Response(original, headers=headers, media_type=_safe_type(document.media_type))


@router.get(
    "/v1/documents/{document_id}/chunks/{chunk_id}",
    summary="Show a passage in its surroundings",
    response_model=replies.PassageReply,
)
async def passage(
    parts: Parts, caller: Reader, document_id: Id, chunk_id: Annotated[str, Path(max_length=40)]
) -> Response:
    where = only(caller, document_id)
    found = await Passages(parts.current, parts.store).read(where, document_id, chunk_id)
    return reply(
        {
            **_chunk_json(found.chunk),
            "before": found.before and _chunk_json(found.before),
            "after": found.after and _chunk_json(found.after),
        }
    )


def only(caller: Principal, document_id: str) -> Filter:
    """What the caller may read of one document. Raises `NotFound` for what is no id."""
    return access.filter_for(caller, document_ids=[known_form(document_id)])


def _deletion_json(ids: Sequence[str]) -> dict[str, Any]:
    return {"object": "documents.deleted", "deleted": True, "count": len(ids), "ids": ids[:MOST_NAMED]}


def document_json(document: Document) -> dict[str, Any]:
    return {
        "id": document.id,
        "collection": document.collection,
        "title": document.title,
        "filename": document.filename,
        "media_type": document.media_type,
        "size": document.size,
        "content_hash": document.content_hash,
        "metadata": dict(document.metadata),
        "groups": sorted(document.groups),
        "version": document.version,
        "visible": document.visible,
        "status": document.status,
        "error": error_json(document.error),
        "chunks": document.chunks,
        "created_at": document.created_at,
        "updated_at": document.updated_at,
        "warnings": breaches_json(document.warnings),
    }


def _chunk_json(chunk: Chunk) -> dict[str, Any]:
    return {
        "document_id": chunk.document_id,
        "chunk_id": chunk.id,
        "title": chunk.title,
        "heading": chunk.heading,
        "text": chunk.text,
        "page": chunk.page,
        "span": span_json(chunk.span),
    }


def _attachment(name: str) -> str:
    """A file name that every client reads the same, and that cannot end the header."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name.rsplit("/", 1)[-1])[:150]
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name.rsplit('/', 1)[-1], safe='')}"


def _safe_type(media_type: str) -> str:
    return media_type if re.fullmatch(r"[\w.+-]+/[\w.+-]+", media_type) else "application/octet-stream"
