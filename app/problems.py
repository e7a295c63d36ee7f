"""How every error is told over HTTP: one table from exception type to status and code.

A type that is not in the table is told as the nearest of its bases that is. What went wrong in a part is
told in words that name no address, path or driver; the log has the rest. What is in no row, or is told with
500, is a defect: it is logged, and the caller gets the request's id and no detail.
"""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app import errors as app
from app.release import ReleaseInvalid
from ingestion import errors as ingestion
from llm import errors as llm
from retrieval import errors as retrieval

log = logging.getLogger(__name__)

RETRY_AFTER = 2.0
_FULL = "The disk is full; nothing was kept. Try again when its operator has made room."
CLIENT_GONE = 499
TABLE: Mapping[type[Exception], tuple[int, str]] = {
    retrieval.StoreUnavailable: (503, "store_unavailable"),
    retrieval.EmbedderUnavailable: (503, "embedder_unavailable"),
    retrieval.TextTooLong: (400, "context_length_exceeded"),
    retrieval.FilterInvalid: (400, "filter_invalid"),
    retrieval.RetrievalError: (500, "retrieval_error"),
    ingestion.Refused: (400, "document_invalid"),
    ingestion.UnsupportedType: (415, "unsupported_type"),
    ingestion.DocumentTooLarge: (413, "document_too_large"),
    ingestion.RuleBroken: (422, "validation"),
    ingestion.IdempotencyConflict: (409, "idempotency_conflict"),
    ingestion.QueueFull: (429, "queue_full"),
    ingestion.Taken: (403, "forbidden"),
    ingestion.NotFound: (404, "not_found"),
    ingestion.Changed: (412, "precondition_failed"),
    ingestion.Conflict: (409, "conflict"),
    ingestion.Quarantined: (422, "quarantined"),
    ingestion.LeaseLost: (409, "lease_lost"),
    ingestion.LedgerUnavailable: (503, "ledger_unavailable"),
    ingestion.StorageUnavailable: (503, "storage_unavailable"),
    ingestion.IndexIncomplete: (503, "index_incomplete"),
    ingestion.IngestionError: (500, "ingestion_error"),
    llm.ModelUnavailable: (503, "model_unavailable"),
    llm.ModelTimeout: (504, "model_timeout"),
    llm.ModelRejected: (400, "model_rejected"),
    llm.StreamBroken: (502, "stream_broken"),
    llm.PromptInvalid: (500, "prompt_invalid"),
    llm.LlmError: (500, "model_error"),
    ReleaseInvalid: (400, "release_invalid"),
    app.DeadlineExceeded: (504, "deadline_exceeded"),
    app.SourceChanged: (409, "source_changed"),
    app.NothingToSummarize: (400, "nothing_to_summarize"),
    app.TooMuchToSummarize: (400, "too_much_to_summarize"),
    app.RequestInvalid: (400, "invalid_value"),
    app.Unauthenticated: (401, "invalid_api_key"),
    app.Forbidden: (403, "forbidden"),
    app.AdmissionFull: (429, "too_many_requests"),
    app.ModelUnknown: (404, "model_not_found"),
    app.ReleaseUnknown: (404, "release_not_found"),
    app.ReleaseConflict: (409, "release_conflict"),
    app.KeyUnknown: (404, "key_not_found"),
    app.Stopping: (503, "service_stopping"),
    app.ClientGone: (CLIENT_GONE, "client_gone"),
    app.AppError: (500, "service_error"),
}

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    412: "conflict_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}

