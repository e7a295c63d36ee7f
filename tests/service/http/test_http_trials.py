"""Releases on trial over HTTP: who may start what, what is shown of it, and what controllers are told."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import text

from app.cli.client import Client
from app.errors import ReleaseConflict
from app.release import Release
from app.trials import Trial
from eval.postmortem import postmortem
from eval.trialrecord import record
from eval.types import EvalError
from llm.scripted import Script
from tests.service.http.house import House, Tenant

ANSWER = Script(pieces=("Owls hunt at night [1].",))
HARMED: dict[str, Any] = {"metric": "faults", "e_value": 120.0, "highest": 150.0, "threshold": 100.0}
UNHARMED: dict[str, Any] = {"metric": "faults", "e_value": 1.5, "highest": 2.0, "threshold": 100.0}
RATES: dict[str, Any] = {"units": 40, "harmed": 3, "rate_candidate": 0.1, "rate_control": 0.05}


@dataclass(slots=True)
class Trying:
    """A registered draft of one test's own, and an admin who tries it."""

    house: House
    admin: Tenant
    release: Release

    @property
    def path(self) -> str:
        return f"/v1/releases/{self.release.id}"

    async def post(self, action: str, **body: Any) -> httpx.Response:
        return await self.admin.http.post(f"{self.path}/{action}", json=body)

    async def shown(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.admin.http.get(self.path)).json()
        return found

    async def verdict(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.admin.http.get(f"{self.path}/verdict")).json()
        return found

    async def pass_evaluation(self) -> None:
        await self.house.services.release.judge(self.release.id, {"dataset": "handbook"}, passed=True)

    async def canary(self, share: float = 0.25, **evidence: Any) -> Trial:
        """Start one that passed its evaluation, and give it this share and this evidence."""
        await self.pass_evaluation()
        started = await self.post("canary")
        assert started.status_code == 201, started.text
        return await self.renew(share, **evidence)

    async def renew(self, share: float, *, step: int = 0, seconds: float = 60.0, **evidence: Any) -> Trial:
        services = self.house.services
        [trial] = await services.trials.running()
        await services.trials.renew(trial, step=step, share=share, evidence=evidence, seconds=seconds)
        await services.release.refresh()
        [trial] = await services.trials.running()
        return trial

    async def end(self, state: Any, **decision: Any) -> None:
        [trial] = await self.house.services.trials.running()
        await self.house.services.trials.end(trial, state, decision)


@pytest.fixture
async def trying(house: House, tenant: Tenant) -> AsyncIterator[Trying]:
    services = house.services
    champion = services.release.champion().release
    body = champion.body.model_copy(update={"name": f"candidate-{uuid.uuid4().hex[:8]}"})
    release = replace(champion, body=body)
    await services.release.add(release)
    yield Trying(house, tenant, release)
    for trial in await services.trials.running():
        await services.trials.end(trial, "stopped", {"why": "the test is over"})
    if services.release.champion().release.id != champion.id:
        await services.promotions.rollback()
    await services.release.refresh()
    house.stages.clear()


@pytest.mark.parametrize("action", ["shadow", "canary", "promote"])
async def test_a_release_that_was_never_evaluated_gets_no_traffic(trying: Trying, action: str) -> None:
    refused = await trying.post(action)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "release_conflict")
    assert "not passed an evaluation" in refused.json()["error"]["message"]
    assert (await trying.shown())["state"] == "draft"


@pytest.mark.parametrize("action", ["shadow", "canary", "promote"])
async def test_force_needs_a_reason(trying: Trying, action: str) -> None:
    refused = await trying.post(action, force=True, reason="  ")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "reason")


async def test_a_forced_champion_is_shown_as_such_everywhere(trying: Trying) -> None:
    reason = "the other one is broken"
    assert (await trying.post("promote", force=True, reason=reason)).status_code == 200

    http = trying.admin.http
    models = (await http.get("/v1/models")).json()["data"]
    assert models[0]["plumbline"]["forced"] == reason
    assert (await http.get("/health/ready")).json()["release_forced"] == reason
    listed = {one["id"]: one for one in (await http.get("/v1/releases")).json()["releases"]}
    assert (listed[trying.release.id]["state"], listed[trying.release.id]["forced"]) == ("champion", reason)
    assert (await http.get("/v1/releases/standing")).json()["champion"]["forced"] == reason
    metrics = (await http.get("/metrics")).text
    assert f'release="{trying.release.id}",state="forced"' in metrics
    verdict = await trying.verdict()
    assert (verdict["result"], verdict["passed"]) == ("inconclusive", False)
    assert reason in verdict["why"]


