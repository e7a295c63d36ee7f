"""What searches ask of the ledger, on connections of their own."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.database import connect_args, dsn
from ingestion.ledger import Ledger
from ingestion.reads import Reads
from ingestion.types import Job
from ingestion.written import Flip
from retrieval.types import Filter, IndexSpec

Accept = Callable[..., Awaitable[Job]]
Show = Callable[[], Awaitable[tuple[Flip, int]]]
WHERE = Filter(tenant="acme", groups=None)


async def test_a_visible_revision_is_as_old_as_its_flip(
    ledger: Ledger, ledger_url: str, engine: AsyncEngine, accept: Accept, show: Show, spec: IndexSpec
) -> None:
    reads = Reads(dsn(ledger_url), connect_args())
    await accept("pay")
    _, revision = await show()
    asked = [("pay", revision), ("pay", revision + 1), ("leave", revision)]
    ages = await reads.ages(spec.generation, WHERE, asked)
    assert ages.keys() == {revision} == await reads.visible(spec.generation, WHERE, asked)
    assert 0 <= ages[revision] < 30
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE jobs SET finished_at = finished_at - interval '1 hour'"))
    assert await reads.ages(spec.generation, WHERE, asked) == {revision: math.inf}
    await reads.close()
