"""A canary on the running service: who gets which release, what is recorded, and how it ends."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError

from app.errors import ReleaseConflict
from app.release import Release, with_model
from app.tables import outcomes
from app.trials import Trial
from app.wiring import Control
from eval.controller import Controller, alone
from eval.rules import Rules, load_rules
from ingestion.errors import LedgerUnavailable
from llm.errors import ModelRejected, ModelUnavailable
from llm.scripted import Script, Scripted
from llm.types import ChatModel
from tests.service.http.house import House, Tenant

QUESTION = "How many days of paid leave are there?"
FINE = Script(pieces=("There are 28 days of paid leave [1].",))
PROMPT_RULES: dict[str, Any] = {"warm_up_seconds": 0.0, "settle_seconds": 0.0, "slow_floor_seconds": 30.0}


@dataclass(slots=True)
class Stand:
    """A candidate on trial beside the champion, and a controller that is ticked by hand."""

    house: House
    candidate: Release
    champion: Release
    controller: Controller

    @property
    def engine(self) -> Any:
        return self.house.services.release._engine

    async def canary(self, *steps: tuple[float, int], promote: bool = False) -> Trial:
        plan = {"steps": [{"share": s, "units": n, "least_minutes": 0} for s, n in steps], "promote": promote}
        return await self.house.services.trials.start("canary", self.candidate.id, plan)

    async def tick(self) -> None:
        await self.house.services.outcomes.flush()
        await self.controller.tick()
        await self.house.services.release.refresh()

    async def trial(self, trial: Trial) -> Trial:
        return next(
            one for one in await self.house.services.trials.of(self.candidate.id) if one.id == trial.id
        )

    async def rows(self, trial: Trial) -> list[Any]:
        await self.house.services.outcomes.flush()
        async with self.engine.connect() as connection:
            found = await connection.execute(
                text("SELECT * FROM outcomes WHERE trial = CAST(:id AS uuid) ORDER BY id"), {"id": trial.id}
            )
            return list(found.all())


@pytest.fixture
def rules() -> Rules:
    loaded = load_rules()
    assert loaded.canary
    return loaded.model_copy(update={"canary": loaded.canary.model_copy(update=PROMPT_RULES)})


@pytest.fixture
async def stand(house: House, rules: Rules) -> AsyncIterator[Stand]:
    services = house.services
    champion = services.release.champion().release
    candidate = with_model(champion, "extractive")
    candidate = replace(candidate, body=candidate.body.model_copy(update={"name": "candidate"}))
    await services.release.add(candidate)
    await services.release.judge(candidate.id, {}, passed=True)
    control = Control(
        registry=services.release,
        trials=services.trials,
        promotions=services.promotions,
        engine=services.release._engine,
    )
    yield Stand(house, candidate, champion, Controller(control, rules))
    for trial in await services.trials.running():
        await services.trials.end(trial, "stopped", {"why": "the test is over"})
    if services.release.champion().release.id != champion.id:
        await services.promotions.rollback()
    await services.release.refresh()
    house.stages.clear()
    # The next test's candidate is the same release, and must not answer by this one's model.
    services.assigner._servings._ready.pop(candidate.fingerprint, None)


@pytest.fixture
async def asker(tenant: Tenant) -> Tenant:
    await tenant.add({"id": "leave", "text": "There are 28 days of paid leave. It is paid at once."})
    return tenant


async def ask(tenant: Tenant, conversation: str, question: str = QUESTION, **more: Any) -> dict[str, Any]:
    reply = await tenant.http.post(
        "/v1/chat/completions",
        json={
            "messages": [{"role": "user", "content": question}],
            "plumbline": {"conversation": conversation, **more},
        },
    )
    return {**reply.json(), "status": reply.status_code, "release": reply.headers.get("x-plumbline-release")}


def plays(stand: Stand, release: Release, make: Callable[[], ChatModel]) -> None:
    """Let a release answer by this model from now on."""
    stand.house.stages[release.id] = make()
    stand.house.services.assigner._servings._ready.pop(release.fingerprint, None)


async def prepared(stand: Stand, trial: Trial, share: float | None = None) -> None:
    """Wait until the candidate may get conversations: its plan's share, or this one, which may be all."""
    services = stand.house.services
    async with asyncio.timeout(30):
        while True:
            await stand.tick()
            canary = services.release.standing().canary
            if canary and canary.live and services.assigner._servings.ready(stand.candidate):
                break
            await asyncio.sleep(0.02)
    # Where nobody ticks while a test asks, the controller's lease may be over before it has asked all.
    given = canary.share if share is None else share
    await services.trials.renew(trial, step=0, share=given, evidence={}, seconds=60)
    await services.release.refresh()