async def test_a_second_canary_is_refused_and_a_shadow_beside_it_is_not(trying: Trying) -> None:
    await trying.canary()
    other = replace(trying.release, body=trying.release.body.model_copy(update={"name": "another"}))
    await trying.house.services.release.add(other)
    await trying.house.services.release.judge(other.id, {}, passed=True)
    http = trying.admin.http

    refused = await http.post(f"/v1/releases/{other.id}/canary", json={})
    assert refused.status_code == 409
    assert f"`plumbline release stop {trying.release.id}`" in refused.json()["error"]["message"]
    assert (await http.post(f"/v1/releases/{other.id}/shadow", json={})).status_code == 201
    standing = (await http.get("/v1/releases/standing")).json()
    assert standing["canary"]["release"] == trying.release.id
    assert standing["shadow"]["release"] == other.id


async def test_the_champion_is_not_tried(trying: Trying) -> None:
    champion = trying.house.services.release.champion().release.id
    refused = await trying.admin.http.post(f"/v1/releases/{champion}/canary", json={})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "release_conflict")


async def test_a_stopped_canary_gives_its_conversations_back_and_says_why(trying: Trying) -> None:
    await trying.canary()
    assert (await trying.shown())["state"] == "canary"

    stopped = await trying.post("stop", reason="enough seen")

    assert (stopped.status_code, stopped.json()["state"]) == (200, "evaluated")
    told = (await trying.admin.http.get(f"{trying.path}/trials")).json()
    [trial] = told["trials"]
    assert (trial["state"], trial["share"], trial["decision"]) == ("stopped", 0.0, {"why": "enough seen"})
    assert [one["what"] for one in told["audit"]] == [
        "release.add",
        "release.judge",
        "release.canary",
        "release.canary.stopped",
    ]
    assert (await trying.admin.http.get("/v1/releases/standing")).json()["canary"] is None
    assert (await trying.post("stop")).status_code == 409


async def test_a_release_that_did_harm_must_pass_an_evaluation_again(trying: Trying) -> None:
    await trying.canary()
    await trying.end("rolled_back", why="faults", metric="faults")
    shown = await trying.shown()
    assert (shown["state"], shown["evaluated"]) == ("retired", False)
    assert (await trying.post("canary")).status_code == 409
    await trying.pass_evaluation()
    assert (await trying.post("canary")).status_code == 201


async def test_what_a_trial_shows_promotes_nothing_once_the_trial_is_over(trying: Trying) -> None:
    """A controller that was held up decides by what it knew then; another has decided meanwhile."""
    services = trying.house.services
    trial = await trying.canary()
    await trying.end("rolled_back", why="faults", metric="faults")
    with pytest.raises(ReleaseConflict, match="ended meanwhile"):
        await services.promotions.promote(trying.release.id, force=True, reason="no harm", trial=trial)
    assert services.release.champion().release.id == trial.control


async def test_a_release_that_never_passed_is_not_said_to_have_lost_what_it_passed(trying: Trying) -> None:
    await trying.house.services.release.judge(trying.release.id, {"failed": ["answered"]}, passed=False)
    started = await trying.post("canary", force=True, reason="it was urgent")
    assert started.status_code == 201
    await trying.renew(0.25)
    await trying.end("rolled_back", why="faults", metric="faults")
    shown = await trying.shown()
    assert (shown["state"], shown["evaluated"]) == ("retired", False)
    assert "withdrawn" not in shown["evidence"]


async def test_only_an_operator_starts_and_stops_and_every_reader_sees_who_answers(trying: Trying) -> None:
    await trying.canary()
    headers = await trying.admin.key("read")
    async with httpx.AsyncClient(base_url=trying.house.url, headers=headers) as reader:
        for action in ("shadow", "canary", "stop", "promote"):
            refused = await reader.post(f"{trying.path}/{action}", json={})
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
        assert (await reader.get("/v1/releases/standing")).json()["canary"]["share"] == 0.25
        assert (await reader.get(f"{trying.path}/trials")).status_code == 403


