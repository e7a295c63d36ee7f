"""The three ways in which a document is handed in: as form files, as JSON, as the raw body.

All end in `NewDocument`s, whose values intake checks. Unknown fields are refused by name, since one that
is silently dropped (a misspelt `groups`) would publish what was meant to be restricted.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from email.message import EmailMessage
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator, Field, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from app.errors import RequestInvalid
from app.routes.bodies import Strict, such_as
from app.routes.route import parsed
from ingestion.intake import MOST_PRIORITY
from ingestion.types import NewDocument

MOST_DOCUMENTS = 1_000
"""In one request."""
_MULTIPART_OVERHEAD = 2**20
_MUCH = 2**19
"""Bytes of JSON that are read in a thread: the event loop would be held for longer than a search takes."""
_FORM_FIELDS = frozenset({"collection", "groups", "metadata", "title", "id", "priority"})
_FILE_FIELDS = frozenset({"file", "files", "files[]", "file[]"})
QUERY_FIELDS = ("collection", "groups", "metadata", "title", "filename", "priority")
"""What the address says about a file that is the body itself."""
_FORM_DEFAULT = "application/x-www-form-urlencoded"


PRIORITIES = {"high": 5, "normal": 0, "low": -5}


def _number(given: Any) -> Any:
    """A priority's name as its number; what is no name is judged as it is."""
    return PRIORITIES.get(given, given) if isinstance(given, str) else given


Priority = Annotated[
    int,
    BeforeValidator(_number, json_schema_input_type=int | Literal["high", "normal", "low"]),
    Field(ge=-MOST_PRIORITY, le=MOST_PRIORITY),
]


class Described(Strict):
    """What may be said about a document, whichever way it comes."""

    title: str | None = None
    metadata: dict[str, Any] = Field(default={}, description="Strings, numbers, booleans, lists of strings.")
    groups: list[str] = Field(default=[], description="Who may read it; nobody named means everybody.")
    priority: Priority = Field(
        default=0,
        description="high, normal, low, or -10 to 10: which of this tenant's documents are indexed sooner. "
        "More than normal takes the scope `admin`.",
    )


class JsonDocument(Described):
    id: str | None = None
    text: str
    media_type: Annotated[str, Field(pattern=r"^text/(plain|markdown|html)$")] = "text/plain"

    def document(self, collection: str, document_id: str | None = None) -> NewDocument:
        return NewDocument(
            content=self.text.encode(),
            id=document_id or self.id,
            collection=collection,
            title=self.title,
            media_type=self.media_type,
            metadata=self.metadata,
            groups=frozenset(self.groups),
            priority=self.priority,
        )


class JsonDocuments(Strict):
    model_config = such_as(
        {
            "collection": "default",
            "documents": [
                {
                    "id": "leave-2026",
                    "title": "Paid leave",
                    "text": "Everybody has 28 days of paid leave.",
                    "metadata": {"year": 2026, "lang": "en", "tags": ["hr"]},
                }
            ],
        }
    )

    collection: str = "default"
    documents: Annotated[list[JsonDocument], Field(min_length=1, max_length=MOST_DOCUMENTS)]


class OneJsonDocument(JsonDocument):
    model_config = such_as({"title": "Paid leave", "text": "Everybody has 28 days of paid leave."})

    collection: str = "default"


class _Said(Described):
    """The fields beside a file."""

    id: str | None = None
    collection: str = "default"
    filename: str | None = None


M = TypeVar("M", bound=Strict)
T = TypeVar("T")


def body_limit(upload_limit: int) -> int:
    """Bytes that a request with documents may have: one of the largest, and what a form puts around it."""
    return upload_limit + _MULTIPART_OVERHEAD


async def documents_of(request: Request) -> list[NewDocument]:
    """What `POST /v1/documents` hands in: a form, or JSON."""
    kind = media_type(request)
    if kind == "multipart/form-data":
        return await _from_form(request, None)
    if kind != "application/json":
        raise HTTPException(415, "Send documents as multipart/form-data or as application/json.")
    return await _aside(_documents, await request.body())


async def document_of(request: Request, document_id: str) -> NewDocument:
    """What `PUT /v1/documents/{id}` hands in: a form with one file, JSON, or the file itself."""
    kind = media_type(request)
    if kind in ("multipart/form-data", "application/json"):
        _refuse_query(request)
    if kind == "multipart/form-data":
        [document] = await _from_form(request, document_id)
        return document
    if kind == "application/json":
        return await _aside(partial(_one_document, document_id), await request.body())
    return await _raw(request, document_id, None if kind in ("", _FORM_DEFAULT) else kind)


