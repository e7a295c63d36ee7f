"""What came of requests in trials, written behind to the ledger.

Measures only: no text. What could not be written is counted, and never waited for: evidence that is lost
makes a trial last longer, not a request.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any

from sqlalchemy import Table, func, insert
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncEngine

from app.problems import told_as
from app.quality import Quality
from app.tables import feedback, outcomes, pairs, transaction
from app.types import Answer, Summary, Support
from ingestion.errors import LedgerUnavailable
from llm.errors import ModelRejected
from retrieval.errors import TextTooLong
from retrieval.types import Found

log = logging.getLogger(__name__)

EVERY = 0.2
"""Seconds between writes."""
MOST = 20_000
"""Rows that wait to be written; more are lost."""
AT_ONCE = 1_000
_ITS_PARTS = (ModelRejected, TextTooLong)
"""What the parts of one release do not take, those of another do: told as the caller's mistake, and yet the
release's to answer for. A model's name that its server does not know is one."""

Facts = Mapping[str, Any]
Row = dict[str, Any]


class Outcomes:
    """Keep `writing` open for as long as something is recorded."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._waiting: deque[tuple[Table, Row]] = deque()
        self._woken = asyncio.Event()
        self.lost = 0

    def record(self, row: Row) -> None:
        """A row of `outcomes`."""
        self._add(outcomes, row)

    def record_pair(self, row: Row) -> None:
        """A row of `pairs`."""
        self._add(pairs, row)

    async def rate(self, tenant: str, answer: str, rating: str, reason: str | None) -> None:
        """Keep what a reader thinks of an answer; the latest counts."""
        values = {
            "tenant": tenant,
            "answer": answer,
            "rating": rating,
            "reason": reason,
            "at": func.clock_timestamp(),
        }
        statement = postgresql.insert(feedback).values(values)
        async with transaction(self._engine) as connection:
            await connection.execute(
                statement.on_conflict_do_update(index_elements=["tenant", "answer"], set_=values)
            )

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        ending = asyncio.Event()
        task = asyncio.create_task(self._write_on(ending), name="write outcomes")
        try:
            yield
        finally:
            # What is being written is written to its end: broken off, nobody could say whether it was.
            ending.set()
            self._woken.set()
            await asyncio.gather(task, return_exceptions=True)
            await self.flush()

    async def flush(self) -> None:
        """Write what waits, now."""
        while self._waiting:
            table = self._waiting[0][0]
            rows: list[Row] = []
            while self._waiting and self._waiting[0][0] is table and len(rows) < AT_ONCE:
                rows.append(self._waiting.popleft()[1])
            written = False
            try:
                async with transaction(self._engine) as connection:
                    await connection.execute(insert(table), rows)
                written = True
            except LedgerUnavailable as error:
                log.warning("%d outcomes of trials were lost: %s", len(rows), error)
                return
            finally:
                self.lost += 0 if written else len(rows)

    def _add(self, table: Table, row: Row) -> None:
        if len(self._waiting) >= MOST:
            self.lost += 1
            return
        self._waiting.append((table, row))
        self._woken.set()

    async def _write_on(self, ending: asyncio.Event) -> None:
        while not ending.is_set():
            await self._woken.wait()
            with suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), EVERY)
            self._woken.clear()
            try:
                await self.flush()
            except Exception:
                log.exception("Outcomes of trials could not be written.")
            if self._waiting:  # Behind rows that could not be written.
                self._woken.set()


def facts_of(answer: Answer | Summary, quality: Quality, seconds: float) -> Facts:
    """The measures of an answer or a summary; each but `seconds` in [0, 1], 1 is bad."""
    answered = answer.answered if isinstance(answer, Answer) else True
    facts: dict[str, Any] = {
        "fault": quality.empty,
        "seconds": round(seconds, 4),
        "first_token": answer.stages.get("first_token"),
        "declined": float(not answered),
        "unsupported": unsupported(answer.support),
        "tokens": answer.usage.output_tokens,
        **quality.flags,
    }
    return {name: value for name, value in facts.items() if value is not None}


def facts_of_search(found: Found, seconds: float) -> Facts:
    return {
        "fault": 0.0,
        "seconds": round(seconds, 4),
        "empty": float(not found.hits),
        "degraded": float(bool(found.degraded)),
    }


def is_fault(error: Exception) -> bool:
    """Whether a release has to answer for an error: it is not the caller's, and not every release would have
    met it."""
    return told_as(error)[0] >= HTTPStatus.INTERNAL_SERVER_ERROR or isinstance(error, _ITS_PARTS)


def facts_of_fault(error: Exception, seconds: float) -> Facts:
    """A request that ended in an error."""
    return {"fault": 1.0, "code": told_as(error)[1], "seconds": round(seconds, 4)}


def facts_of_given_up(seconds: float) -> Facts:
    """A request whose caller left before its answer was complete."""
    return {"fault": 0.0, "given_up": 1.0, "seconds": round(seconds, 4)}


def unsupported(support: Sequence[Support]) -> float | None:
    """The share of checked sentences that their sources do not bear out; None without any."""
    if not support:
        return None
    return round(sum(one.verdict in ("unsupported", "uncited") for one in support) / len(support), 4)