_HTTP = {
    400: "invalid_request",
    404: "unknown_url",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_type",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An error as the caller gets it. `retry_after` in seconds, where trying again later may help."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after: float | None = None

    @property
    def type(self) -> str:
        other = "invalid_request_error" if self.status < 500 else "server_error"
        return _TYPES.get(self.status, other)

    def body(self) -> dict[str, Any]:
        told = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": told}


class Told(BaseModel):
    """What went wrong: in a sentence, of what type, in which field, and as a code that stays the same."""

    message: str
    type: str
    param: str | None
    code: str


class Failure(BaseModel):
    """The body of every answer that is an error."""

    error: Told


def described() -> dict[int | str, dict[str, Any]]:
    """The errors of every route, for the OpenAPI document."""
    mine = {
        400: "the request is malformed",
        401: "a key is needed",
        403: "the key does not allow it",
        404: "there is no such thing",
        409: "its state does not allow it",
        412: "it is not as `If-Match` or `If-None-Match` says",
        413: "too large",
        415: "not of a type that is read",
        422: "a rule of the collection is broken",
        429: "too much at once: again after `Retry-After`",
    }
    ours = {500: "a defect", 502: "the answer broke off", 503: "a part is away", 504: "no time was left"}
    return {"4XX": _described(mine), "5XX": _described(ours)}


def _described(why: Mapping[int, str]) -> dict[str, Any]:
    return {"model": Failure, "description": "; ".join(f"{status}: {told}" for status, told in why.items())}


def told_as(error: Exception) -> tuple[int, str]:
    """The status and the code that an error of ours is told with."""
    for base in type(error).__mro__:
        if base in TABLE:
            return TABLE[base]
    return 500, "internal_error"


def problem_of(error: Exception, request_id: str, *, in_full: bool = False) -> Problem:
    """Any exception as a `Problem`. One that nobody raised on purpose is logged here, and so is what went
    wrong in a part, which `in_full` tells the caller, too."""
    if isinstance(error, RequestValidationError):
        return _validation(error.errors())
    if isinstance(error, HTTPException):
        return _http(error)
    for base in type(error).__mro__:
        if base in TABLE:
            status, code = TABLE[base]
            if status == HTTPStatus.INTERNAL_SERVER_ERROR:
                return _defect(error, request_id, code)
            return _known(error, status, code, _words(error, request_id, in_full))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Problem(status=503, code="storage_unavailable", message=_FULL, retry_after=RETRY_AFTER)
    return _defect(error, request_id, "internal_error")


def respond(problem: Problem) -> Response:
    headers = {}
    if problem.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after)))
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    body = orjson.dumps(problem.body())
    return Response(body, problem.status, headers, media_type="application/json")


def _defect(error: Exception, request_id: str, code: str) -> Problem:
    log.error("An unexpected error ended the request.", exc_info=error)
    sorry = f"Something went wrong here. It was logged as request {request_id}."
    return Problem(status=500, code=code, message=sorry)


def _words(error: Exception, request_id: str, in_full: bool) -> str:
    """What the caller hears of an error."""
    told: str | None = getattr(error, "told", None)
    if told is None:
        return _sentence(error)
    log.warning("A part failed: %s", error)
    return _sentence(error) if in_full else f"{told} It was logged as request {request_id}."


def _known(error: Exception, status: int, code: str, message: str) -> Problem:
    if isinstance(error, ingestion.NotFound):
        code = f"{error.kind}_not_found"
    own = getattr(error, "code", None) or getattr(error, "reason", None)
    param = getattr(error, "param", None)
    retry_after = getattr(error, "retry_after", None)
    if status in (429, 503) and retry_after is None:
        retry_after = RETRY_AFTER
    return Problem(status=status, code=own or code, message=message, param=param, retry_after=retry_after)


def _sentence(error: Exception) -> str:
    return str(error) or HTTPStatus(TABLE.get(type(error), (500, ""))[0]).phrase


def _http(error: HTTPException) -> Problem:
    messages = {
        404: "There is nothing at this address. /openapi.json lists what there is.",
        405: "This address does not take this method. /openapi.json lists what it takes.",
    }
    return Problem(
        status=error.status_code,
        code=_HTTP.get(error.status_code, "http_error"),
        message=messages.get(error.status_code, str(error.detail)),
    )


def _validation(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """The first thing wrong; how many more there are is said."""
    first = errors[0]
    kind, where = str(first["type"]), first["loc"]
    if kind == "json_invalid":
        reason = (first.get("ctx") or {}).get("error", "it cannot be parsed")
        return Problem(status=400, code="invalid_json", message=f"The body is not valid JSON: {reason}.")
    if tuple(where) == ("body",) and kind != "value_error":
        told = "The body must be a JSON object, sent with `Content-Type: application/json`."
        return Problem(status=400, code="invalid_body", message=told)
    param = _place(where[1:])
    codes = {"extra_forbidden": "unknown_parameter", "missing": "missing_required_parameter"}
    return Problem(
        status=400,
        code=codes.get(kind, "invalid_value"),
        message=_message(kind, param, first, len(errors) - 1),
        param=param,
    )


def _place(steps: Sequence[str | int]) -> str | None:
    """As `documents[0].metadata.year`."""
    named = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return named.removeprefix(".") or None


def _message(kind: str, param: str | None, first: Mapping[str, Any], others: int) -> str:
    reason = str(first["msg"]).removeprefix("Value error, ").replace(" after validation", "")
    if kind == "model_type":
        reason = "Input should be an object"
    if (first.get("ctx") or {}).get("field_type") == "Value":
        reason = reason.replace("Value", "Text").replace(" item", " character")
    if param is None:
        told = f"{reason[0].upper()}{reason[1:]}."
    elif kind == "extra_forbidden":
        told = f"Unknown field `{param}`."
    elif kind == "missing":
        told = f"The field `{param}` is missing."
    else:
        told = f"`{param}`: {reason}."
    return f"{told} ({others} more {'problem' if others == 1 else 'problems'}.)" if others else told