async def test_nothing_is_routed_to_a_canary_that_nobody_watches(stand: Stand, asker: Tenant) -> None:
    trial = await stand.canary((0.99, 100))
    assert not trial.live
    replies = [await ask(asker, f"c{n}") for n in range(8)]
    assert {reply["release"] for reply in replies} == {stand.champion.id}
    assert await stand.rows(trial) == []


async def test_a_conversation_stays_with_the_release_it_was_drawn_to(stand: Stand, asker: Tenant) -> None:
    trial = await stand.canary((0.5, 1_000))
    await prepared(stand, trial)
    first = [(await ask(asker, f"c{n}", f"{QUESTION} ({n})"))["release"] for n in range(24)]
    assert set(first) == {stand.champion.id, stand.candidate.id}
    again = [(await ask(asker, f"c{n}", f"And how is it paid? ({n})"))["release"] for n in range(24)]
    assert again == first
    rows = await stand.rows(trial)
    assert {row.propensity for row in rows} == {0.5}
    assert len({row.unit for row in rows}) == 24


async def test_what_began_before_the_canary_stays_with_the_champion(stand: Stand, asker: Tenant) -> None:
    trial = await stand.canary((0.99, 1_000))
    await prepared(stand, trial)
    history = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": QUESTION},
    ]
    for n in range(6):
        body = {"messages": history, "plumbline": {"conversation": f"old{n}"}}
        reply = await asker.http.post("/v1/chat/completions", json=body)
        assert reply.headers["x-plumbline-release"] == stand.champion.id
    assert await stand.rows(trial) == []


async def test_without_redis_the_draw_is_the_same(stand: Stand, asker: Tenant) -> None:
    trial = await stand.canary((0.5, 1_000))
    await prepared(stand, trial)
    first = [(await ask(asker, f"c{n}", f"{QUESTION} ({n})"))["release"] for n in range(12)]
    line = stand.house.services.assigner._assignments._line
    line._retry_at = line._clock() + 60
    try:
        again = [(await ask(asker, f"c{n}", f"{QUESTION} ({n})"))["release"] for n in range(12)]
    finally:
        line._retry_at = None
    assert again == first


async def test_a_lease_that_is_not_renewed_takes_the_candidate_off_the_traffic(
    stand: Stand, asker: Tenant
) -> None:
    trial = await stand.canary((0.99, 1_000))
    await prepared(stand, trial, share=1.0)
    assert (await ask(asker, "c"))["release"] == stand.candidate.id
    await stand.house.services.trials.renew(trial, step=0, share=1.0, evidence={}, seconds=0.2)
    await stand.house.services.release.refresh()
    await asyncio.sleep(0.3)
    assert (await ask(asker, "c", "And then?"))["release"] == stand.champion.id
    await stand.tick()
    assert (await ask(asker, "c", "And now?"))["release"] == stand.candidate.id


