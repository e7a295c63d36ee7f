"""What a document must look like to be accepted. Nothing is stored before all of a request is checked.

Every refusal names the offending part (`documents[3].metadata.size`) and says what is allowed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence

from ingestion.documents import Accepted
from ingestion.errors import DocumentInvalid, DocumentTooLarge, EmptyDocument, Refused
from ingestion.names import COLLECTION, ID, ID_LENGTH, STEPS
from ingestion.parse import FORMATS, sniff
from ingestion.parse.formats import bare
from ingestion.types import NewDocument
from retrieval.conditions import ranks

MAX_DOCUMENTS = 1_000
MAX_METADATA_KEYS = 64
MAX_METADATA_BYTES = 16 * 2**10
MAX_METADATA_RANKED = 16
"""Numbers and dates, which can lie in a range: each takes a column of its own where a store needs one."""
MAX_METADATA_ITEMS = 1_000
"""Texts in all lists together: a row is found by each."""
MAX_GROUPS = 64
MAX_TEXT = 1_000
MOST_PRIORITY = 10

METADATA_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def checked(documents: Sequence[NewDocument], upload_limit: int) -> list[Accepted]:
    """These documents as the ledger takes them. Raises a `Refused` for the first that is not acceptable."""
    if not 1 <= len(documents) <= MAX_DOCUMENTS:
        raise DocumentInvalid(
            f"A request takes 1 to {MAX_DOCUMENTS} documents, not {len(documents)}.", "documents"
        )
    accepted = [_check(one, upload_limit, f"documents[{n}]") for n, one in enumerate(documents)]
    places: dict[str, int] = {}
    for place, one in enumerate(accepted):
        if places.setdefault(one.id, place) != place:
            raise DocumentInvalid(
                f"documents[{places[one.id]}] and documents[{place}] have the same id {one.id!r}; give each "
                "its own.",
                f"documents[{place}].id",
            )
    return accepted


def request_hash(accepted: Sequence[Accepted]) -> str:
    """What an idempotency key stands for: everything about the documents of one request."""
    body = [
        [
            *(one.id, one.collection, one.title, one.filename, one.media_type, one.content_hash),
            *(dict(one.metadata), sorted(one.groups), *([one.priority] if one.priority else [])),
        ]
        for one in accepted
    ]
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def check_idempotency_key(key: str) -> None:
    if not IDEMPOTENCY_KEY.fullmatch(key):
        raise DocumentInvalid("An Idempotency-Key has 1 to 255 visible ASCII characters.", "Idempotency-Key")


def _check(document: NewDocument, upload_limit: int, place: str) -> Accepted:
    _check_content(document.content, upload_limit, place)
    for name, value in (
        *(("title", document.title), ("filename", document.filename)),
        ("media_type", document.media_type),
    ):
        if value is not None:
            _check_text(value, f"{place}.{name}")
    if not COLLECTION.fullmatch(document.collection):
        raise DocumentInvalid(
            f"{_shown(document.collection)} is no collection name: lower-case letters, digits, - and _, at "
            "most 63, the first a letter or digit.",
            f"{place}.collection",
        )
    _check_groups(document.groups, f"{place}.groups")
    _check_metadata(document.metadata, f"{place}.metadata")
    if not -MOST_PRIORITY <= document.priority <= MOST_PRIORITY:
        raise DocumentInvalid(
            f"A priority is a number from -{MOST_PRIORITY} to {MOST_PRIORITY}.", f"{place}.priority"
        )
    digest = hashlib.sha256(document.content).hexdigest()
    return Accepted(
        id=_id(document, digest, place),
        collection=document.collection,
        title=(document.title or "").strip() or None,
        filename=document.filename or None,
        media_type=_media_type(document, place),
        size=len(document.content),
        content_hash=digest,
        metadata=dict(document.metadata),
        groups=document.groups,
        priority=document.priority,
    )


def _check_content(content: bytes, upload_limit: int, place: str) -> None:
    if not content:
        raise EmptyDocument("The document is empty: it has no bytes.", f"{place}.content")
    if len(content) > upload_limit:
        raise DocumentTooLarge(
            f"The document has {len(content):,} bytes; at most {upload_limit:,} are accepted.",
            f"{place}.content",
        )


def _media_type(document: NewDocument, place: str) -> str:
    """The type given if it is right (it may carry a charset), else the one of what was found."""
    try:
        found = FORMATS[sniff(document.content, document.filename, document.media_type)]
    except Refused as error:
        error.param = f"{place}.content"
        raise
    given = document.media_type
    return given if given and bare(given) in found.media_types else found.media_types[0]


def _id(document: NewDocument, digest: str, place: str) -> str:
    if document.id is not None:
        if not ID.fullmatch(document.id):
            raise DocumentInvalid(
                f"{_shown(document.id)} is no document id: 1 to {ID_LENGTH} of A-Z a-z 0-9 . _ : ~ @ -",
                f"{place}.id",
            )
        if document.id in STEPS:
            raise DocumentInvalid(
                f"{document.id!r} is no document id: clients leave it out of an address, as a folder.",
                f"{place}.id",
            )
        return document.id
    # Some systems write an accent as a character of its own.
    path = unicodedata.normalize("NFC", (document.filename or "").replace("\\", "/").strip("/"))
    if not path or path in STEPS:
        return f"doc-{digest[:16]}"
    name = re.sub(r"[^A-Za-z0-9._:~@-]", "-", path.replace("/", ":"))
    if len(name) <= ID_LENGTH and path.isascii():
        return name
    # Long names that begin alike stay apart, and so do those of an alphabet of which no letter is left.
    mark = hashlib.sha256(path.encode()).hexdigest()[:16]
    return f"{name[: ID_LENGTH - 17]}-{mark}"


def _check_groups(groups: frozenset[str], place: str) -> None:
    if len(groups) > MAX_GROUPS:
        raise DocumentInvalid(f"A document names at most {MAX_GROUPS} groups, not {len(groups)}.", place)
    for group in sorted(groups):
        if not ID.fullmatch(group):
            raise DocumentInvalid(
                f"{_shown(group)} is no group name: 1 to {ID_LENGTH} of A-Z a-z 0-9 . _ : ~ @ -", place
            )


def _check_metadata(metadata: Mapping[str, object], place: str) -> None:
    if len(metadata) > MAX_METADATA_KEYS:
        raise DocumentInvalid(f"Metadata has at most {MAX_METADATA_KEYS} keys, not {len(metadata)}.", place)
    for key, value in metadata.items():
        if not isinstance(key, str) or not METADATA_KEY.fullmatch(key):
            raise DocumentInvalid(
                f"{_shown(str(key))} is no metadata key: a letter or _, then up to 63 letters, digits or _.",
                place,
            )
        _check_value(value, f"{place}.{key}")
    ranked = sum(map(ranks, metadata.values()))
    if ranked > MAX_METADATA_RANKED:
        raise DocumentInvalid(
            f"At most {MAX_METADATA_RANKED} metadata values are numbers or dates, not {ranked}.", place
        )
    items = sum(len(value) for value in metadata.values() if isinstance(value, list))
    if items > MAX_METADATA_ITEMS:
        raise DocumentInvalid(f"The lists hold at most {MAX_METADATA_ITEMS} texts, not {items}.", place)
    size = len(json.dumps(dict(metadata)).encode())
    if size > MAX_METADATA_BYTES:
        raise DocumentInvalid(
            f"Metadata takes {size:,} bytes as JSON; at most {MAX_METADATA_BYTES:,}.", place
        )


def _check_value(value: object, place: str) -> None:
    match value:
        case bool():
            pass
        case int() if not -(2**63) <= value < 2**63:
            raise DocumentInvalid("The number does not fit into 64 bits.", place)
        case float() if not math.isfinite(value):
            raise DocumentInvalid("The number is not finite.", place)
        case int() | float():
            pass
        case str():
            _check_characters(value, place)
        case list() if all(isinstance(item, str) for item in value):
            for item in value:
                _check_characters(item, place)
        case _:
            raise DocumentInvalid(
                "A metadata value is a string, a number, true, false or a list of strings.", place
            )


def _check_text(value: str, place: str) -> None:
    if len(value) > MAX_TEXT:
        raise DocumentInvalid(f"The value has {len(value):,} characters; at most {MAX_TEXT:,}.", place)
    _check_characters(value, place)


def _check_characters(value: str, place: str) -> None:
    """PostgreSQL takes no NUL, and UTF-8 no half of a surrogate pair."""
    if "\0" in value:
        raise DocumentInvalid("The value holds a NUL character.", place)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DocumentInvalid("The value holds half of a surrogate pair.", place) from None


def _shown(value: str) -> str:
    return repr(value if len(value) <= 80 else value[:77] + "...")
