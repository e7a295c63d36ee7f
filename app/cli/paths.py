"""Addresses of things by their ids. What is no id is refused before it is put into one, where it would name
another thing, or none."""

from __future__ import annotations

import re
from urllib.parse import quote

from app.cli import console
from ingestion.names import COLLECTION, ID, STEPS

_ERASURE = re.compile(r"[0-9a-f-]{36}")
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def is_document(text: str) -> bool:
    return bool(ID.fullmatch(text)) and text not in STEPS


def document(document_id: str) -> str:
    if not is_document(document_id):
        console.fail(
            f"{document_id!r} is no document's id: 1 to 200 of A-Z a-z 0-9 . _ : ~ @ -", console.USAGE
        )
    return f"/v1/documents/{document_id}"


def job(job_id: str, *rest: str) -> str:
    return _of("/v1/jobs", ID, job_id, "job's id", rest)


def erasure(erasure_id: str) -> str:
    return _of("/v1/erasures", _ERASURE, erasure_id, "erasure's id; `plumbline erase list` shows them", ())


def collection(name: str, *rest: str) -> str:
    return _of("/v1/collections", COLLECTION, name, "collection's name", rest)


def is_release(text: str) -> bool:
    return bool(_RELEASE.fullmatch(text))


def release(reference: str, *rest: str) -> str:
    """The address of a release, or of something of it."""
    return _of("/v1/releases", _RELEASE, reference, "release's id or name", rest)


def _of(folder: str, pattern: re.Pattern[str], given: str, what: str, rest: tuple[str, ...]) -> str:
    if not pattern.fullmatch(given) or given in STEPS:
        console.fail(f"{given!r} is no {what}.", console.USAGE)
    return "/".join((folder, quote(given, safe=":@~"), *rest))
