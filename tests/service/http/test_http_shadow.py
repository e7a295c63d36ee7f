"""A shadow on the running service: it answers beside the champion, and nobody notices."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import insert, text

from app import tables
from app.admission import Admission
from app.deadline import after
from app.shadow import MOST
from app.trials import Trial
from llm.errors import ModelRejected
from llm.scripted import Script, Scripted
from llm.types import Call, Delta, Load
from tests.service.http.house import Tenant
from tests.service.http.test_http_canary import (
    FINE,
    QUESTION,
    Stand,
    ask,
    asker,
    plays,
    prepared,
    rules,
    stand,
)

__all__ = ["asker", "rules", "stand"]

WORSE = Script(pieces=("\x01 There is no leave.",))


async def shadow(stand: Stand, **plan: Any) -> Trial:
    trial = await stand.house.services.trials.start("shadow", stand.candidate.id, plan)
    async with asyncio.timeout(30):
        while not (on_trial := stand.house.services.release.standing().shadow) or not on_trial.live:
            await stand.tick()
    return trial


async def pairs(stand: Stand, trial: Trial) -> list[Any]:
    await stand.house.services.outcomes.flush()
    return list(await stand.house.services.trials.pairs(trial.id))


async def mirrored(stand: Stand, asker: Tenant, trial: Trial, wanted: int) -> list[Any]:
    """Ask until so many answers were mirrored: one that is stopped, because somebody waits, is lost."""
    async with asyncio.timeout(60):
        for n in itertools.count():
            reply = await ask(asker, f"{trial.id}-{n}", f"{QUESTION} ({n})")
            assert reply["release"] == stand.champion.id
            before = len(await pairs(stand, trial))
            for _ in range(100):
                if len(found := await pairs(stand, trial)) > before:
                    break
                await asyncio.sleep(0.02)
            if len(found) >= wanted:
                return found
            await stand.tick()
            if (await stand.trial(trial)).state != "running":
                return found
    raise AssertionError


async def test_answers_are_mirrored_and_measured_and_no_text_is_kept(stand: Stand, asker: Tenant) -> None:
    trial = await shadow(stand)
    found = await mirrored(stand, asker, trial, 3)
    assert all(pair.counted for pair in found)
    assert {"fault", "degraded", "unsupported", "seconds"} <= found[0].candidate.keys()
    async with stand.engine.connect() as connection:
        kept = await connection.scalar(
            text("SELECT string_agg(pairs::text, '') FROM pairs WHERE trial = CAST(:id AS uuid)"),
            {"id": trial.id},
        )
    assert "28 days" not in kept


async def test_a_kept_answer_is_not_mirrored(stand: Stand, asker: Tenant) -> None:
    await ask(asker, "first")
    trial = await shadow(stand)
    reply = await ask(asker, "second")
    assert reply["plumbline"]["cached"] == "answer"
    await asyncio.sleep(0.2)
    assert await pairs(stand, trial) == []
    assert len(await mirrored(stand, asker, trial, 1)) == 1


async def test_a_shadow_leaves_nothing_in_the_caches(stand: Stand, asker: Tenant) -> None:
    services = stand.house.services
    trial = await shadow(stand)
    await mirrored(stand, asker, trial, 1)
    asked = f"{QUESTION} (0)"
    body = {
        "model": f"plumbline@{stand.champion.id}",
        "messages": [{"role": "user", "content": asked}],
    }
    again = await asker.http.post("/v1/chat/completions", json=body)
    assert again.json()["plumbline"]["cached"] == "answer"
    await services.trials.end(trial, "stopped", {"why": "now a canary"})
    canary = await stand.canary((0.99, 1_000))
    await prepared(stand, canary, share=1.0)
    reply = await ask(asker, "d", asked)
    assert reply["release"] == stand.candidate.id
    assert reply["plumbline"]["cached"] is None
    await services.trials.end(canary, "stopped", {"why": "over"})


async def test_a_shadow_works_out_anew_what_it_was_asked_before(stand: Stand, asker: Tenant) -> None:
    trial = await stand.house.services.trials.start("shadow", stand.candidate.id, {})
    model = Scripted(FINE, name="extractive")
    plays(stand, stand.candidate, lambda: model)
    await stand.house.services.trials.renew(trial, step=0, share=1.0, evidence={}, seconds=60)
    await stand.house.services.release.refresh()
    cut_off = replace(FINE, finish="length")  # That is not kept.
    with stand.house.stage.plays(cut_off):
        async with asyncio.timeout(30):
            while len(found := await pairs(stand, trial)) < 2:
                await ask(asker, "c")
                await asyncio.sleep(0.05)
    assert len(model.calls) >= len(found)


async def test_a_shadow_that_is_worse_ends_as_failed_before_it_answered_anybody(
    stand: Stand, asker: Tenant
) -> None:
    stand.house.stages[stand.candidate.id] = Scripted(*[WORSE] * 200, name="extractive")
    services = stand.house.services
    services.shadow._servings._ready.pop(stand.candidate.fingerprint, None)
    trial = await shadow(stand)
    await mirrored(stand, asker, trial, 200)
    ended = await stand.trial(trial)
    assert ended.state == "failed"
    assert ended.decision
    assert "e-value" in ended.decision["why"]
    found = await services.release.show(stand.candidate.id)
    assert (found.state, found.evaluated) == ("retired", False)


async def test_a_shadow_whose_model_takes_no_request_ends_as_failed(stand: Stand, asker: Tenant) -> None:
    refuses = Script(error=ModelRejected("the model does not exist"))
    stand.house.stages[stand.candidate.id] = Scripted(refuses, name="extractive")
    services = stand.house.services
    services.shadow._servings._ready.pop(stand.candidate.fingerprint, None)
    trial = await shadow(stand)
    await mirrored(stand, asker, trial, 200)
    ended = await stand.trial(trial)
    assert ended.state == "failed"
    assert ended.decision
    assert ended.decision["metric"] == "faults"


async def test_a_shadow_without_harm_passes_and_may_go_on_to_a_canary(stand: Stand, asker: Tenant) -> None:
    trial = await shadow(stand, pairs=2)
    await mirrored(stand, asker, trial, 2)
    await stand.tick()
    assert (await stand.trial(trial)).state == "passed"
    assert (await stand.house.services.release.show(stand.candidate.id)).state == "evaluated"
    assert (await stand.canary((0.1, 10))).state == "running"


async def test_a_shadow_passes_with_all_its_pairs_and_not_before(stand: Stand) -> None:
    trial = await shadow(stand, pairs=3)
    facts = {"fault": 0.0, "seconds": 0.1}
    pair = {"trial": trial.id, "kind": "chat", "tenant": "acme", "champion": facts, "candidate": facts}
    for counted, state in ((True, "running"), (False, "running"), (True, "running"), (True, "passed")):
        async with stand.engine.begin() as connection:
            await connection.execute(insert(tables.pairs), {**pair, "counted": counted, "answer": "a"})
        await stand.tick()
        assert (await stand.trial(trial)).state == state


class Held(Scripted):
    """Answers when it is let."""

    def __init__(self) -> None:
        super().__init__(Script(pieces=("There are 28 days [1].",)), name="extractive")
        self.let = asyncio.Event()

    async def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        await self.let.wait()
        async for delta in super().stream(call):
            yield delta


async def test_a_pair_counts_only_where_both_saw_the_same_documents(stand: Stand, asker: Tenant) -> None:
    held, services = Held(), stand.house.services
    stand.house.stages[stand.candidate.id] = held
    services.shadow._servings._ready.pop(stand.candidate.fingerprint, None)
    trial = await shadow(stand)
    await services.trials.renew(trial, step=0, share=1.0, evidence={}, seconds=60)
    await services.release.refresh()
    await ask(asker, "before")
    await asker.add({"id": "later", "text": "Leave is asked for in writing."})
    held.let.set()
    async with asyncio.timeout(30):
        while not (found := await pairs(stand, trial)):
            await asyncio.sleep(0.02)
    assert [pair.counted for pair in found] == [False]


async def test_answers_that_a_shadow_has_no_room_for_are_dropped(
    stand: Stand, asker: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, offered = stand.house.services, list[tuple[Any, ...]]()
    trial = await shadow(stand)
    await services.trials.renew(trial, step=0, share=1.0, evidence={}, seconds=60)
    await services.release.refresh()
    offer = services.shadow.offer
    monkeypatch.setattr(services.shadow, "offer", lambda *job: offered.append(job))
    await ask(asker, "one")
    before = services.shadow.counts[stand.candidate.id, "dropped"]
    for _ in range(MOST + 3):
        offer(*offered[0])
    assert services.shadow.counts[stand.candidate.id, "dropped"] == before + 3


async def test_whoever_waits_here_or_at_a_model_goes_before_a_shadow(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, waiting = stand.house.services, 0
    monkeypatch.setattr(services.shadow, "_load", lambda: Load(running=3, waiting=waiting, at=0.0))
    async with AsyncExitStack() as turns:
        for _ in range(services.admission.limit):
            await turns.enter_async_context(services.admission.turn("acme", after(30)))
        assert not services.shadow._busy()  # The model has room for more.
        waiting = 1
        assert services.shadow._busy()
        waiting = 0
        late = asyncio.create_task(_turn(services.admission))
        async with asyncio.timeout(30):
            while not services.admission.waiting:
                await asyncio.sleep(0)
        assert services.shadow._busy()
    await late
    assert not services.shadow._busy()


async def _turn(admission: Admission) -> None:
    async with admission.turn("acme", after(30)):
        pass


async def test_a_shadow_stops_as_soon_as_somebody_waits(stand: Stand, asker: Tenant) -> None:
    services = stand.house.services
    slow = Script(pieces=("There ", "are ", "28 ", "days [1]."), pace=0.5)
    stand.house.stages[stand.candidate.id] = Scripted(*[slow] * 50, name="extractive")
    services.shadow._servings._ready.pop(stand.candidate.fingerprint, None)
    await shadow(stand)
    await ask(asker, "s", QUESTION)
    await asyncio.sleep(0.1)
    await asyncio.gather(*(ask(asker, f"t{n}", f"{QUESTION} ({n})") for n in range(4)))
    async with asyncio.timeout(30):
        while not services.shadow.counts[stand.candidate.id, "stopped"]:
            await asyncio.sleep(0.02)
