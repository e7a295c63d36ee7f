"""Conditional requests (RFC 9110): the tags of what is shown, and what a writer takes for granted.

A document's tag begins with the number of its version. What is shown of it changes by itself while it is
indexed; whoever writes loses another's work only when its version has changed, and so is held to that alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated, Any

import orjson
from fastapi import Depends, Header, Request
from starlette.responses import Response

from app.errors import RequestInvalid
from ingestion.types import Expected

_TAGS = re.compile(r'\s*(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"\s*(?:,\s*(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"\s*)*')
_TAG = re.compile(r'"([^"]*)"')
# A proxy that compresses makes a tag weak, or adds to its end.
_OF_VERSION = re.compile(r"([0-9]{1,18})(?:-.*)?")
_UNSHARED = {"Cache-Control": "private, no-cache"}
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "It is as it was when the tag in `If-None-Match` was told."}
}
"""For the OpenAPI document."""

_IfMatch = Annotated[
    str | None,
    Header(
        description='Only if the document is still of this version: its `ETag`, or `"<version>"`. `*`: only '
        "if there is one. Else 412."
    ),
]
_IfNone = Annotated[str | None, Header(description="`*`: only if there is no such document yet. Else 412.")]
_IfOther = Annotated[
    str | None, Header(alias="if-none-match", description="`ETag` of before: 304 if nothing has changed.")
]


async def _changed(request: Request, if_match: _IfMatch = None) -> Expected | None:
    return _expected(request)


async def _put(request: Request, if_match: _IfMatch = None, if_none_match: _IfNone = None) -> Expected | None:
    if not _given(request, "If-None-Match"):
        return _expected(request)
    if _given(request, "If-Match"):
        raise RequestInvalid("Send `If-Match` or `If-None-Match`, not both.", "If-None-Match")
    return _absent(request)


async def _added(request: Request, if_none_match: _IfNone = None) -> Expected | None:
    if _given(request, "If-Match"):
        raise RequestInvalid("`If-Match` is for one document: PUT it at its own address.", "If-Match")
    return _absent(request) if _given(request, "If-None-Match") else None


async def _known(request: Request, if_none_match: _IfOther = None) -> frozenset[str]:
    """The tags of what the caller has; `*` is any."""
    given = _given(request, "If-None-Match")
    return frozenset(["*"] if given == "*" else _tags(given, "If-None-Match"))


OfChange = Annotated[Expected | None, Depends(_changed)]
OfPut = Annotated[Expected | None, Depends(_put)]
OfAddition = Annotated[Expected | None, Depends(_added)]
Known = Annotated[frozenset[str], Depends(_known)]


def tagged(value: Any, known: frozenset[str], version: int | None = None) -> Response:
    """The value under its tag, or 304."""
    body = orjson.dumps(value)
    digest = blake2b(body, digest_size=8).hexdigest()
    tag = digest if version is None else f"{version}-{digest}"
    return unchanged(tag, known) or Response(body, headers=headers_of(tag), media_type="application/json")


def unchanged(tag: str, known: frozenset[str]) -> Response | None:
    """304, if the caller has what is under this tag."""
    return Response(status_code=304, headers=headers_of(tag)) if known & {tag, "*"} else None


def headers_of(tag: str) -> Mapping[str, str]:
    return {"ETag": f'"{tag}"', **_UNSHARED}


def _absent(request: Request) -> Expected:
    if _given(request, "If-None-Match") != "*":
        raise RequestInvalid("`If-None-Match` of what is handed in can only be `*`.", "If-None-Match")
    return Expected(absent=True)


def _expected(request: Request) -> Expected | None:
    given = _given(request, "If-Match")
    if not given:
        return None
    if given == "*":
        return Expected()
    found = (_OF_VERSION.fullmatch(tag) for tag in _tags(given, "If-Match"))
    return Expected(versions=frozenset(int(one[1]) for one in found if one))


def _given(request: Request, name: str) -> str:
    return ", ".join(request.headers.getlist(name)).strip()


def _tags(given: str, name: str) -> list[str]:
    if given and not _TAGS.fullmatch(given):
        raise RequestInvalid(f'`{name}` is `*`, or tags in quotes: "a", "b".', name)
    return _TAG.findall(given)
