"""The controller, the API and Redis are killed while a release is on trial. Whoever asks gets an answer; what
is known of the trial is not lost; and without a controller the champion answers everything."""

from __future__ import annotations

import asyncio
import threading
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from tests import live, trials
from tests.live import Instance
from tests.traffic import Seen, Traffic
from tests.trials import Desk

RATE = 5.0
LEASE = 5.0
AWAY = 8.0
"""Seconds after which a release that nobody watches has no requests."""
BACK = 30.0
"""Seconds within which what was killed works again: it is started with growing delays."""
PAIRS = 12
NEW = 12
"""New conversations of which a canary with half of all gets one, but for one look in four thousand."""
NOWHERE = "a-model-that-no-server-has"
"""The answers of its release are sentences of the sources, and say so."""


@pytest.fixture(scope="module")
def instance(parts_folder: Path) -> Iterator[Instance]:
    folder = parts_folder / "watched"
    folder.mkdir(mode=0o711)
    rules = trials.write_rules(folder, **trials.PROMPT)
    with live.instance(folder, "--no-sample", environment={"PLUMBLINE_RULES": str(rules)}) as one:
        documents = (
            {"id": "leave", "text": "There are 28 days of paid leave. It is paid at once."},
            {"id": "outage", "text": "During an outage customers are told what is known every hour."},
        )
        live.add(one, *documents)
        yield one


@dataclass(slots=True)
class Stand:
    """A champion, a candidate, and people who ask. `pinned` are conversations and where they began, `former`
    the champion before, `killed` when the controller was, by `time.time`."""

    desk: Desk
    traffic: Traffic
    champion: str
    candidate: str = ""
    former: str = ""
    killed: float = 0.0
    pinned: dict[str, str] = field(default_factory=dict)

    async def ask(self, names: Sequence[str], turn: str) -> dict[str, str]:
        """Conversations, and the releases that answered them; each answer is whole."""
        found = await asyncio.gather(
            *(self.traffic.ask(name, f"What is said of leave in {turn} {name}?") for name in names)
        )
        _require_whole(found)
        return {one.conversation: one.release for one in found}

    async def draw(self, count: int, candidates: int = 1) -> None:
        """Begin conversations, so many at a time until the candidate has its number of them, and the champion
        one; `pinned` has them."""
        wanted = f"{candidates} conversations are the candidate's"
        await _until(lambda: self._drew(count, candidates), BACK, wanted)

    async def _drew(self, count: int, candidates: int) -> bool:
        begun = len(self.pinned)
        names = [f"{self.candidate}-{n}" for n in range(begun, begun + count)]
        self.pinned |= await self.ask(names, "first")
        drawn = Counter(self.pinned.values())
        return drawn[self.candidate] >= candidates and drawn[self.champion] > 0

    async def add(self, name: str, *models: str) -> None:
        """A candidate that no other test has."""
        named = trials.release(f"{name}-{self.traffic.name}", *(models or ("extractive",)))
        self.candidate = await self.desk.add(named)

    async def canary(self, *steps: tuple[float, int], promote: bool = False) -> None:
        """Running, and with a share of the conversations."""
        plan = [{"share": share, "units": units} for share, units in steps]
        await self.desk.start("canary", self.candidate, steps=plan, promote=promote)
        await self.desk.until(self.candidate, lambda told: told["live"], BACK, what="watched")
        await _until(self.drawn, BACK, "the candidate answers")

    async def drawn(self) -> bool:
        name = f"{self.candidate}-look-{time.monotonic_ns()}"
        return (await self.ask([name], "look"))[name] == self.candidate


@pytest.fixture
async def stand(instance: Instance, request: pytest.FixtureRequest) -> AsyncIterator[Stand]:
    async with trials.desk(instance) as desk:
        champion = await desk.champion()
        name = f"t{zlib.crc32(request.node.name.encode())}"
        try:
            yield Stand(desk, Traffic(instance.url, RATE, name=name, first=_numbers(name)), champion)
        finally:
            with suppress(LookupError, psutil.Error):
                instance.part("app.cli", "controller").resume()
            await desk.end()
            if await desk.champion() != champion:
                await desk.promote(champion)


