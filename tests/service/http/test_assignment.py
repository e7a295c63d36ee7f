"""Which release a conversation gets, asked of the assigner itself: whom it tells apart, and what counts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import text

from app import deadline
from app.assignment import KEPT, PREFIX, Assigned, Assigner, Assignments, Conversation, _draw
from app.errors import ModelUnknown
from app.release import DEFAULT_RELEASE, Release, load_release
from app.releases import OnTrial
from app.serving import Serving
from app.trials import Trial
from app.types import Principal
from app.watched import watched
from llm.pipe import Line
from tests.service.http.test_http_canary import Stand, prepared, rules, stand

__all__ = ["rules", "stand"]

ANN = Principal(tenant="acme", groups=None, scopes=frozenset({"read"}), key_id="ann")


async def assigned(
    stand: Stand, name: str, caller: Principal = ANN, model: str = "plumbline", by: Assigner | None = None
) -> Assigned:
    asked = by or stand.house.services.assigner
    return await asked.assign(model, caller, Conversation(lambda: name), lambda: name)


async def drawn_to(stand: Stand, release: str, name: Callable[[int], str]) -> tuple[str, Assigned]:
    """The first of these conversations that goes to the release, and what was assigned to it."""
    for n in range(200):
        found = await assigned(stand, name(n))
        if found.serving.release.id == release:
            return name(n), found
    raise AssertionError


def enrolled_unit(found: Assigned) -> str:
    assert found.enrolled
    return found.enrolled.unit


async def canary(stand: Stand, share: float = 0.5) -> Trial:
    trial = await stand.canary((share, 1_000))
    await prepared(stand, trial)
    return trial


async def test_conversations_of_the_same_name_are_told_apart_by_tenant_and_key(stand: Stand) -> None:
    trial = await canary(stand)
    name = f"support-{trial.id}"
    callers = (ANN, replace(ANN, tenant="globex"), replace(ANN, key_id="bob"))
    units = [enrolled_unit(await assigned(stand, name, caller)) for caller in callers]
    assert len(set(units)) == 3
    assert enrolled_unit(await assigned(stand, name)) == units[0]


def without_redis(stand: Stand) -> Assigner:
    services = stand.house.services
    nowhere = Assignments(Line("unix:///nowhere.sock"))
    return Assigner(services.release, services.assigner._servings, nowhere, services.indexes)


async def test_each_trial_draws_anew(stand: Stand) -> None:
    """Else those who met with a bad candidate would meet with the next one, too."""
    went, names = list[list[str]](), [f"c{n}" for n in range(40)]
    for _ in range(2):
        trial = await canary(stand)
        forgetful = without_redis(stand)
        found = [await assigned(stand, name, by=forgetful) for name in names]
        went.append([one.serving.release.id for one in found])
        await stand.house.services.trials.end(trial, "stopped", {"why": "the next"})
    assert went[0] != went[1]


async def test_what_cannot_be_looked_up_is_no_evidence(stand: Stand) -> None:
    await canary(stand)
    found = await assigned(stand, "c", by=without_redis(stand))
    assert found.enrolled
    assert not found.counted
    assert found.caching is None


async def test_the_chance_that_is_noted_is_that_of_the_draw(stand: Stand) -> None:
    trial = await canary(stand, 0.3)
    name, found = await drawn_to(stand, stand.champion.id, lambda n: f"{trial.id}-{n}")
    assert found.enrolled
    assert found.enrolled.propensity == 0.3
    await stand.house.services.trials.renew(trial, step=1, share=0.9, evidence={}, seconds=60)
    await stand.house.services.release.refresh()
    again = await assigned(stand, name)
    assert again.enrolled
    assert (again.enrolled.propensity, again.enrolled.candidate) == (0.3, False)


async def test_a_candidate_that_is_not_ready_here_takes_part_on_neither_side(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, servings = await canary(stand), stand.house.services.assigner._servings

    async def fails(release: Release) -> Serving:
        raise OSError("no embedder")

    monkeypatch.setattr(servings, "_build", fails)
    del servings._ready[stand.candidate.fingerprint]
    found = [await assigned(stand, f"{trial.id}-{n}") for n in range(20)]
    assert {one.serving.release.id for one in found} == {stand.champion.id}
    assert [one for one in found if one.enrolled or one.counted] == []


async def test_a_conversation_whose_candidate_was_taken_back_stays_with_the_champion_of_then(
    stand: Stand,
) -> None:
    services = stand.house.services
    first = await canary(stand)
    name, _ = await drawn_to(stand, stand.candidate.id, lambda n: f"{first.id}-{n}")
    await services.trials.end(first, "stopped", {"why": "again"})
    await canary(stand)
    again = await assigned(stand, name)
    assert (again.serving.release.id, again.enrolled) == (stand.champion.id, None)
    await services.promotions.promote(stand.candidate.id)
    await services.assigner._servings.prepare(stand.champion)
    assert (await assigned(stand, name)).serving.release.id == stand.champion.id


async def test_a_candidate_whose_lease_is_over_is_nobodys_by_name(stand: Stand) -> None:
    trial = await canary(stand)
    model = f"plumbline@{stand.candidate.id}"
    assert (await assigned(stand, "c", model=model)).serving.release.id == stand.candidate.id
    await stand.house.services.trials.renew(trial, step=0, share=0.5, evidence={}, seconds=0)
    await stand.house.services.release.refresh()
    with pytest.raises(ModelUnknown, match="does not serve"):
        await assigned(stand, "c", model=model)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_as_many_conversations_are_drawn_as_the_share_says(share: float) -> None:
    trial = OnTrial(trial="t", release=load_release(DEFAULT_RELEASE), share=share, until=0.0)
    drawn = sum(_draw(trial, f"unit {n}") for n in range(2_000))
    assert drawn == pytest.approx(2_000 * share, abs=90)


async def test_a_question_counts_once_in_a_trial_whoever_asks_it(stand: Stand) -> None:
    """And is worked out then whatever is kept, by whichever release it went to."""
    trial = await canary(stand)
    asked = f"leave-{trial.id}"
    found = [await assigned(stand, asked, caller) for caller in (ANN, replace(ANN, key_id="bob"))]
    assert [(one.counted, one.caching) for one in found] == [(True, "fill"), (False, None)]
    assert all(one.enrolled for one in found)


async def test_of_the_candidates_requests_those_that_do_not_count_are_recorded_too(stand: Stand) -> None:
    """They are conversations that it has had."""
    trial, outcomes = await canary(stand), stand.house.services.outcomes
    for release in (stand.champion, stand.candidate):
        name, _ = await drawn_to(stand, release.id, lambda n: f"{trial.id}-{n}")
        again = await assigned(stand, name)
        ends = deadline.after(20)
        with watched(outcomes, again, kind="chat", tenant="acme", answer="a", deadline=ends) as watch:
            watch.facts = {"fault": 0.0, "seconds": 0.1}
    assert [(row.candidate, row.counted) for row in await stand.rows(trial)] == [(True, False)]


async def test_a_former_champion_that_soaks_answers_anybody_by_name(stand: Stand) -> None:
    await stand.house.services.promotions.promote(stand.candidate.id)
    await stand.house.services.assigner._servings.prepare(stand.champion)
    found = await assigned(stand, "c", model=f"plumbline@{stand.champion.id}")
    assert (found.serving.release.id, found.caching) == (stand.champion.id, None)


async def test_a_conversation_that_goes_on_is_remembered_anew(stand: Stand) -> None:
    trial, line = await canary(stand), stand.house.services.assigner._assignments._line
    name = f"long-{trial.id}"
    key = f"{PREFIX}{ANN.tenant}:{enrolled_unit(await assigned(stand, name))}"
    assert await line.ask("EXPIRE", key, "60")
    await assigned(stand, name)
    assert int(await line.ask("TTL", key)) > KEPT - 60


async def test_a_lease_is_no_longer_for_a_ledger_that_is_slow_to_tell_of_it(stand: Stand) -> None:
    trial = await canary(stand)
    services = stand.house.services
    assert await services.trials.renew(trial, step=0, share=0.5, evidence={}, seconds=60)
    renewed = time.monotonic()
    async with stand.engine.begin() as holding:
        await holding.execute(text("LOCK TABLE trials IN ACCESS EXCLUSIVE MODE"))
        looking = asyncio.create_task(services.release.refresh())
        await asyncio.sleep(0.3)
    await looking
    now = services.release.standing().canary
    assert now
    assert renewed + 50 < now.until <= renewed + 60
