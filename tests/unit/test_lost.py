"""What is known of an index that has lost rows, look by look."""

from __future__ import annotations

import asyncio

import pytest

from app import lost
from app.lost import Losses
from ingestion.errors import IndexIncomplete
from ingestion.types import Placed
from retrieval.errors import StoreUnavailable

MISSING = Placed("acme", "d", 7, 1)


class Rows:
    """An index of which a few rows tell `few`, and many of them `many`."""

    def __init__(self) -> None:
        self.few: Exception | None = None
        self.many: Exception | None = None
        self.looked: list[Placed | None] = []

    async def require(self, generation: str, missing: Placed | None) -> None:
        self.looked.append(missing)
        wrong = self.many if missing else self.few
        if wrong:
            raise wrong


async def test_what_lost_rows_is_whole_again_only_when_many_of_them_are_there() -> None:
    rows = Rows()
    losses = Losses(rows.require)
    await losses.look("g")
    assert not losses.has("g")
    rows.few = rows.many = IndexIncomplete("gone", MISSING)
    with pytest.raises(IndexIncomplete):
        await losses.look("g")
    assert (losses.has("g"), losses.has("other")) == (True, False)
    rows.few = None
    with pytest.raises(IndexIncomplete):
        await losses.look("g")
    assert losses.has("g")
    rows.many = None
    await losses.look("g")
    assert not losses.has("g")
    assert rows.looked == [None, None, MISSING, MISSING]


async def test_a_part_that_is_away_tells_nothing_and_a_look_that_fails_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lost, "PERIOD", 0.001)
    rows = Rows()
    rows.few = rows.many = IndexIncomplete("gone", MISSING)
    losses = Losses(rows.require)

    async def looks(count: int) -> None:
        wanted = len(rows.looked) + count
        while len(rows.looked) < wanted:
            await asyncio.sleep(0.001)

    async with losses.looking(lambda: {"g"}):
        assert losses.has("g")
        rows.many = StoreUnavailable("away")
        await looks(3)
        assert losses.has("g")
        rows.many = RuntimeError("a mistake of ours")
        await looks(3)
        rows.many = None
        await looks(3)
        assert not losses.has("g")
    ended = len(rows.looked)
    await asyncio.sleep(0.02)
    assert len(rows.looked) == ended