async def _aside(read: Callable[[bytes], T], raw: bytes) -> T:
    return await asyncio.to_thread(read, raw) if len(raw) > _MUCH else read(raw)


def _documents(raw: bytes) -> list[NewDocument]:
    body = _model(JsonDocuments, _json(raw))
    return [document.document(body.collection) for document in body.documents]


def _one_document(document_id: str, raw: bytes) -> NewDocument:
    body = _model(OneJsonDocument, _json(raw))
    if body.id not in (None, document_id):
        raise RequestInvalid("`id` differs from the address. Leave it out.", "id")
    return body.document(body.collection, document_id)


def _refuse_query(request: Request) -> None:
    """Passing over `?groups=hr` would publish what was meant to be restricted."""
    name = next(iter(request.query_params), None)
    if name is not None:
        raise RequestInvalid(f"`{name}` belongs into the body here, not into the address.", name)


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _from_form(request: Request, document_id: str | None) -> list[NewDocument]:
    async with request.form(max_files=MOST_DOCUMENTS, max_fields=200) as form:
        files = _files(form)
        said = _said(_form_fields(form))
        if len(files) > 1 and (document_id or said.id or said.title):
            raise RequestInvalid("`id` and `title` are for one file; several were sent.", "files")
        if document_id and said.id not in (None, document_id):
            raise RequestInvalid("`id` differs from the address. Leave it out.", "id")
        return [_new(said, await file.read(), _from(file), document_id) for file in files]


def _files(form: FormData) -> list[UploadFile]:
    files: list[UploadFile] = []
    for name, value in form.multi_items():
        if name in _FILE_FIELDS and isinstance(value, UploadFile):
            files.append(value)
        elif name in _FILE_FIELDS:
            raise RequestInvalid(f"`{name}` must be a file with a file name.", name)
        elif name not in _FORM_FIELDS:
            raise RequestInvalid(f"Unknown field `{name[:80]}`.", name[:80], "unknown_parameter")
    if not files:
        raise RequestInvalid("No file was sent: put it in the field `files`.", "files", "missing_file")
    return files


def _form_fields(form: FormData) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for name, value in form.multi_items():
        if name in _FORM_FIELDS:
            if not isinstance(value, str):
                raise RequestInvalid(f"`{name}` must be text, not a file.", name)
            fields.setdefault(name, []).append(value)
    return fields


async def _raw(request: Request, document_id: str, kind: str | None) -> NewDocument:
    fields: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        fields.setdefault(name, []).append(value)
    said = _said(fields)
    filename = said.filename or _filename(request.headers.get("content-disposition", ""))
    return _new(said, await request.body(), (filename, kind), document_id)


def _new(
    said: _Said, content: bytes, file: tuple[str | None, str | None], document_id: str | None
) -> NewDocument:
    filename, kind = file
    return NewDocument(
        content=content,
        id=document_id or said.id,
        collection=said.collection,
        title=said.title,
        filename=filename,
        media_type=kind,
        metadata=said.metadata,
        groups=frozenset(said.groups),
        priority=said.priority,
    )


def _from(file: UploadFile) -> tuple[str | None, str | None]:
    """File name and type; a client that does not know the type says so in two ways."""
    kind = (file.content_type or "").partition(";")[0].strip().lower()
    return file.filename or None, None if kind in ("", "application/octet-stream") else kind


def _filename(disposition: str) -> str | None:
    message = EmailMessage()
    message["Content-Disposition"] = re.sub(r"[\r\n]", " ", disposition) or "attachment"
    return message.get_filename()


def _said(fields: Mapping[str, Sequence[str]]) -> _Said:
    """Form or query fields: `groups` may be repeated or separated by commas, `metadata` is JSON.

    An empty group is kept, to be refused: it is what a variable that is not set leaves behind.
    """
    raw: dict[str, Any] = {}
    for name, values in fields.items():
        if name == "groups":
            raw[name] = [group.strip() for value in values for group in value.split(",")]
        elif len(values) > 1:
            raise RequestInvalid(f"`{name}` was sent {len(values)} times.", name)
        else:
            raw[name] = _parsed(values[0], name) if name == "metadata" else values[0]
    return _model(_Said, raw)


def _parsed(text: str, param: str) -> Any:
    try:
        return parsed(text)
    except json.JSONDecodeError as error:
        raise RequestInvalid(f"`{param}` is not valid JSON: {error.msg}.", param, "invalid_json") from None


def _json(raw: bytes) -> Any:
    try:
        return parsed(raw)
    except json.JSONDecodeError as error:
        raise RequestInvalid(f"The body is not valid JSON: {error.msg}.", None, "invalid_json") from None


def _model(kind: type[M], raw: Any) -> M:
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(found) from None
