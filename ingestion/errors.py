"""What can go wrong with a document.

IngestionError
├── Refused               the caller must change the request (4xx)
│   ├── DocumentInvalid       bad id, metadata or text
│   ├── UnsupportedType       a type we do not read, or a file that is not what its name says
│   ├── DocumentTooLarge      over the upload limit
│   ├── EmptyDocument         no bytes, or no text in it
│   ├── RuleBroken            its collection asks for something that it lacks
│   └── IdempotencyConflict   the key was used with another body
├── QueueFull             too much of the tenant waits already: try again after `retry_after` seconds
├── NotFound              no such document, job or collection for this tenant and these groups
├── Taken                 an id is a document's that these groups may not change
├── Changed               the document is not as its writer took for granted
├── Conflict              the thing is in a state that does not allow this (cancel a finished job)
├── Quarantined           the document can never be read: `reason` is a code, `part` where it stopped
├── LeaseLost             another worker holds the job now: stop, write nothing more
├── IndexIncomplete       the store lacks rows that the ledger knows of: it lost them
├── LedgerUnavailable     PostgreSQL is down or too slow: try again
├── ParserUnavailable     no parsing process could be started: try again
├── ErasureStalled        a store that is to forget documents is away: it is asked again
└── StorageUnavailable    the blob store is full or gone: try again after mending it

Where the cause lies in a part, and not in what was asked, the message names addresses, paths and what drivers
said: it is the operator's, in the log. `told` is what everybody else may hear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingestion.types import Placed


class IngestionError(Exception):
    """Base of everything this folder raises on purpose."""


class Refused(IngestionError):
    code = "document_invalid"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class DocumentInvalid(Refused):
    pass


class UnsupportedType(Refused):
    code = "unsupported_type"


class DocumentTooLarge(Refused):
    code = "document_too_large"


class EmptyDocument(Refused):
    code = "empty_document"


class RuleBroken(Refused):
    code = "validation"


class IdempotencyConflict(Refused):
    code = "idempotency_conflict"


class QueueFull(IngestionError):
    code = "queue_full"

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotFound(IngestionError):
    """`param` is where the request named it, if somebody says so who knows the request."""

    param: str | None = None

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"There is no {kind} {name!r} here.")
        self.kind = kind
        self.name = name


class Taken(IngestionError):
    pass


class Changed(IngestionError):
    pass


class Conflict(IngestionError):
    pass


class Quarantined(IngestionError):
    """`reason` is one of: encrypted, damaged, empty, needs_ocr, unsupported_type, too_large, timeout,
    memory, crashed, validation (a rule of its collection, which `part` names)."""

    def __init__(self, reason: str, message: str, part: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.part = part


class IndexIncomplete(IngestionError):
    """`missing` is a document whose rows are gone."""

    def __init__(self, message: str, missing: Placed) -> None:
        super().__init__(message)
        self.missing = missing


class LeaseLost(IngestionError):
    pass


class LedgerUnavailable(IngestionError):
    told = "The ledger is away or too slow. Try again in a few seconds."


class ParserUnavailable(IngestionError):
    told = "No process that reads files could be started; it is tried again."


class StorageUnavailable(IngestionError):
    told = "The store of original files is away or full, and nothing was kept. Try again later."


class ErasureStalled(IngestionError):
    pass
