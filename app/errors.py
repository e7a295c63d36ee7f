"""What can go wrong in the service itself. How each is told over HTTP is in `problems`.

AppError
├── DeadlineExceeded      the request's time ran out before the first word: ask again, or allow more time
├── SourceChanged         a cited source was changed or deleted while the answer was streaming
├── NothingToSummarize    the request names no readable text: the caller must name some
├── TooMuchToSummarize    more text than one request may take: the caller must narrow it
├── RequestInvalid        the request is malformed; `param` names the field: the caller must change it
├── Unauthenticated       no key, a wrong key or a revoked one: the caller needs a key
├── Forbidden             the key does not allow this: the caller needs another key
├── AdmissionFull         too many questions at once: try again in `retry_after` seconds
├── ModelUnknown          no model of that name serves here
├── ReleaseUnknown        no release goes by that name or id
├── ReleaseConflict       the release may not do this now, it was not evaluated
│   └── IndexNotReady         its index is missing, behind or not sound: `code` says which
├── KeyUnknown            no key goes by that id
├── OpenAccessRefused     this address may not be served without keys: the operator must make one
├── SchemaNewer           a newer version has migrated the database: the operator must run that one
├── RevisionUnknown       no schema of that name is known: the operator must name one that is
├── Stopping              this process stops: ask again, another one or the next one answers
└── ClientGone            the caller hung up; nobody hears of it
"""


class AppError(Exception):
    """Base of everything this folder raises on purpose."""


class DeadlineExceeded(AppError):
    pass


class SourceChanged(AppError):
    pass


class NothingToSummarize(AppError):
    pass


class TooMuchToSummarize(AppError):
    pass


class RequestInvalid(AppError):
    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class Unauthenticated(AppError):
    pass


class Forbidden(AppError):
    def __init__(self, message: str, code: str = "forbidden") -> None:
        super().__init__(message)
        self.code = code


class AdmissionFull(AppError):
    def __init__(self, retry_after: float) -> None:
        super().__init__("Too many questions are being answered at once. Ask again in a moment.")
        self.retry_after = retry_after


class ModelUnknown(AppError):
    param = "model"


class ReleaseUnknown(AppError):
    def __init__(self, reference: str) -> None:
        super().__init__(f"There is no release {reference!r}. `plumbline release list` names them.")
        self.reference = reference


class ReleaseConflict(AppError):
    pass


class IndexNotReady(ReleaseConflict):
    """`code` is one of index_missing, index_behind, index_differs, index_incomplete, index_unsound."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class KeyUnknown(AppError):
    def __init__(self, reference: str) -> None:
        super().__init__(f"There is no key {reference!r}.")


class OpenAccessRefused(AppError):
    pass


class SchemaNewer(AppError):
    pass


class RevisionUnknown(AppError):
    pass


class Stopping(AppError):
    pass


class ClientGone(AppError):
    pass