def _numbers(name: str) -> int:
    """Where the numbers of a test's questions begin: none is asked twice."""
    return int(name[1:]) * 1_000


async def _nothing(stand: Stand) -> None:
    await stand.add("idle")


async def _shadow(stand: Stand) -> None:
    await stand.add("shadow")
    await stand.desk.start("shadow", stand.candidate, pairs=PAIRS)
    await stand.desk.until(stand.candidate, lambda told: _pairs(told) >= 2, BACK, what="mirrored twice")


def _pairs(told: trials.Told) -> int:
    return int(told["evidence"].get("pairs", 0))


async def _first_step(stand: Stand) -> None:
    await stand.add("first-step")
    await stand.canary((0.5, 10_000))
    await stand.draw(12)


async def _between_steps(stand: Stand) -> None:
    """The first step has all it waits for, and the controller has not seen it."""
    await stand.add("between-steps")
    await stand.canary((0.4, 8), (0.6, 10_000))
    _controller(stand).suspend()
    await stand.draw(40, 8)


async def _before_promotion(stand: Stand) -> None:
    """The last step has all it waits for, and the controller has not seen it."""
    await stand.add("before-promotion")
    await stand.canary((0.5, 8), promote=True)
    _controller(stand).suspend()
    await stand.draw(40, 8)


async def _soaking(stand: Stand) -> None:
    await stand.add("soaking")
    await stand.canary((0.5, 10_000))
    await stand.draw(12)
    await stand.desk.promote(stand.candidate)
    stand.former, stand.champion = stand.champion, stand.candidate
    await _until(lambda: _serves(stand, stand.champion), BACK, "the new champion answers")


async def _serves(stand: Stand, release: str) -> bool:
    """As the champion: of so many new conversations a canary that the API still believes in would get one."""
    if await stand.desk.champion() != release:
        return False
    names = [f"new-{time.monotonic_ns()}-{n}" for n in range(NEW)]
    return set((await stand.ask(names, "look")).values()) == {release}


async def _rolling_back(stand: Stand) -> None:
    """The controller has decided, and its transaction waits for a row that is held: there it is killed."""
    await stand.add("harmful", NOWHERE, "extractive")
    await stand.canary((0.5, 10_000))
    controller = _controller(stand)
    controller.suspend()
    await stand.draw(64, 20)
    await asyncio.sleep(0.5)
    for _ in range(10):
        async with stand.desk.held(stand.candidate):
            controller.resume()
            if "decision" in await _blocked(stand):
                controller.kill()
                return
        await asyncio.sleep(0.05)
    pytest.fail("the controller never began to roll back")


async def _blocked(stand: Stand) -> str:
    """The statement that waits for the trial's row."""
    waiting = (
        "SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE trials%'"
    )
    for _ in range(40):
        if rows := await stand.desk.rows(waiting):
            return str(rows[0].query)
        await asyncio.sleep(0.05)
    return ""


async def _goes_on_idle(stand: Stand) -> None:
    """Its state is what it was, and the controller gives a trial that begins now its share."""
    found = (await stand.desk.http.get(f"/v1/releases/{stand.candidate}")).json()
    assert found["state"] == "evaluated"
    await stand.canary((0.5, 10_000))


async def _goes_on_mirroring(stand: Stand) -> None:
    """All pairs count, those from before the kill too."""
    async with stand.traffic.flowing():
        ended = await stand.desk.until(
            stand.candidate, lambda told: told["state"] != "running", 2 * BACK, what="at its end"
        )
    assert ended["state"] == "passed"
    rows = await stand.desk.rows("SELECT id FROM pairs WHERE trial = :id AND counted", id=ended["id"])
    assert PAIRS <= ended["decision"]["evidence"]["pairs"] <= len(rows)


