"""A candidate whose model begins to fail, on a whole instance with live traffic: it is rolled back by itself,
nobody is sent to it any more, and no answer breaks off."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eval.bench.paced import PacedServer
from tests import live, paced, trials
from tests.load.faulty import NONE, Fault, Proxy, proxy
from tests.rollback import AFTER, roll_back
from tests.traffic import Traffic
from tests.trials import Desk

PACE = "first=0.15&rate=100&length=20"
USUAL, NEW = f"paced?{PACE}&is=usual", f"paced?{PACE}&is=new"
RATE = 8.0
PATIENCE = 90.0
LAST = 5.0
"""Seconds from the decision to the last request that the candidate gets; on a quiet machine it is under 1."""


@pytest.fixture(scope="module")
async def model() -> AsyncIterator[Proxy]:
    """The candidate's model, which can be made to fail."""
    with paced.serving(PacedServer()) as url:
        async with proxy(url.removesuffix("/v1")) as found:
            yield found


@pytest.fixture(scope="module")
async def desk(parts_folder: Path, model: Proxy) -> AsyncIterator[Desk]:
    """The champion answers by a paced model, and so would the candidate."""
    folder = parts_folder / "canary"
    folder.mkdir(mode=0o711)
    rules = trials.write_rules(folder, least_pairs=20, **trials.PROMPT)
    with paced.serving(PacedServer()) as url:
        servers = f"{USUAL}={url},{NEW}={model.url}/v1"
        environment = {"PLUMBLINE_RULES": str(rules), "PLUMBLINE_MODEL_URL": servers}
        with live.instance(folder, "--no-sample", environment=environment) as one:
            live.add(one, {"id": "leave", "text": "There are 28 days of paid leave. It is paid at once."})
            async with trials.desk(one) as found:
                await found.promote(await found.add(trials.release("usual", USUAL, "extractive")))
                yield found


@pytest.fixture(autouse=True)
async def _sound(desk: Desk, model: Proxy) -> AsyncIterator[None]:
    yield
    model.fault = NONE
    await desk.end()


async def test_a_candidate_that_begins_to_fail_is_rolled_back_at_once(desk: Desk, model: Proxy) -> None:
    champion, traffic = await desk.champion(), Traffic(desk.one.url, RATE, name="fails")
    candidate = await desk.add(trials.release("failing", NEW, "extractive"))
    measured = await roll_back(desk, traffic, model, candidate, [(0.3, 4), (0.5, 10_000)], patience=PATIENCE)
    print(measured)
    assert measured.metric in ("slow", "degraded", "faults")
    assert max(measured.last_question, measured.last_search) < LAST
    assert measured.streams_broken == measured.streams_with_error == 0
    assert measured.failed == ()
    assert measured.by_candidate_faulty > 0
    assert measured.degraded[0] == 0 < measured.degraded[1]
    # Conversations of the candidate go on with the champion.
    moved = {one.conversation for one in traffic.seen if one.release == candidate}
    [name, *_] = sorted(moved)
    assert (await traffic.ask(name, "And how is it paid in the end?")).release == champion
    shown = (await desk.http.get(f"/v1/releases/{candidate}")).json()
    assert (shown["state"], shown["evaluated"]) == ("retired", False)
    assert measured.after > RATE * AFTER / 3


async def test_a_shadow_whose_model_fails_is_ended_as_failed_and_nobody_sees_it(
    desk: Desk, model: Proxy
) -> None:
    champion, traffic = await desk.champion(), Traffic(desk.one.url, 3.0, name="unseen", first=100_000)
    candidate = await desk.add(trials.release("failing-unseen", NEW, "extractive"))
    model.fault = Fault(errors=0.8)
    async with traffic.flowing():
        await desk.start("shadow", candidate, pairs=500)
        ended = await desk.until(
            candidate, lambda told: told["state"] != "running", PATIENCE, what="decided on"
        )
    assert ended["state"] == "failed"
    assert ended["decision"]["metric"] == "degraded"
    assert {(one.status, one.ended, one.release, one.degraded) for one in traffic.seen} == {
        (200, "whole", champion, ())
    }