@pytest.mark.parametrize(
    "plan",
    [
        {"steps": [{"share": 1.5, "units": 10}]},
        {"steps": [{"share": 1, "units": 10}]},
        {"steps": [{"share": 0.1, "units": 0}]},
        {"steps": [{"share": 0.1, "units": 9}, {"share": 0.1, "units": 10}]},
        {"steps": [{"share": 0.2, "units": 9}, {"share": 0.1, "units": 10}]},
        {"share": 0},
        {"pairs": 0},
        {"nonsense": 1},
    ],
    ids=str,
)
async def test_a_plan_that_cannot_be_kept_is_refused(trying: Trying, plan: dict[str, Any]) -> None:
    await trying.pass_evaluation()
    assert (await trying.post("canary", **plan)).status_code == 400
    assert (await trying.shown())["state"] == "evaluated"


async def test_metrics_name_the_canary_and_the_share_that_it_has_now(trying: Trying) -> None:
    await trying.canary(0.25)
    metrics = (await trying.admin.http.get("/metrics")).text
    share = f'plumbline_trial_share{{kind="canary",release="{trying.release.id}"}}'
    assert f"{share} 0.25" in metrics
    assert f'release="{trying.release.id}",state="canary"' in metrics
    assert "plumbline_outcomes_lost_total 0.0" in metrics

    await trying.renew(0.25, seconds=0.0)
    assert f"{share} 0.0" in (await trying.admin.http.get("/metrics")).text


async def test_a_mirrored_answer_is_counted(trying: Trying) -> None:
    await trying.pass_evaluation()
    assert (await trying.post("shadow")).status_code == 201
    await trying.renew(1.0)
    await trying.admin.add({"id": "owls", "text": "Owls hunt at night."})
    before, counts = await _mirrored(trying), trying.house.services.shadow.counts
    async with asyncio.timeout(60):
        # An answer that comes in a busy moment is not mirrored, and that is counted, too.
        while await _mirrored(trying) == before:
            over = sum(counts.values())
            await _asked(trying, "plumbline")
            while sum(counts.values()) == over:
                await asyncio.sleep(0.01)


async def _mirrored(trying: Trying) -> float:
    metrics = (await trying.admin.http.get("/metrics")).text
    found = re.search(r'plumbline_shadow_total\{result="mirrored"\} (\S+)', metrics)
    return float(found[1]) if found else 0.0


# ---- outcomes and feedback


async def _asked(trying: Trying, model: str, conversation: str | None = None) -> httpx.Response:
    """An answer that comes from no cache: every question is another."""
    question = f"When do owls hunt, asks {uuid.uuid4().hex}?"
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": question}]}
    if conversation:
        body["plumbline"] = {"conversation": conversation}
    return await trying.admin.http.post("/v1/chat/completions", json=body)


async def _rows(trying: Trying, trial: Trial) -> list[Any]:
    await trying.house.services.outcomes.flush()
    async with trying.house.services.release._engine.connect() as connection:
        found = await connection.execute(
            text("SELECT * FROM outcomes WHERE trial = CAST(:id AS uuid) ORDER BY id"), {"id": trial.id}
        )
        return list(found.all())


async def _ready(trying: Trying) -> None:
    async with asyncio.timeout(30):
        while trying.house.services.assigner._servings.ready(trying.release) is None:
            await asyncio.sleep(0.01)


async def test_outcomes_are_recorded_with_the_release_that_answered(trying: Trying) -> None:
    await trying.admin.add({"id": "owls", "text": "Owls hunt at night."})
    trial = await trying.canary(0.5)
    await _ready(trying)
    answered: dict[str, str] = {}
    with trying.house.stage.plays(ANSWER):
        # Chance decides who is drawn.
        while len(answered) < 12 or len(set(answered.values())) < 2:
            reply = await _asked(trying, "plumbline", f"talk-{len(answered)}")
            answered[reply.json()["id"]] = reply.headers["x-plumbline-release"]

    rows = {row.answer: row for row in await _rows(trying, trial)}
    assert set(rows) == set(answered)
    arms = {name: release == trying.release.id for name, release in answered.items()}
    assert {name: row.candidate for name, row in rows.items()} == arms
    assert set(arms.values()) == {True, False}
    assert all(row.counted and row.propensity == 0.5 for row in rows.values())


async def _disliked(trying: Trying, trial: Trial) -> int:
    return len(await trying.house.services.trials.disliked(trial.id, trial.started_at - timedelta(minutes=1)))