async def _goes_on_in_the_first_step(stand: Stand) -> None:
    """The one that goes on counts every conversation that the ledger has, and goes on with the same share."""
    await _until(lambda: _watched_again(stand), BACK, "watched again")
    told = await stand.desk.trial(stand.candidate)
    assert (told["state"], told["step"], told["share"]) == ("running", 0, 0.5)
    # The API may not have seen yet what the ledger has.
    await _until(stand.drawn, BACK, "the candidate answers")
    assert await stand.ask(list(stand.pinned), "first step again") == stand.pinned


async def _goes_on_with_the_next_step(stand: Stand) -> None:
    told = await stand.desk.until(stand.candidate, lambda told: told["step"] == 1, BACK, what="a step on")
    assert told["share"] == 0.6
    steps = "SELECT id FROM audit WHERE subject = :id AND what = 'release.step'"
    assert len(await stand.desk.rows(steps, id=stand.candidate)) == 1


async def _promotes(stand: Stand) -> None:
    await stand.desk.until(stand.candidate, lambda told: told["state"] == "promoted", BACK, what="promoted")
    await _until(lambda: _serves(stand, stand.candidate), BACK, "the new champion answers")
    moves = "SELECT id FROM audit WHERE subject = :id AND what = 'release.promote'"
    assert len(await stand.desk.rows(moves, id=stand.candidate)) == 1
    assert (await stand.desk.http.get(f"/v1/releases/{stand.champion}")).json()["state"] == "soaking"


async def _goes_on_soaking(stand: Stand) -> None:
    """Conversations stay where they began."""
    assert set(stand.pinned.values()) == {stand.former, stand.champion}
    assert await stand.ask(list(stand.pinned), "soaking again") == stand.pinned


async def _rolls_back(stand: Stand) -> None:
    ended = await stand.desk.until(
        stand.candidate, lambda told: told["state"] != "running", BACK, what="rolled back"
    )
    assert ended["state"] == "rolled_back"
    assert ended["decision"]["metric"] == "degraded"
    await _until(lambda: _serves(stand, stand.champion), BACK, "the champion answers")
    assert set((await stand.ask(list(stand.pinned), "rolled back")).values()) == {stand.champion}


async def _watched_again(stand: Stand) -> bool:
    """Whether the lease is another one's than that of the controller that was killed, and all was read."""
    leased = "SELECT extract(epoch FROM lease_until) AS until FROM trials WHERE release_id = :id"
    counted = (
        "SELECT candidate, count(DISTINCT unit) AS units FROM outcomes JOIN trials ON trials.id = trial "
        "WHERE release_id = :id AND counted GROUP BY candidate"
    )
    [lease] = await stand.desk.rows(leased, id=stand.candidate)
    rows = await stand.desk.rows(counted, id=stand.candidate)
    known = (await stand.desk.trial(stand.candidate))["evidence"]["units"]
    again = float(lease.until) > stand.killed + LEASE
    return again and known == {("candidate" if row.candidate else "control"): row.units for row in rows}


def _controller(stand: Stand) -> psutil.Process:
    return stand.desk.one.part("app.cli", "controller")


def _kill(stand: Stand) -> None:
    stand.killed = time.time()
    with suppress(LookupError):  # The way into this state may have killed it.
        _controller(stand).kill()


@contextmanager
def _kept_away(one: Instance, *part: str) -> Iterator[None]:
    """Kill a part each time it appears, before it can do anything."""
    over = threading.Event()

    def keep() -> None:
        while not over.wait(0.05):
            with suppress(LookupError, psutil.Error):
                one.part(*part).kill()

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


async def _until(true: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not await true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.1)


def _require_whole(seen: Sequence[Seen]) -> None:
    assert [one for one in seen if one.status != 200 or one.ended != "whole"] == []


