"""What searches ask of the ledger, on connections of their own."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ingestion import reads as sql
from ingestion.ledger import Ledger
from ingestion.reads import Reads
from ingestion.types import Job
from ingestion.written import Flip
from retrieval.types import Filter, IndexSpec

Accept = Callable[..., Awaitable[Job]]
Show = Callable[[], Awaitable[tuple[Flip, int]]]
WHERE = Filter(tenant="acme", groups=None)


async def test_a_visible_revision_is_as_old_as_its_flip(
    ledger: Ledger,
    reads: Reads,
    engine: AsyncEngine,
    accept: Accept,
    show: Show,
    spec: IndexSpec,
) -> None:
    await accept("pay")
    _, revision = await show()
    asked = [("pay", revision), ("pay", revision + 1), ("leave", revision)]
    look = await reads.look(spec.generation, WHERE, asked)
    assert look.ages.keys() == {revision} == await reads.visible(spec.generation, WHERE, asked)
    assert 0 <= look.ages[revision] < 30
    assert look.epoch == await reads.epoch(WHERE)
    assert await reads.all_visible(spec.generation, WHERE, 10) == (look.epoch, [revision])
    assert await reads.all_visible(spec.generation, WHERE, 0) == (look.epoch, [])
    other = replace(WHERE, tenant="rival")
    assert await reads.all_visible(spec.generation, other, 10) == (await reads.epoch(other), [])
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE jobs SET finished_at = finished_at - interval '1 hour'"))
    assert (await reads.look(spec.generation, WHERE, asked)).ages == {revision: math.inf}
    assert (await reads.look(spec.generation, WHERE, [("leave", revision)])).ages == {}


@pytest.mark.parametrize("query", [sql._VISIBLE, sql._LOOK])
async def test_candidates_are_looked_up_by_revision_in_tables_that_were_never_analysed(
    query: str, ledger: Ledger, reads: Reads
) -> None:
    """A first load can make them grow by much before they are."""
    connection = (await reads._opened()).connection
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    await connection.execute(f"PREPARE asked (text[], text[], text[], text, text, text, text) AS {query}")
    explained = await connection.fetch("EXPLAIN EXECUTE asked (NULL, '{}', '{}', 'acme', 'g', 'pay', '1')")
    await connection.close()
    plan = "\n".join(line[0] for line in explained)
    assert "visibility_of_revision" in plan
    assert "visibility_of_generation" not in plan
    assert "Seq Scan on visibility" not in plan


async def test_after_a_start_many_who_come_at_once_wait_for_no_connection(
    ledger: Ledger, reads: Reads, spec: IndexSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    await reads.warm()

    async def refused() -> None:
        raise AssertionError("A connection was opened.")

    monkeypatch.setattr(reads, "_opened", refused)
    found = await asyncio.gather(
        *(reads.look(spec.generation, WHERE, [("pay", 1)]) for _ in range(sql.CONNECTIONS)),
        *(reads.epoch(WHERE) for _ in range(sql.CONNECTIONS)),
    )
    assert len(found) == 2 * sql.CONNECTIONS