async def test_a_readers_latest_word_on_an_answer_counts(trying: Trying) -> None:
    await trying.admin.add({"id": "owls", "text": "Owls hunt at night."})
    trial = await trying.canary(1.0)
    await _ready(trying)
    with trying.house.stage.plays(ANSWER):
        reply = await _asked(trying, "plumbline", "a-talk")
    await trying.house.services.outcomes.flush()
    said: list[int] = []
    for rating in ("down", "up", "down"):
        body = {"id": reply.json()["id"], "rating": rating, "reason": "wrong" if rating == "down" else None}
        assert (await trying.admin.http.post("/v1/feedback", json=body)).status_code == 202
        said.append(await _disliked(trying, trial))
    assert said == [1, 0, 1]


async def test_the_word_of_another_tenant_does_not_count(trying: Trying) -> None:
    await trying.admin.add({"id": "owls", "text": "Owls hunt at night."})
    trial = await trying.canary(1.0)
    await _ready(trying)
    with trying.house.stage.plays(ANSWER):
        reply = await _asked(trying, "plumbline", "a-talk")
    await trying.house.services.outcomes.flush()
    stranger = await trying.house.tenant()
    await stranger.http.post("/v1/feedback", json={"id": reply.json()["id"], "rating": "down"})
    assert await _disliked(trying, trial) == 0


@pytest.mark.parametrize(
    "body",
    [{"id": "x", "rating": "meh"}, {"id": "", "rating": "up"}, {"id": "x", "rating": "up", "text": "no"}],
    ids=str,
)
async def test_feedback_that_says_nothing_is_refused(tenant: Tenant, body: dict[str, str]) -> None:
    assert (await tenant.http.post("/v1/feedback", json=body)).status_code == 400