State = tuple[Callable[[Stand], Awaitable[None]], Callable[[Stand], Awaitable[None]]]
STATES: dict[str, State] = {
    "nothing runs": (_nothing, _goes_on_idle),
    "shadow": (_shadow, _goes_on_mirroring),
    "first step": (_first_step, _goes_on_in_the_first_step),
    "between steps": (_between_steps, _goes_on_with_the_next_step),
    "before promotion": (_before_promotion, _promotes),
    "soaking": (_soaking, _goes_on_soaking),
    "rollback being decided": (_rolling_back, _rolls_back),
}
"""How each is reached, and what comes of it once the controller is back."""


@pytest.mark.parametrize("state", STATES)
async def test_a_killed_controller_is_started_again_and_goes_on(stand: Stand, state: str) -> None:
    reach, goes_on = STATES[state]
    async with stand.traffic.flowing():
        await reach(stand)
        _kill(stand)
        await asyncio.sleep(1.0)
    await goes_on(stand)
    assert len(stand.traffic.seen) > RATE / 2
    _require_whole(stand.traffic.seen)


@pytest.mark.parametrize("state", STATES)
async def test_without_a_controller_the_champion_answers_everything(stand: Stand, state: str) -> None:
    reach, _ = STATES[state]
    async with stand.traffic.flowing():
        await reach(stand)
        with _kept_away(stand.desk.one, "app.cli", "controller"):
            await asyncio.sleep(AWAY)
            gone = time.time()
            mirrored = await stand.desk.rows("SELECT count(*) FROM pairs")
            again = await stand.ask(list(stand.pinned), "away")
            await asyncio.sleep(1.5)
            assert await stand.desk.rows("SELECT count(*) FROM pairs") == mirrored
    late = {one.release for one in stand.traffic.seen if one.sent > gone}
    if state == "soaking":  # It is no trial any more: nobody needs to watch it.
        assert late == {stand.champion}
        assert again == stand.pinned
    else:
        assert late | set(again.values()) == {stand.champion}
    _require_whole(stand.traffic.seen)


async def test_a_controller_that_hangs_holds_no_share(stand: Stand) -> None:
    await _first_step(stand)
    controller = _controller(stand)
    controller.suspend()
    await asyncio.sleep(AWAY)
    assert set((await stand.ask(list(stand.pinned), "hung")).values()) == {stand.champion}
    controller.resume()
    await stand.desk.until(stand.candidate, lambda told: told["live"], BACK, what="watched again")
    await _until(stand.drawn, BACK, "the candidate answers")
    assert await stand.ask(list(stand.pinned), "resumed") == stand.pinned


async def test_after_the_api_was_killed_conversations_stay_with_their_release(stand: Stand) -> None:
    """By what Redis has: at the share of now some of them would be drawn to the other."""
    await stand.add("api")
    await stand.canary((0.2, 6), (0.8, 10_000))
    await stand.draw(40, 6)
    await stand.desk.until(stand.candidate, lambda told: told["step"] == 1, BACK, what="a step on")
    stand.desk.one.part("app.cli", "serve").kill()
    await asyncio.sleep(0.5)
    await _until(lambda: _ready(stand), BACK, "the API is back")
    assert set(stand.pinned.values()) == {stand.champion, stand.candidate}
    await _until(stand.drawn, BACK, "the candidate answers")
    assert await stand.ask(list(stand.pinned), "again") == stand.pinned


async def _ready(stand: Stand) -> bool:
    try:
        return (await stand.desk.http.get("/health/ready")).status_code == 200
    except httpx.TransportError:
        return False


async def test_without_redis_conversations_are_drawn_the_same(stand: Stand) -> None:
    await stand.add("redis")
    await stand.canary((0.5, 10_000))
    await stand.draw(24)
    with _kept_away(stand.desk.one, "redis-server"):
        await asyncio.sleep(0.5)
        assert await stand.ask(list(stand.pinned), "away") == stand.pinned
    assert set(stand.pinned.values()) == {stand.champion, stand.candidate}
