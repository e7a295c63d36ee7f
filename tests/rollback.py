"""How a canary ends whose model begins to fail: when it was decided, and who was still sent to it.

All times are of this machine's clock: that of the traffic, of PostgreSQL and of the service are the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from tests.load.faulty import Fault, Proxy
from tests.traffic import RELEASE, Seen, Traffic
from tests.trials import Desk, Told

FAULT = Fault(slow=3.0, errors=0.2)
AFTER = 8.0
"""Seconds that are looked at after the decision."""
PROBE = 0.05
"""Seconds between searches of the candidate's: questions come too rarely to show when the last one went."""
_BEGUN = """
SELECT max(extract(epoch FROM at) - (facts->>'seconds')::float) AS last, count(*) AS requests
FROM outcomes WHERE trial = :trial AND candidate
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """`decided_after` is in seconds from the fault to the decision; the `last` ones from the decision: when
    the last question was sent that the candidate answered, the last such of `searches`, one after the other,
    and, by what the service recorded, when its work on the last of either began at the latest (it is written
    up to 0.2 s later). `degraded` are answers before the fault, from then to the decision, and after it;
    `rates` are of harm, the candidate's and the champion's."""

    metric: str
    why: str
    decided_after: float
    last_question: float
    last_search: float
    last_begun: float
    searches: int
    conversations: int
    requests: int
    by_candidate: int
    by_candidate_faulty: int
    after: int
    streams: int
    streams_broken: int
    streams_with_error: int
    failed: tuple[str, ...]
    degraded: tuple[int, int, int]
    rates: dict[str, tuple[float | None, float | None]]


async def roll_back(
    desk: Desk,
    traffic: Traffic,
    proxy: Proxy,
    candidate: str,
    steps: Sequence[tuple[float, int]],
    *,
    patience: float,
) -> Measured:
    """Start a canary; once it is in its last step, let its model fail; watch until it is rolled back, and
    `AFTER` seconds longer."""
    plan = [{"share": share, "units": units} for share, units in steps]
    async with traffic.flowing():
        await desk.start("canary", candidate, steps=plan, promote=False)
        await desk.until(
            candidate, lambda told: _at_last(told, len(steps)), patience, what="in its last step"
        )
        searching = asyncio.create_task(_search_on(desk, await _its_query(desk, candidate)))
        injected, proxy.fault = time.time(), FAULT
        ended = await desk.until(
            candidate, lambda told: told["state"] != "running", patience, what="decided on"
        )
        await asyncio.sleep(AFTER)
        searching.cancel()
    searched = await searching
    assert ended["state"] == "rolled_back", ended["decision"]
    [begun] = await desk.rows(_BEGUN, trial=ended["id"])
    return _measured(traffic.seen, searched, candidate, ended, injected, float(begun.last))


async def _its_query(desk: Desk, candidate: str) -> str:
    """A search that was drawn to the candidate, and stays with it."""
    for number in range(200):
        query = f"paid leave {number}"
        if await _searched(desk, query) == candidate:
            return query
    raise AssertionError("no search was drawn to the candidate")


async def _search_on(desk: Desk, query: str) -> list[tuple[float, str]]:
    """Search until cancelled: when each was sent, and which release answered."""
    found = []
    with suppress(asyncio.CancelledError):
        while True:
            sent = time.time()
            found.append((sent, await _searched(desk, query)))
            await asyncio.sleep(PROBE)
    return found


async def _searched(desk: Desk, query: str) -> str:
    reply = await desk.http.post("/v1/search", json={"query": query, "limit": 1})
    assert reply.status_code == 200, reply.text
    return str(reply.headers[RELEASE])


def _at_last(told: Told, steps: int) -> bool:
    """Its last step has begun, and some of its conversations are done."""
    assert told["state"] == "running", told["decision"]
    return bool(told["step"] == steps - 1 and told["evidence"]["settled"]["candidate"] > 0)


def _measured(
    seen: Sequence[Seen],
    searched: Sequence[tuple[float, str]],
    candidate: str,
    ended: Told,
    injected: float,
    begun: float,
) -> Measured:
    decided = datetime.fromisoformat(ended["ended_at"]).timestamp()
    his = [one for one in seen if one.release == candidate]
    degraded = [one.sent for one in seen if one.degraded]
    return Measured(
        metric=ended["decision"]["metric"],
        why=ended["decision"]["why"],
        decided_after=round(decided - injected, 3),
        last_question=round(max(one.sent for one in his) - decided, 3),
        last_search=round(max(sent for sent, release in searched if release == candidate) - decided, 3),
        last_begun=round(begun - decided, 3),
        searches=len(searched),
        conversations=ended["decision"]["evidence"]["units"]["candidate"],
        requests=len(seen),
        by_candidate=len(his),
        by_candidate_faulty=sum(one.sent >= injected for one in his),
        after=sum(one.sent > decided for one in seen),
        streams=sum(one.streamed for one in seen),
        streams_broken=sum(one.status == 200 and one.ended == "broken" for one in seen),
        streams_with_error=sum(one.status == 200 and one.ended == "error" for one in seen),
        failed=tuple(f"{one.status} {one.code}" for one in seen if one.status != 200),
        degraded=(
            sum(at < injected for at in degraded),
            sum(injected <= at <= decided for at in degraded),
            sum(at > decided for at in degraded),
        ),
        rates={
            one["metric"]: (one["rate_candidate"], one["rate_control"])
            for one in ended["decision"]["evidence"]["metrics"]
        },
    )