async def test_only_questions_that_neither_release_has_answered_count(stand: Stand, asker: Tenant) -> None:
    """Else the candidate, whose cache is cold, would be asked more than its share of what counts."""
    await ask(asker, "before")
    trial = await stand.canary((0.5, 1_000))
    await prepared(stand, trial)
    for n in range(12):
        await ask(asker, f"known{n}")
    assert not any(row.counted for row in await stand.rows(trial))
    for n in range(12):
        await ask(asker, f"new{n}", "How is it paid?")
    counted = [row for row in await stand.rows(trial) if row.counted]
    assert len(counted) == 1
    assert {"fault", "seconds", "degraded"} <= counted[0].facts.keys()
    assert "28 days" not in str(counted[0].facts)


async def test_a_candidate_that_fails_is_rolled_back_and_its_conversations_go_on(
    stand: Stand, asker: Tenant
) -> None:
    trial = await stand.canary((0.5, 1_000))
    down = Script(error=ModelUnavailable("down"))
    plays(stand, stand.candidate, lambda: Scripted(*[down] * 400, name="extractive"))
    await prepared(stand, trial)
    went = set()
    for n in range(200):
        reply = await ask(asker, f"c{n}", f"{QUESTION} ({n})")
        assert reply["status"] == 200
        went.add(reply["release"])
        if len(went) < 2:  # Chance decides who is drawn, and it is not to be over before both were.
            continue
        await stand.tick()
        if (await stand.trial(trial)).state != "running":
            break
    ended = await stand.trial(trial)
    assert ended.state == "rolled_back"
    assert ended.decision
    assert ended.decision["metric"] in ("degraded", "faults")
    assert went == {stand.champion.id, stand.candidate.id}
    after = [await ask(asker, f"c{n}", "Anything else?") for n in range(10)]
    assert {reply["release"] for reply in after} == {stand.champion.id}
    found = await stand.house.services.release.show(stand.candidate.id)
    assert (found.state, found.evaluated) == ("retired", False)
    affected = await stand.house.services.trials.affected(trial.id)
    assert affected.requests > 0
    assert affected.degraded + affected.faults == affected.requests
    history = await stand.house.services.release.history(stand.candidate.id)
    assert [entry["what"] for entry in history][-2:] == ["release.canary", "release.rollback"]


async def test_a_candidate_whose_model_takes_no_request_is_rolled_back(stand: Stand, asker: Tenant) -> None:
    """Its readers hear that their request was refused; it is the release that names such a model."""
    trial = await stand.canary((0.5, 1_000))
    refuses = Script(error=ModelRejected("the model does not exist"))
    plays(stand, stand.candidate, lambda: Scripted(refuses, name="extractive"))
    await prepared(stand, trial)
    for n in range(200):
        reply = await ask(asker, f"c{n}", f"{QUESTION} ({n})")
        assert (reply["status"] == 400) == (reply["release"] == stand.candidate.id)
        await stand.tick()
        if (await stand.trial(trial)).state != "running":
            break
    ended = await stand.trial(trial)
    assert ended.state == "rolled_back"
    assert ended.decision
    assert ended.decision["metric"] == "faults"


async def test_a_sound_candidate_is_promoted_step_by_step(stand: Stand, asker: Tenant) -> None:
    trial = await stand.canary((0.3, 2), (0.6, 3), promote=True)
    await prepared(stand, trial)
    for n in range(200):
        await ask(asker, f"c{n}", f"{QUESTION} ({n})")
        await stand.tick()
        if (await stand.trial(trial)).state != "running":
            break
    ended = await stand.trial(trial)
    assert ended.state == "promoted"
    assert ended.decision == {"why": f"No harm was shown in trial {trial.id}."}
    assert stand.house.services.release.champion().release.id == stand.candidate.id
    assert (await stand.house.services.release.show(stand.champion.id)).state == "soaking"
    steps = [
        entry["evidence"]["step"]
        for entry in await stand.house.services.release.history(stand.candidate.id)
        if entry["what"] == "release.step" and entry["evidence"]["trial"] == trial.id
    ]
    assert steps == [1]


async def recorded(stand: Stand, trial: Trial, count: int, begin: int = 0) -> None:
    """Write what came of sound requests, each the only one of a candidate's conversation."""
    rows = [outcome(trial, f"u{n}") for n in range(begin, begin + count)]
    async with stand.engine.begin() as connection:
        await connection.execute(insert(outcomes), rows)