async def test_a_draft_answers_those_who_evaluate_past_caches_and_nobody_else(trying: Trying) -> None:
    await trying.admin.add({"id": "owls", "text": "Owls hunt at night."})
    body = {
        "model": f"plumbline@{trying.release.id}",
        "messages": [{"role": "user", "content": "When do owls hunt?"}],
    }
    refused = await trying.admin.http.post("/v1/chat/completions", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")

    headers = await trying.admin.key("read", "evaluate")
    with trying.house.stage.plays(ANSWER, ANSWER) as model:
        async with httpx.AsyncClient(base_url=trying.house.url, headers=headers, timeout=60) as evaluator:
            replies = [await evaluator.post("/v1/chat/completions", json=body) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [200, 200]
    assert {reply.headers["x-plumbline-release"] for reply in replies} == {trying.release.id}
    assert len(model.calls) == 2


# ---- verdicts, for deployment controllers


async def test_a_verdict_needs_evidence(trying: Trying) -> None:
    found = await trying.verdict()
    assert (found["result"], found["passed"], found["share"]) == ("inconclusive", False, 0.0)
    assert (found["release"], found["state"]) == (trying.release.id, "draft")

    await trying.house.services.release.judge(trying.release.id, {"failed": ["cited"]}, passed=False)
    found = await trying.verdict()
    assert (found["result"], found["passed"]) == ("failed", False)
    assert "cited" in found["why"]

    await trying.pass_evaluation()
    found = await trying.verdict()
    assert (found["result"], found["passed"]) == ("successful", True)


async def test_a_verdict_follows_the_trial(trying: Trying) -> None:
    await trying.canary(0.25, metrics=[{**UNHARMED, **RATES}], waiting_for="30 more conversations")
    found = await trying.verdict()
    assert (found["result"], found["passed"], found["share"]) == ("running", False, 0.25)
    assert found["why"] == "30 more conversations"

    await trying.renew(0.25, metrics=[{**HARMED, **RATES}])
    found = await trying.verdict()
    assert (found["result"], found["passed"]) == ("failed", False)
    assert "faults" in found["why"]

    await trying.end("rolled_back", why="Too many faults.", metric="faults")
    found = await trying.verdict()
    assert (found["state"], found["result"], found["share"]) == ("retired", "failed", 0.0)
    assert "Too many faults." in found["why"]


async def test_a_verdict_is_that_of_the_latest_trial_and_harm_stays_shown(trying: Trying) -> None:
    await trying.canary()
    await trying.post("stop", reason="lunch")
    await trying.canary(0.25, metrics=[{**HARMED, **RATES, "e_value": 1.0}])
    found = await trying.verdict()
    assert (found["result"], found["share"]) == ("failed", 0.25)
    await trying.renew(0.25, seconds=0.0, metrics=[{**UNHARMED, **RATES}])
    assert (await trying.verdict())["share"] == 0.0


async def test_a_trial_that_nobody_watches_is_no_evidence(trying: Trying) -> None:
    await trying.pass_evaluation()
    await trying.post("canary")
    found = await trying.verdict()
    assert (found["result"], found["share"]) == ("running", 0.0)
    assert "no controller" in found["why"]


async def test_a_stopped_trial_has_shown_nothing(trying: Trying) -> None:
    await trying.canary()
    await trying.post("stop", reason="lunch")
    found = await trying.verdict()
    assert (found["result"], found["passed"]) == ("inconclusive", False)
    assert "lunch" in found["why"]


def _flagger(reference: str, **metadata: str) -> dict[str, Any]:
    """The body as Flagger sends it."""
    return {
        "name": "plumbline",
        "namespace": "rag",
        "phase": "Progressing",
        "checksum": "85d557f47b",
        "metadata": {"release": reference, **metadata},
    }


async def test_flagger_hears_whether_a_release_may_go_on(trying: Trying) -> None:
    http, body = trying.admin.http, _flagger(trying.release.name)
    refused = await http.post("/v1/releases/verdict", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "release_conflict")
    assert "never evaluated" in refused.json()["error"]["message"]

    await trying.canary(0.25, metrics=[UNHARMED])
    assert (await http.post("/v1/releases/verdict", json=body)).status_code == 200
    until_passed = _flagger(trying.release.id, require="passed")
    assert (await http.post("/v1/releases/verdict", json=until_passed)).status_code == 409

    await trying.renew(0.25, metrics=[HARMED])
    assert (await http.post("/v1/releases/verdict", json=body)).status_code == 409

    unknown = await http.post("/v1/releases/verdict", json=_flagger("no-such-release"))
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "release_not_found")


async def test_flagger_gives_its_key_in_the_metadata(trying: Trying) -> None:
    """It sends no header; a key without any scope that reads is enough."""
    await trying.pass_evaluation()
    secret = (await trying.admin.key("evaluate"))["Authorization"].removeprefix("Bearer ")
    async with httpx.AsyncClient(base_url=trying.house.url) as nobody:
        path = "/v1/releases/verdict"
        assert (await nobody.post(path, json=_flagger(trying.release.id))).status_code == 401
        wrong = _flagger(trying.release.id, token="pl-wrong")
        assert (await nobody.post(path, json=wrong)).status_code == 401
        right = _flagger(trying.release.id, token=secret)
        assert (await nobody.post(path, json=right)).status_code == 200
        assert (await nobody.get(f"{trying.path}/verdict")).status_code == 401


# ---- the post-mortem


async def test_what_the_service_kept_of_a_rollback_makes_a_post_mortem(trying: Trying) -> None:
    await trying.admin.add({"id": "owls", "text": "Owls hunt at night."})
    steps = [{"share": 0.5, "units": 10}, {"share": 1.0, "units": 10}]
    units = {"candidate": 12, "control": 9}
    seen: dict[str, Any] = {"steps": steps, "units": units, "path": [[1.5, {"faults": 2.0}]]}
    await trying.canary(0.5, metrics=[{**UNHARMED, **RATES}], **seen)
    trial = await trying.renew(1.0, step=1, metrics=[{**UNHARMED, **RATES}], **seen)
    await _ready(trying)
    with trying.house.stage.plays(ANSWER, ANSWER):
        first, last = [(await _asked(trying, "plumbline", f"talk-{one}")).json()["id"] for one in "ab"]
    await trying.house.services.outcomes.flush()
    calm = {**UNHARMED, **RATES, "metric": "slow", "e_value": 0.2, "highest": 1.1}
    told = {"metrics": [{**HARMED, **RATES}, calm], **seen}
    await trying.end("rolled_back", why="Too many faults.", metric="faults", evidence=told)

    secret = trying.admin.secret
    with Client(trying.house.url, secret) as client:
        found = postmortem(await asyncio.to_thread(record, client, trying.release.id))
    assert (found.trial, found.candidate.id) == (trial.id, trying.release.id)
    assert found.champion.id == trial.control
    assert [(step.share, step.units) for step in found.steps] == [(0.5, 0), (1.0, 12)]
    assert (found.decision.outcome, found.decision.metric) == ("rolled_back", "faults")
    assert [point.e_value for point in found.evidence] == [2.0, 150.0, 0.2]
    assert found.forced == (await trying.shown())["forced"]
    assert (found.requests, found.tenants) == (2, 1)
    assert dict(found.timeline[-1].evidence) == {"decision": "Too many faults."}
    assert (found.first_request, found.last_request) == (first, last)
    assert trying.admin.name not in str(found.affected)
    assert [change.path for change in found.changes] == ["name"]


async def test_without_a_rollback_there_is_no_post_mortem(trying: Trying) -> None:
    with (
        Client(trying.house.url, trying.admin.secret) as client,
        pytest.raises(EvalError, match="No trial"),
    ):
        await asyncio.to_thread(record, client, trying.release.id)


# ---- the sample manifests, against the running service


def _manifest(name: str, kind: str) -> dict[str, Any]:
    documents = yaml.safe_load_all((Path(__file__).parents[3] / "deploy" / name).read_text())
    [found] = [one for one in documents if one["kind"] == kind]
    return dict(found)


async def test_the_argo_manifest_asks_for_what_there_is(trying: Trying) -> None:
    template = _manifest("argo/analysis-template.yaml", "AnalysisTemplate")
    assert template["apiVersion"] == "argoproj.io/v1alpha1"
    [metric] = template["spec"]["metrics"]
    web = metric["provider"]["web"]
    secret = (await trying.admin.key("evaluate"))["Authorization"].removeprefix("Bearer ")
    values = {"address": trying.house.url, "release": trying.release.id, "key": secret}
    assert {one["name"] for one in template["spec"]["args"]} == set(values)

    def filled(text: str) -> str:
        return re.sub(r"\{\{\s*args\.(\w+)\s*\}\}", lambda found: values[found[1]], text)

    headers = {one["key"]: filled(one["value"]) for one in web["headers"]}
    field = re.fullmatch(r"\{\$\.(\w+)\}", web["jsonPath"])
    assert field
    conditions = {
        name: re.fullmatch(r'result == "(\w+)"', metric[name])
        for name in ("successCondition", "failureCondition")
    }
    wanted = {name: found[1] for name, found in conditions.items() if found}

    async def measured() -> str:
        async with httpx.AsyncClient(headers=headers) as argo:
            reply = await argo.get(filled(web["url"]))
        assert reply.status_code == 200, reply.text
        return str(reply.json()[field[1]])

    assert await measured() not in wanted.values()
    await trying.canary(0.25, metrics=[UNHARMED])
    assert await measured() not in wanted.values()
    await trying.end("passed", why="No harm.")
    assert await measured() == wanted["successCondition"]
    await trying.post("canary")
    await trying.end("rolled_back", why="Faults.")
    assert await measured() == wanted["failureCondition"]


def test_the_rollout_that_asks_names_the_template() -> None:
    template = _manifest("argo/analysis-template.yaml", "AnalysisTemplate")
    rollout = _manifest("argo/analysis-template.yaml", "Rollout")
    steps = rollout["spec"]["strategy"]["canary"]["steps"]
    [asked] = [step["analysis"] for step in steps if "analysis" in step]
    assert asked["templates"] == [{"templateName": template["metadata"]["name"]}]
    given = {one["name"] for one in asked["args"]}
    needed = {one["name"] for one in template["spec"]["args"] if len(one) == 1}
    assert given == needed


async def test_the_flagger_manifest_asks_for_what_there_is(trying: Trying) -> None:
    canary = _manifest("flagger/canary.yaml", "Canary")
    assert canary["apiVersion"] == "flagger.app/v1beta1"
    hooks = {one["type"]: one for one in canary["spec"]["analysis"]["webhooks"]}
    assert set(hooks) == {"confirm-rollout", "rollout", "confirm-promotion"}
    secret = (await trying.admin.key("evaluate"))["Authorization"].removeprefix("Bearer ")

    async def answered() -> dict[str, bool]:
        goes_on = {}
        async with httpx.AsyncClient(base_url=trying.house.url) as flagger:
            for kind, hook in hooks.items():
                metadata = {**hook["metadata"], "release": trying.release.id, "token": secret}
                body = {"name": "assistant", "namespace": "default", "phase": "Progressing"}
                path = httpx.URL(hook["url"]).path
                reply = await flagger.post(path, json={**body, "metadata": metadata})
                assert reply.status_code in (200, 409), reply.text
                goes_on[kind] = reply.status_code == 200
        return goes_on

    assert not any((await answered()).values())
    await trying.canary(0.25, metrics=[UNHARMED])
    assert await answered() == {"confirm-rollout": True, "rollout": True, "confirm-promotion": False}
    await trying.end("passed", why="No harm.")
    assert all((await answered()).values())
