"""Several servers of one model: where requests go, and what happens when one fails."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import pairwise

import pytest

from llm.breaker import Breaker
from llm.budget import RetryBudget
from llm.errors import ModelOverloaded, ModelRejected, ModelUnavailable, StreamBroken
from llm.replicas import Replica, Replicas
from llm.scripted import Script, Scripted
from llm.types import Call, Delta, Load
from tests.calls import becomes, call, drain

DOWN = Script(error=ModelUnavailable("down"))
FULL = Script(error=ModelOverloaded("full", 0.01))
FINE = Script(pieces=("yes",))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def built(
    servers: Sequence[Scripted], *, clock: Clock | None = None, budget: RetryBudget | None = None
) -> tuple[Replicas, list[Replica]]:
    clock = clock or Clock()

    async def look() -> Load | None:
        return None

    replicas = [
        Replica(f"http://{n}/v1", Breaker(server, clock=clock), look) for n, server in enumerate(servers)
    ]
    found = Replicas(replicas, budget=budget, clock=clock, chance=random.Random(3))
    return found, replicas


def about(source: str) -> Call:
    """A call about this source."""
    asked = call()
    return replace(asked, scope=replace(asked.scope, evidence=(source,)))


async def test_a_request_that_fails_before_its_first_word_is_answered_by_another_server() -> None:
    servers = [Scripted(DOWN), Scripted(FINE)]
    model, _ = built(servers)
    for _ in range(3):
        assert (await drain(model, call()))[0].text == "yes"


async def test_nothing_is_sent_again_after_the_first_word() -> None:
    broken = Script(pieces=("half",), error=StreamBroken("gone"))
    servers = [Scripted(broken), Scripted(broken)]
    model, _ = built(servers)
    with pytest.raises(StreamBroken):
        await drain(model, call())
    assert sum(len(server.calls) for server in servers) == 1


class Rude(Scripted):
    """Begins, and says then that it is down."""

    async def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        self.calls.append(call)
        yield Delta(text="half", model=self.name)
        raise ModelUnavailable("too late to say")


async def test_not_even_what_a_server_reports_wrongly_is_sent_again() -> None:
    servers = [Rude(), Rude()]
    model, _ = built(servers)
    with pytest.raises(ModelUnavailable):
        await drain(model, call())
    assert sum(len(server.calls) for server in servers) == 1


class Slow(Scripted):
    """Takes a while to begin, or to say that it cannot."""

    async def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        await asyncio.sleep(0.1)
        async for delta in super().stream(call):
            yield delta


async def test_a_request_is_sent_three_times_at_most_each_in_the_time_that_is_left() -> None:
    servers = [Slow(DOWN) for _ in range(5)]
    model, _ = built(servers, budget=RetryBudget(floor=100))
    with pytest.raises(ModelUnavailable):
        await drain(model, call(timeout=5.0))
    times = sorted((call.timeout for server in servers for call in server.calls), reverse=True)
    assert len(times) == 3
    assert all(later <= earlier - 0.1 for earlier, later in pairwise(times))


async def test_a_request_that_is_refused_for_what_it_is_goes_to_no_other_server() -> None:
    servers = [Scripted(Script(error=ModelRejected("too long"))) for _ in range(2)]
    model, _ = built(servers)
    with pytest.raises(ModelRejected):
        await drain(model, call())
    assert sum(len(server.calls) for server in servers) == 1


async def test_a_server_that_is_down_is_left_alone_after_a_few_requests() -> None:
    clock, servers = Clock(), [Scripted(DOWN), Scripted(FINE)]
    model, _ = built(servers, clock=clock, budget=RetryBudget(floor=100))
    for n in range(50):
        await drain(model, about(str(n)))
    assert len(servers[0].calls) == 5


async def test_a_server_that_is_back_is_used_again() -> None:
    clock, servers = Clock(), [Scripted(*[DOWN] * 5, FINE), Scripted(FINE)]
    model, _ = built(servers, clock=clock, budget=RetryBudget(floor=100))
    for n in range(50):
        await drain(model, about(str(n)))
    clock.now += 5
    before = len(servers[0].calls)
    for n in range(50):
        await drain(model, about(str(n)))
    assert len(servers[0].calls) > before + 10


async def test_retries_stay_within_their_budget() -> None:
    servers = [Scripted(FULL), Scripted(FULL)]
    model, _ = built(servers, budget=RetryBudget(share=0.1, floor=2, per_second=0))
    for _ in range(100):
        with pytest.raises(ModelOverloaded):
            await drain(model, call())
    assert 100 < sum(len(server.calls) for server in servers) <= 100 + 2 + 10


async def test_a_server_that_says_when_is_asked_again_then_and_not_when_it_is_too_late() -> None:
    once = Scripted(Script(error=ModelOverloaded("full", 0.05)), FINE)
    model, _ = built([once])
    assert (await drain(model, call()))[0].text == "yes"

    late = Scripted(Script(error=ModelOverloaded("full", 5.0)), FINE)
    model, _ = built([late])
    with pytest.raises(ModelOverloaded):
        await drain(model, call(timeout=1.0))
    assert len(late.calls) == 1


async def test_requests_go_where_less_is_waiting() -> None:
    clock, servers = Clock(), [Scripted(FINE), Scripted(FINE), Scripted(FINE)]
    model, replicas = built(servers, clock=clock)
    replicas[0].note(Load(running=30, waiting=10, at=clock.now))
    replicas[1].note(Load(running=30, waiting=10, at=clock.now))
    for n in range(300):
        await drain(model, about(str(n)))
    assert len(servers[2].calls) > 180


async def test_what_a_server_said_long_ago_is_not_believed() -> None:
    clock, servers = Clock(), [Scripted(FINE), Scripted(FINE)]
    model, replicas = built(servers, clock=clock)
    replicas[0].note(Load(running=30, waiting=10, at=clock.now))
    assert model.load() is not None
    clock.now += 60
    assert model.load() is None
    for n in range(100):
        await drain(model, about(str(n)))
    assert len(servers[0].calls) > 25


async def test_the_same_sources_go_to_the_same_server_while_it_is_about_as_free() -> None:
    servers = [Scripted(FINE) for _ in range(4)]
    model, _ = built(servers)
    for _ in range(20):
        await drain(model, about("handbook-7"))
    assert sorted(len(server.calls) for server in servers) == [0, 0, 0, 20]


async def test_the_same_sources_of_different_tenants_are_told_apart() -> None:
    """Who has asked of a passage must not show in how fast another tenant is answered."""
    servers = [Scripted(FINE) for _ in range(4)]
    model, _ = built(servers)
    for n in range(40):
        asked = about("handbook-7")
        await drain(model, replace(asked, scope=replace(asked.scope, tenant=f"tenant-{n}")))
    assert all(server.calls for server in servers)


async def test_our_own_requests_are_not_counted_twice() -> None:
    _, (replica,) = built([Scripted(FINE)])
    replica.open = 5
    replica.note(Load(running=6, waiting=1, at=100.0))
    assert replica.load(100.0) == 5 + 2 + 1  # Ours, those of others, and one that waits once more.


async def test_many_at_once_are_spread_over_the_servers_whatever_they_are_about() -> None:
    slow = Script(pieces=("a", "b"), pace=0.05)
    servers = [Scripted(slow) for _ in range(3)]
    model, _ = built(servers)
    await asyncio.gather(*(drain(model, about("one")) for _ in range(60)))
    assert min(len(server.calls) for server in servers) >= 10


async def test_an_abandoned_request_counts_no_longer() -> None:
    servers = [Scripted(Script(pieces=("a",) * 100, pace=0.05))]
    model, replicas = built(servers)
    async with aclosing(model.stream(call())) as deltas:
        await anext(deltas)
        assert replicas[0].open == 1
    assert replicas[0].open == 0


async def test_a_server_that_does_not_answer_the_look_is_not_sent_requests_until_it_does() -> None:
    servers, away = [Scripted(FINE), Scripted(FINE)], asyncio.Event()

    async def look() -> Load | None:
        if away.is_set():
            raise ModelUnavailable("away")
        return Load(running=0, waiting=0, at=asyncio.get_running_loop().time())

    replicas = [Replica(f"http://{n}/v1", Breaker(server), look) for n, server in enumerate(servers)]
    replicas[1].look = _idle
    model = Replicas(replicas)
    away.set()
    watching = asyncio.create_task(model.watch())
    try:
        assert await becomes(lambda: not replicas[0].alive)
        for n in range(20):
            await drain(model, about(str(n)))
        assert Counter({0: len(servers[0].calls), 1: len(servers[1].calls)}) == {0: 0, 1: 20}
        away.clear()
        assert await becomes(lambda: replicas[0].alive)
    finally:
        watching.cancel()


async def _idle() -> Load | None:
    return None


async def test_requests_earn_their_retries() -> None:
    servers = [Scripted(FULL), Scripted(FULL)]
    model, _ = built(servers, budget=RetryBudget(share=0.5, floor=0, per_second=0))
    for _ in range(20):
        with pytest.raises(ModelOverloaded):
            await drain(model, call())
    assert 28 <= sum(len(server.calls) for server in servers) <= 30


async def test_nothing_is_sent_again_where_the_only_other_server_is_down() -> None:
    servers = [Scripted(DOWN), Scripted(FINE)]
    model, replicas = built(servers)
    replicas[1].alive = False
    with pytest.raises(ModelUnavailable):
        await drain(model, call())
    assert [len(server.calls) for server in servers] == [1, 0]


async def test_a_server_that_may_be_back_is_looked_at_however_loaded_it_is() -> None:
    clock, servers = Clock(), [Scripted(*[DOWN] * 5, FINE), Scripted(FINE)]
    model, replicas = built(servers, clock=clock, budget=RetryBudget(floor=100))
    for n in range(50):
        await drain(model, about(str(n)))
    assert replicas[0].model.state == "open"
    clock.now += 5
    replicas[0].note(Load(running=50, waiting=50, at=clock.now))
    await drain(model, about("once more"))
    assert [replica.model.state for replica in replicas] == ["closed", "closed"]


async def test_the_first_of_the_sources_says_where_a_request_goes() -> None:
    """The prompt begins with it, and so does what a server has kept of it."""
    servers = [Scripted(FINE) for _ in range(4)]
    model, _ = built(servers)

    async def goes(*sources: str) -> int:
        before = [len(server.calls) for server in servers]
        asked = call()
        await drain(model, replace(asked, scope=replace(asked.scope, evidence=sources)))
        return next(n for n, server in enumerate(servers) if len(server.calls) > before[n])

    for n in range(20):
        assert await goes(str(n), "a") == await goes(str(n), "b", "c")


async def test_what_the_servers_have_to_do_together_is_the_sum() -> None:
    clock = Clock()
    model, replicas = built([Scripted(FINE) for _ in range(3)], clock=clock)
    assert model.load() is None
    for replica, waiting in zip(replicas, (2, 3), strict=False):
        replica.note(Load(running=10, waiting=waiting, at=clock.now))
    load = model.load()
    assert load
    assert (load.running, load.waiting) == (20, 5)