def outcome(trial: Trial, unit: str) -> dict[str, Any]:
    facts = {"fault": 0.0, "seconds": 0.0}
    plain = {"candidate": True, "counted": True, "kind": "chat", "tenant": "acme", "propensity": 0.5}
    return {**plain, "trial": trial.id, "unit": unit, "answer": unit, "facts": facts}


@pytest.mark.parametrize("meanwhile", ["stopped", "failed an evaluation", "another became champion"])
async def test_a_canary_that_ends_while_its_release_is_made_ready_is_not_promoted(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """That may take long; what an operator was told meanwhile holds."""
    services, candidate = stand.house.services, stand.candidate
    prepare, promoting = services.promotions._prepare, False
    other = replace(stand.champion, body=stand.champion.body.model_copy(update={"name": "other"}))
    await services.release.add(other)

    async def prepared_late(release: Release) -> None:
        nonlocal promoting
        if release.id == candidate.id and not promoting:
            promoting = True
            if meanwhile == "stopped":
                await services.trials.end(trial, "stopped", {"why": "enough"}, who="an operator")
            elif meanwhile == "failed an evaluation":
                await services.release.judge(candidate.id, {}, passed=False)
            else:
                await services.promotions.promote(other.id, force=True, reason="an outage")
        await prepare(release)

    monkeypatch.setattr(services.promotions, "_prepare", prepared_late)
    trial = await stand.canary((0.5, 1), promote=True)
    await stand.tick()
    await recorded(stand, trial, 1)
    await stand.tick()
    assert promoting
    served = other.id if meanwhile == "another became champion" else stand.champion.id
    assert (await services.release.served()).id == served
    await stand.tick()
    assert (await stand.trial(trial)).state == "stopped"


async def test_a_canary_whose_steps_are_done_waits_where_it_is_not_to_be_promoted(stand: Stand) -> None:
    trial = await stand.canary((0.5, 3), promote=False)
    await recorded(stand, trial, 2)
    await stand.tick()
    assert "1 more conversations" in str((await stand.trial(trial)).evidence["waiting_for"])
    await recorded(stand, trial, 1, begin=2)
    await stand.tick()
    waits = await stand.trial(trial)
    assert (waits.state, waits.live, waits.share) == ("running", True, 0.5)
    assert waits.evidence["waiting_for"] == "All steps are done; promote it, or stop the trial."
    assert stand.house.services.release.champion().release.id == stand.champion.id


async def test_a_step_lasts_its_minutes_however_many_conversations_there_are(stand: Stand) -> None:
    steps = [{"share": share, "units": 1, "least_minutes": 10} for share in (0.3, 0.6)]
    trial = await stand.house.services.trials.start("canary", stand.candidate.id, {"steps": steps})
    async with stand.engine.begin() as connection:
        await connection.execute(insert(outcomes), {**outcome(trial, "u"), "propensity": 0.3})
    await stand.tick()
    waits = await stand.trial(trial)
    assert (waits.step, waits.share) == (0, 0.3)
    assert re.fullmatch(r"Waits \d+ s more at 30%\.", str(waits.evidence["waiting_for"]))
    async with stand.engine.begin() as connection:
        await connection.execute(text("UPDATE trials SET step_at = step_at - interval '10 min'"))
    await stand.tick()
    assert ((await stand.trial(trial)).step, (await stand.trial(trial)).share) == (1, 0.6)
    async with stand.engine.begin() as connection:
        await connection.execute(insert(outcomes), {**outcome(trial, "v"), "propensity": 0.6})
    await stand.tick()
    assert re.fullmatch(r"Waits \d+ s more at 60%\.", str((await stand.trial(trial)).evidence["waiting_for"]))


async def test_a_candidate_gets_no_more_conversations_than_it_may(stand: Stand, rules: Rules) -> None:
    assert rules.canary
    few = rules.canary.model_copy(update={"exposure": 3})
    stand.controller = Controller(stand.controller._control, rules.model_copy(update={"canary": few}))
    trial = await stand.canary((0.5, 1_000))
    await recorded(stand, trial, 2)
    await stand.tick()
    assert (await stand.trial(trial)).share == 0.5
    await recorded(stand, trial, 1, begin=2)
    await stand.tick()
    stopped = await stand.trial(trial)
    assert (stopped.state, stopped.share) == ("running", 0.0)
    assert stopped.evidence["waiting_for"] == "The candidate has had its 3 conversations."


async def test_an_outcome_that_becomes_visible_after_many_with_higher_numbers_counts(stand: Stand) -> None:
    trial = await stand.canary((0.5, 10_000))
    await stand.tick()
    async with stand.engine.connect() as late:
        await late.execute(insert(outcomes), outcome(trial, "late"))
        await recorded(stand, trial, 2_000)
        await stand.tick()
        assert (await stand.trial(trial)).evidence["units"]["candidate"] == 2_000
        await late.commit()
    await stand.tick()
    await stand.tick()
    assert (await stand.trial(trial)).evidence["units"]["candidate"] == 2_001


async def test_a_trial_against_a_former_champion_is_ended_by_who_watches_it(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever moved the pointer may have been killed right after it."""
    services = stand.house.services
    other = replace(stand.champion, body=stand.champion.body.model_copy(update={"name": "another"}))
    await services.release.add(other)
    trial = await stand.canary((0.5, 1_000))
    await stand.tick()
    assert services.release.standing().canary

    async def killed(new: object, who: str) -> None:
        return None

    monkeypatch.setattr(services.promotions, "_end_trials", killed)
    await services.promotions.promote(other.id, force=True, reason="an outage")
    assert services.release.standing().canary is None
    assert (await stand.trial(trial)).state == "running"
    await stand.tick()
    ended = await stand.trial(trial)
    assert ended.state == "stopped"
    assert ended.decision == {"why": f"Release {other.id} became champion meanwhile."}


async def test_a_release_that_fails_an_evaluation_meanwhile_is_taken_off_the_traffic(stand: Stand) -> None:
    trial = await stand.canary((0.5, 1_000), promote=True)
    await prepared(stand, trial)
    await stand.house.services.release.judge(stand.candidate.id, {"failed": ["groundedness"]}, passed=False)
    await stand.tick()
    ended = await stand.trial(trial)
    assert (ended.state, ended.decision) == ("stopped", {"why": "It has not passed its latest evaluation."})
    assert stand.house.services.release.standing().canary is None
    assert (await stand.house.services.release.show(stand.candidate.id)).state == "draft"


async def test_a_release_on_trial_by_force_goes_on_without_an_evaluation(stand: Stand) -> None:
    services = stand.house.services
    await services.release.judge(stand.candidate.id, {}, passed=False)
    trial = await services.trials.start("canary", stand.candidate.id, {}, force=True, reason="an outage")
    await stand.tick()
    assert (await stand.trial(trial)).state == "running"
    assert (await stand.trial(trial)).live


async def test_a_canary_says_why_no_conversation_counts_yet(stand: Stand, rules: Rules) -> None:
    assert rules.canary
    slow = rules.canary.model_copy(update={"warm_up_seconds": 600.0, "settle_seconds": 120.0})
    stand.controller = Controller(stand.controller._control, rules.model_copy(update={"canary": slow}))
    trial = await stand.canary((0.005, 20))
    await stand.tick()
    waiting = str((await stand.trial(trial)).evidence["waiting_for"])
    assert waiting.startswith(
        "Waits for 20 more conversations of the candidate at 0.5%, each done 120 s after its last request; "
        "none counts in the first 600 s, "
    )


async def test_a_former_champion_keeps_its_conversations_while_it_soaks(stand: Stand, asker: Tenant) -> None:
    trial = await stand.canary((0.5, 1_000))
    await prepared(stand, trial)
    drawn = {f"c{n}": (await ask(asker, f"c{n}", f"{QUESTION} ({n})"))["release"] for n in range(12)}
    await stand.house.services.promotions.promote(stand.candidate.id)
    async with asyncio.timeout(30):
        while not stand.house.services.assigner._servings.ready(stand.champion):
            await asyncio.sleep(0.02)
    for name, release in drawn.items():
        assert (await ask(asker, name, "And then?"))["release"] == release
    assert (await ask(asker, "another"))["release"] == stand.candidate.id


async def test_feedback_counts_for_the_conversation_that_it_is_about(stand: Stand, asker: Tenant) -> None:
    trial = await stand.canary((0.5, 1_000))
    await prepared(stand, trial)
    drawn = Counter[str]()
    # Chance decides who is drawn: as many as harm takes to show itself.
    while drawn[stand.candidate.id] < 18 or drawn[stand.champion.id] < 6:
        n = drawn.total()
        reply = await ask(asker, f"c{n}", f"{QUESTION} ({n})")
        drawn[reply["release"]] += 1
        if reply["release"] == stand.candidate.id:
            for more in ({}, {"reason": "wrong"}):  # Said twice, it counts once.
                body = {"id": reply["id"], "rating": "down", **more}
                assert (await asker.http.post("/v1/feedback", json=body)).status_code == 202
    # An answer counts only some time after it began.
    async with asyncio.timeout(30):
        while (disliked := await _disliked(stand, trial))["rate_candidate"] != 1.0:
            await asyncio.sleep(0.02)
    assert disliked["rate_control"] == 0.0
    assert disliked["e_value"] > 100


async def _disliked(stand: Stand, trial: Trial) -> dict[str, Any]:
    await stand.tick()
    found = await stand.trial(trial)
    # So much of it may end the trial, which then tells what it ended on.
    told = found.decision["evidence"] if found.decision else found.evidence
    [disliked] = [one for one in told["metrics"] if one["metric"] == "disliked"]
    return dict(disliked)


async def test_outcomes_are_forgotten_long_after_their_trial(stand: Stand, asker: Tenant) -> None:
    trial = await stand.canary((0.5, 1_000))
    await prepared(stand, trial)
    await ask(asker, "c", QUESTION)
    trials = stand.house.services.trials
    await trials.end(trial, "stopped", {"why": "seen"})
    await trials.forget()
    assert await stand.rows(trial)
    await trials.forget(days=0)
    assert await stand.rows(trial) == []
    assert (await stand.trial(trial)).decision == {"why": "seen"}


async def test_outcomes_are_kept_of_a_trial_that_began_long_ago_and_ended_just_now(stand: Stand) -> None:
    trials = stand.house.services.trials
    trial = await stand.canary((0.5, 1_000))
    await recorded(stand, trial, 1)
    async with stand.engine.begin() as connection:
        await connection.execute(text("UPDATE trials SET started_at = started_at - interval '60 days'"))
    await trials.forget()
    await trials.end(trial, "stopped", {"why": "seen"})
    await trials.forget()
    assert len(await stand.rows(trial)) == 1


async def test_a_trial_that_has_ended_is_given_no_share_any_more(stand: Stand) -> None:
    trials = stand.house.services.trials
    trial = await stand.canary((0.5, 1_000))
    await trials.end(trial, "stopped", {"why": "seen"})
    assert not await trials.renew(trial, step=1, share=0.5, evidence={})
    ended = await stand.trial(trial)
    assert (ended.share, ended.step, ended.state) == (0.0, 0, "stopped")
    assert not await trials.end(trial, "rolled_back", {"why": "late"})
    assert (await stand.trial(trial)).decision == {"why": "seen"}
    history = await stand.house.services.release.history(stand.candidate.id)
    assert history[-1]["what"] == "release.canary.stopped"


async def test_who_read_a_trial_before_its_step_decides_nothing_any_more(stand: Stand) -> None:
    """Such as a controller that stood still while another one took over."""
    services = stand.house.services
    read = await stand.canary((0.1, 1), (0.5, 1_000))
    assert await services.trials.renew(read, step=1, share=0.5, evidence={})
    moved = await stand.trial(read)
    assert await services.trials.renew(moved, step=1, share=0.5, evidence={})
    assert not await services.trials.renew(read, step=1, share=0.5, evidence={})
    assert not await services.trials.renew(read, step=0, share=0.1, evidence={})
    now = await stand.trial(read)
    assert (now.step, now.share, now.step_at) == (1, 0.5, moved.step_at)
    noted = await services.release.history(stand.candidate.id)
    steps = [one for one in noted if one["what"] == "release.step" and one["evidence"]["trial"] == read.id]
    assert len(steps) == 1


async def test_a_trial_does_not_begin_against_a_champion_that_was(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, require = stand.house.services, stand.house.services.indexes.require
    other = replace(stand.champion, body=stand.champion.body.model_copy(update={"name": "sooner"}))
    await services.release.add(other)

    async def moved_meanwhile(release: Release, served: Release, *, allow_missing: bool) -> None:
        await require(release, served, allow_missing=allow_missing)
        if release.id == stand.candidate.id:
            await services.promotions.promote(other.id, force=True, reason="an outage")

    monkeypatch.setattr(services.indexes, "require", moved_meanwhile)
    with pytest.raises(ReleaseConflict, match="became champion meanwhile"):
        await stand.canary((0.5, 1_000))
    assert await services.trials.running() == []


async def test_each_trial_has_its_own_outcomes(stand: Stand) -> None:
    trials = stand.house.services.trials
    first = await stand.canary((0.5, 1_000))
    await recorded(stand, first, 2)
    await trials.end(first, "stopped", {"why": "again"})
    second = await stand.canary((0.5, 1_000))
    await recorded(stand, second, 3, begin=2)
    assert [len(await trials.outcomes(one.id)) for one in (first, second)] == [2, 3]
    assert (await trials.affected(second.id)).conversations == 3


async def test_a_promotion_ends_the_trials_of_others_as_stopped(stand: Stand) -> None:
    services = stand.house.services
    other = replace(stand.champion, body=stand.champion.body.model_copy(update={"name": "beside"}))
    await services.release.add(other)
    trial = await stand.canary((0.5, 1_000))
    beside = await services.trials.start("shadow", other.id, {}, force=True, reason="to see")
    await services.promotions.promote(stand.candidate.id)
    assert (await stand.trial(trial)).state == "promoted"
    [ended] = [one for one in await services.trials.of(other.id) if one.id == beside.id]
    assert (ended.state, ended.share, ended.live) == ("stopped", 0.0, False)
    assert (await services.release.show(other.id)).state == "draft"


async def test_a_controller_that_has_lost_its_place_watches_no_more(stand: Stand) -> None:
    never = asyncio.Event()
    async with alone(stand.engine, never) as held:
        mine = await held.scalar(text("SELECT pg_backend_pid()"))
        async with stand.engine.connect() as other:
            await other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": mine})
        with pytest.raises(DBAPIError):
            async with asyncio.timeout(10):
                await stand.controller._watch(never, held)


async def test_a_promotion_that_is_refused_is_told_and_not_tried_at_every_look(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    async def refused(release_id: str, **told: object) -> None:
        tries.append(release_id)
        raise ReleaseConflict("its index lacks documents")

    monkeypatch.setattr(stand.house.services.promotions, "promote", refused)
    trial = await stand.canary((0.5, 1), promote=True)
    await recorded(stand, trial, 1)
    for _ in range(4):
        await stand.tick()
    waits = await stand.trial(trial)
    assert (waits.state, waits.live, tries) == ("running", True, [stand.candidate.id])
    assert waits.evidence["waiting_for"] == "Promotion was refused: its index lacks documents"


async def test_a_ledger_that_is_away_ends_no_trial(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*asked: object, **told: object) -> None:
        raise LedgerUnavailable("away")

    trial = await stand.canary((0.5, 1))
    with monkeypatch.context() as patched:
        patched.setattr(stand.house.services.trials, "outcomes", away)
        with pytest.raises(LedgerUnavailable):
            await stand.controller.tick()
    assert (await stand.trial(trial)).state == "running"
    await stand.tick()
    assert (await stand.trial(trial)).live


async def test_what_readers_said_is_forgotten_unless_a_trial_that_runs_may_ask_for_it(
    stand: Stand, asker: Tenant
) -> None:
    trials = stand.house.services.trials

    async def said() -> int:
        async with stand.engine.connect() as connection:
            return await connection.scalar(text("SELECT count(*) FROM feedback")) or 0

    trial = await stand.canary((0.5, 1_000))
    await prepared(stand, trial)
    reply = await ask(asker, "c", QUESTION)
    assert (await asker.http.post("/v1/feedback", json={"id": reply["id"], "rating": "down"})).is_success
    await trials.forget(days=0)
    assert await said() == 1
    await trials.end(trial, "stopped", {"why": "seen"})
    await trials.forget()
    assert await said() == 1
    await trials.forget(days=0)
    assert await said() == 0


async def test_a_former_champion_soaks_for_its_time(stand: Stand) -> None:
    services = stand.house.services
    await services.promotions.promote(stand.candidate.id)
    await services.trials.end_soaking()
    assert (await services.release.show(stand.champion.id)).state == "soaking"
    await services.trials.end_soaking(seconds=0.0)
    assert (await services.release.show(stand.champion.id)).state == "retired"


async def test_a_caller_who_gives_up_tells_how_long_it_took(stand: Stand, asker: Tenant) -> None:
    """Else a release that never answers would leave no evidence."""
    trial = await stand.canary((0.99, 1_000))
    hangs = Script(pieces=("There ", "are ", "28."), pace=5.0)
    plays(stand, stand.candidate, lambda: Scripted(hangs, name="extractive"))
    await prepared(stand, trial, share=1.0)
    with pytest.raises(httpx.ReadTimeout):
        await asker.http.post(
            "/v1/chat/completions",
            json={"messages": [{"role": "user", "content": QUESTION}], "plumbline": {"conversation": "c"}},
            timeout=2.0,
        )
    async with asyncio.timeout(30):
        while not (rows := await stand.rows(trial)):
            await asyncio.sleep(0.02)
    assert rows[0].candidate
    assert rows[0].counted
    assert rows[0].facts["given_up"] == 1.0
    assert rows[0].facts["seconds"] >= 1.0


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_does_not_come_in_its_time_is_a_fault(
    stand: Stand, asker: Tenant, stream: bool
) -> None:
    """Its time is cut off from outside, and yet it is not the caller who gave up."""
    trial = await stand.canary((0.99, 1_000))
    hangs = Script(pieces=("There ", "are ", "28."), pace=60.0)
    plays(stand, stand.candidate, lambda: Scripted(hangs, name="extractive"))
    await prepared(stand, trial, share=1.0)
    reply = await asker.http.post(
        "/v1/chat/completions",
        json={"messages": [{"role": "user", "content": QUESTION}], "stream": stream},
        headers={"X-Request-Timeout": "0.5"},
    )
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "deadline_exceeded")
    [row] = await stand.rows(trial)
    assert (row.candidate, row.facts["fault"], row.facts["code"]) == (True, 1.0, "deadline_exceeded")


async def test_a_trial_that_cannot_be_watched_is_stopped_with_the_reason(stand: Stand) -> None:
    services = stand.house.services
    broken = await services.trials.start("shadow", stand.candidate.id, {"pairs": "many"})
    await stand.tick()
    ended = await stand.trial(broken)
    assert ended.state == "stopped"
    assert ended.decision
    assert "cannot be watched" in ended.decision["why"]
    await prepared(stand, await stand.canary((0.5, 1_000)))
