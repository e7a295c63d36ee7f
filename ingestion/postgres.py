"""What PostgreSQL's errors mean: an outage, which waiting mends, or a mistake of ours, which it does not."""

from __future__ import annotations

from types import TracebackType

from asyncpg import DataError as ValueRefused
from asyncpg import InterfaceError, InternalClientError, PostgresError
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ingestion.errors import LedgerUnavailable

# Our own mistakes, which no waiting mends.
_BUGS = (DataError, IntegrityError, NotSupportedError, ProgrammingError)
# The driver's internal error comes of a connection that broke in the middle of an answer.
_DRIVERS = (PostgresError, InterfaceError, InternalClientError)
_AWAY = (DBAPIError, PoolTimeoutError, *_DRIVERS, OSError, TimeoutError)


class reaching_ledger:  # noqa: N801  (it reads as the statement that it makes)
    """Turn every way in which PostgreSQL can be away or too slow into `LedgerUnavailable`. A class, because
    every question passes it several times."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        if isinstance(error, _BUGS):
            if error.connection_invalidated:
                raise _unavailable(error) from error
        elif isinstance(error, _AWAY) and not _of_a_value(error):
            raise _unavailable(error) from error


def _of_a_value(error: BaseException) -> bool:
    """Whether a value was refused, by PostgreSQL or on the way there, which no waiting mends either.
    SQLAlchemy has no name for these; the driver's own error lies under its."""
    told = getattr(error, "orig", error)
    cause = told.__cause__ or told
    unsendable = isinstance(cause, InterfaceError) and isinstance(cause, ValueError)
    return unsendable or isinstance(cause, ValueRefused)


def _unavailable(error: BaseException) -> LedgerUnavailable:
    reason = str(getattr(error, "orig", None) or error).splitlines()[:1] or [type(error).__name__]
    return LedgerUnavailable(
        f"The ledger (PostgreSQL) cannot be reached or is too slow: {reason[0]}. Nothing was changed; "
        "try again in a few seconds."
    )
