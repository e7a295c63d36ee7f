"""Outcomes of trials on their way into the ledger: written or counted as lost, whatever happens."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.access import Access
from app.database import open_engine
from app.embedded import free_port
from app.outcomes import Outcomes
from app.tables import outcomes, pairs, releases, trials


@pytest.fixture
async def outcome(engine: AsyncEngine) -> dict[str, Any]:
    """A row of a trial that there is."""
    name = uuid.uuid4().hex
    release = {"id": name, "name": name, "fingerprint": name, "canonical": "{}", "state": "draft"}
    trial = {"kind": "canary", "release_id": name, "control_id": name, "plan": {}, "who": "a test"}
    ended = {"ended_at": func.now(), "state": "stopped"}
    async with engine.begin() as connection:
        await connection.execute(insert(releases).values(release))
        made = insert(trials).values(trial | ended).returning(trials.c.id)
        found = (await connection.execute(made)).scalar_one()
    plain = {"candidate": True, "counted": True, "kind": "chat", "tenant": "acme", "unit": "u"}
    return {**plain, "trial": found, "propensity": 0.5, "answer": name, "facts": {}}


async def _written(engine: AsyncEngine, row: dict[str, Any]) -> int:
    async with engine.connect() as connection:
        counted = select(func.count()).select_from(outcomes).where(outcomes.c.trial == row["trial"])
        return int((await connection.execute(counted)).scalar_one())


async def _until_somebody_waits(connection: AsyncConnection) -> None:
    waiting = text(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'outcomes'::regclass"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    while not (await connection.execute(waiting)).scalar_one():
        await asyncio.sleep(0.01)


async def test_what_is_being_written_when_the_service_stops_is_written(
    engine: AsyncEngine, outcome: dict[str, Any]
) -> None:
    kept = Outcomes(engine)
    writing = kept.writing()
    await writing.__aenter__()
    async with engine.begin() as holder:
        await holder.execute(text("LOCK TABLE outcomes IN EXCLUSIVE MODE"))
        kept.record(outcome)
        await _until_somebody_waits(holder)
        ending = asyncio.create_task(writing.__aexit__(None, None, None))
        await asyncio.sleep(0.05)
    await ending
    assert (await _written(engine, outcome), kept.lost) == (1, 0)


async def test_what_waits_when_the_service_stops_is_written(
    engine: AsyncEngine, outcome: dict[str, Any]
) -> None:
    kept = Outcomes(engine)
    async with kept.writing():
        for _ in range(3):
            kept.record(outcome)
    assert (await _written(engine, outcome), kept.lost) == (3, 0)


async def test_a_value_that_postgresql_refuses_is_a_defect_and_its_rows_are_counted_as_lost(
    engine: AsyncEngine, outcome: dict[str, Any]
) -> None:
    kept = Outcomes(engine)
    kept.record({**outcome, "unit": "a\x00b"})
    with pytest.raises(DBAPIError):
        await kept.flush()
    assert (await _written(engine, outcome), kept.lost) == (0, 1)


async def test_outcomes_and_pairs_that_come_in_turn_go_each_to_their_own(
    engine: AsyncEngine, outcome: dict[str, Any]
) -> None:
    kept = Outcomes(engine)
    apart = ("candidate", "unit", "propensity", "facts")
    pair = {name: value for name, value in outcome.items() if name not in apart}
    for _ in range(2):
        kept.record(outcome)
        kept.record_pair({**pair, "champion": {}, "candidate": {}})
    await kept.flush()
    async with engine.connect() as connection:
        counted = select(func.count()).select_from(pairs).where(pairs.c.trial == outcome["trial"])
        assert (await connection.execute(counted)).scalar_one() == 2
    assert (await _written(engine, outcome), kept.lost) == (2, 0)


async def test_what_has_no_room_to_wait_is_lost_and_counted(
    engine: AsyncEngine, outcome: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.outcomes.MOST", 2)
    kept = Outcomes(engine)
    for _ in range(3):
        kept.record(outcome)
    await kept.flush()
    assert (await _written(engine, outcome), kept.lost) == (2, 1)


async def test_a_ledger_that_is_away_ends_nothing_that_writes_outcomes(outcome: dict[str, Any]) -> None:
    nobody = open_engine(f"postgresql+asyncpg://nobody@127.0.0.1:{free_port()}/none")
    kept = Outcomes(nobody)
    async with kept.writing():
        kept.record(outcome)
    assert kept.lost == 1
    await nobody.dispose()


async def test_a_value_that_postgresql_refuses_is_no_outage(engine: AsyncEngine) -> None:
    with pytest.raises(DBAPIError):
        await Access(engine).list_keys("a\x00b")


async def test_what_waits_behind_rows_that_are_lost_is_written_without_being_woken_again(
    engine: AsyncEngine, outcome: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.outcomes.AT_ONCE", 1)
    kept = Outcomes(engine)
    async with kept.writing():
        kept.record({**outcome, "unit": "a\x00b"})
        kept.record(outcome)
        async with asyncio.timeout(10):
            while not await _written(engine, outcome):
                await asyncio.sleep(0.05)
    assert (await _written(engine, outcome), kept.lost) == (1, 1)
