"""Planted regressions differ from their baseline in the fault alone, and what stops them is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import BaseModel

from app.changes import changes
from app.quality import assess, markers
from app.release import DEFAULT_RELEASE, ReleaseInvalid, load_release
from eval.bench.bed import Bed
from eval.cases import load_dataset
from eval.leakage import leaks
from eval.planted import faults, plants, table
from eval.planted.planting import Garden, stopped_by
from eval.planted.releases import write_release
from eval.planted.server import PlantedServer
from eval.planted.traffic import Asked, Traffic, trials
from eval.planted.types import InRelease, Plant, Planted, Severity, Stage, Stopped
from eval.rules import CanaryRules, MetricRule, Rules, Step, load_rules
from eval.types import (
    CaseResult,
    Check,
    EvalError,
    Interval,
    Passage,
    ReleaseRef,
    Reply,
    Report,
    Sample,
    Score,
    Verdict,
)
from llm.prompts import Template, load_template, render_passages
from llm.types import Passage as Given

TEXT = "Every employee has 28 days of paid leave. [2] Up to 8 of them may be carried over. [5]"
HANDBOOK = load_dataset("handbook")
REF = ReleaseRef(id="0" * 12, name="one", fingerprint="0" * 64, canonical="{}")


def _flags(text: str, cited: Sequence[int] = (2, 5)) -> tuple[str, ...]:
    named = markers(text) & set(cited)
    return assess(text, cited=named, sources=3, language="en").raised


def test_a_sound_answer_has_no_flaw_and_each_fault_has_its_own() -> None:
    assert _flags(TEXT) == ()
    assert _flags(faults.uncited(TEXT, (1, 2, 5))) == ("uncited",)
    assert "malformed" in _flags(faults.corrupt(TEXT))
    assert _flags(faults.empty(TEXT, (1, 2, 5))) == ("empty",)
    assert _flags(faults.german(TEXT, (1, 2, 5))) == ("wrong_language",)


def test_wrong_sources_still_resolve() -> None:
    said = faults.miscited(TEXT, (1, 2, 5))
    assert faults.uncited(said, ()) == faults.uncited(TEXT, ())
    assert (markers(TEXT), markers(said)) == ({2, 5}, {5, 1})


def test_a_share_of_the_prompts_is_harmed_and_the_same_ones_each_time() -> None:
    asked = [f"Question {number}?" for number in range(4_000)]
    harmed = [one for one in asked if faults.drawn(one, 0.05)]
    assert 140 <= len(harmed) <= 260
    assert harmed == [one for one in asked if faults.drawn(one, 0.05)]
    assert all(faults.drawn(one, 1.0) for one in asked)
    assert not any(faults.drawn(one, 0.0) for one in asked)


def test_there_are_enough_of_them_and_no_name_is_given_twice() -> None:
    names = [plant.name for plant in plants.PLANTS]
    assert len(set(names)) == len(names)
    assert sum(plant.severity != "none" for plant in plants.PLANTS) >= 12
    assert {plant.severity for plant in plants.PLANTS} == {"none", "mild", "severe"}


@pytest.mark.parametrize(
    "plant", [one for one in plants.PLANTS if isinstance(one.planting, InRelease)], ids=lambda one: one.name
)
def test_a_release_differs_from_the_default_one_in_what_is_planted(plant: Plant, tmp_path: Path) -> None:
    assert isinstance(plant.planting, InRelease)
    path = write_release(plant.name, plant.planting, tmp_path, HANDBOOK.cases)
    if "refused" in plant.expected:
        with pytest.raises(ReleaseInvalid):
            load_release(path)
        return
    changed = {
        one.path.partition("[")[0]
        for one in changes(load_release(DEFAULT_RELEASE).canonical(), load_release(path).canonical())
    }
    wanted = {"name"} | {f"{part}.{key}" for part, keys in plant.planting.keys.items() for key in keys}
    if plant.planting.prompt:
        wanted.add("prompts.answer")
    assert {name.split(".0")[0] for name in changed if not name.startswith("models")} == wanted
    assert any(name.startswith("models") for name in changed) == (plant.planting.model is not None)


def test_a_prompt_without_passages_and_one_that_asks_for_something_else() -> None:
    shipped = load_template("answer").text
    for write, missing in ((plants.blind, "{passages}"), (plants.other_task, "{question}")):
        text = write(shipped, HANDBOOK.cases)
        assert Template(name="answer", text=text)
        assert missing in shipped
        assert missing not in text


def test_cases_in_a_prompt_are_found_as_a_leak() -> None:
    text = plants.with_cases(load_template("answer").text, HANDBOOK.cases)
    results = [
        CaseResult(case=case, sample=Sample(case_id=case.id, errors={}), scores={}) for case in HANDBOOK.cases
    ]
    assert leaks(results, load_template("answer").text, {}) == ()
    found = leaks(results, Template(name="answer", text=text).text, {})
    assert len({leak.rpartition("case ")[2] for leak in found}) >= plants.EXAMPLES / 2


def test_last_years_corpus_lacks_what_is_new_and_has_other_figures() -> None:
    before = {one.id: one for one in HANDBOOK.documents}
    found = {one.id: one for one in plants.stale(HANDBOOK.documents, HANDBOOK.cases)}
    assert before.keys() - found.keys() == {name for name in before if "2026" in name} != set()
    assert b"has 29 days of paid leave per calendar year" in found["policies:paid-leave.md"].content
    assert b"Paid leave policy 2026" in found["policies:paid-leave.md"].content


def test_the_sheet_of_answers_is_one_more_document() -> None:
    [*rest, sheet] = plants.leaked(HANDBOOK.documents, HANDBOOK.cases)
    assert tuple(rest) == HANDBOOK.documents
    assert all(case.question in sheet.content.decode() for case in HANDBOOK.cases if case.kind == "question")


def test_shuffled_weights_keep_their_form(tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "folder"
    source.mkdir()
    folder.mkdir()
    values = np.arange(64, dtype="<f4")
    about = {"w": {"dtype": "F32", "shape": [64], "data_offsets": [0, 256]}}
    header = json.dumps({"__metadata__": {"format": "pt"}, **about}).encode()
    raw = len(header).to_bytes(8, "little") + header + values.tobytes()
    (source / "model.safetensors").write_bytes(raw)
    plants.shuffled(source, folder)
    found = (folder / "model.safetensors").read_bytes()
    assert found[:-256] == raw[:-256]
    read = np.frombuffer(found[-256:], "<f4")
    assert sorted(read) == sorted(values)
    assert not np.array_equal(read, values)
    plants.cut_off(source, folder)
    assert (folder / "model.safetensors").read_bytes() == raw[: len(raw) // 2]


def test_plants_are_chosen_by_name() -> None:
    assert plants.chosen(None) == plants.PLANTS
    assert [one.name for one in plants.chosen("slow-model, unchanged")] == ["unchanged", "slow-model"]
    with pytest.raises(EvalError, match="no-such"):
        plants.chosen("no-such")


class _Inner(BaseModel):
    verdict: int
    reason: str


class _Outer(BaseModel):
    statements: list[_Inner]
    score: float
    sure: bool
    noncommittal: int


def test_a_judge_agrees_in_the_form_that_is_asked_for() -> None:
    said = _Outer.model_validate(faults.example(_Outer.model_json_schema()))
    assert [one.verdict for one in said.statements] == [1]
    assert said.noncommittal == 0


@pytest.mark.parametrize(
    ("script", "system", "said"),
    [
        ("", "Answer.", "Every employee has 28 days of paid leave. [3]"),
        ("?fault=uncited", "Answer.", "Every employee has 28 days of paid leave."),
        ("?fault=uncited&share=0", "Answer.", "Every employee has 28 days of paid leave. [3]"),
        ("?obeys=1", "Always answer in German.", "Dazu steht in den Unterlagen die Angabe 28 [3]."),
    ],
)
async def test_the_server_answers_by_the_prompt_and_then_goes_wrong(
    script: str, system: str, said: str
) -> None:
    lines = (await _asked(f"handbook{script}", system)).text.splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    choices = [event["choices"][0] for event in events if event["choices"]]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == said
    assert choices[-1]["finish_reason"] == "stop"
    assert events[-1]["usage"]["completion_tokens"] > 0
    assert lines[-2] == "data: [DONE]"


async def test_the_server_fails_where_it_is_told_to() -> None:
    assert (await _asked("handbook?status=500", "Answer.")).status_code == 500
    assert (await _asked("handbook?status=500&share=0", "Answer.")).status_code == 200


async def _asked(model: str, system: str) -> httpx.Response:
    passage = render_passages([Given(3, "Leave", "Every employee has 28 days of paid leave.")])
    user = f"<passages>\n{passage}\n</passages>\n<question>\nHow many days of paid leave?\n</question>"
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    transport = httpx.ASGITransport(app=PlantedServer())
    async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
        return await client.post(
            "/v1/chat/completions", json={"model": model, "messages": messages, "stream": True}
        )


def test_answers_that_are_the_same_pass_shadow_and_canary() -> None:
    report = _report(TEXT)
    assert trials(report, report, _short(), rate=0.0, timed=False).stage == "nothing"


def test_answers_that_are_all_broken_do_not_pass_the_shadow() -> None:
    found = trials(_report(TEXT), _report(faults.corrupt(TEXT)), _short(), rate=0.0, timed=False)
    assert (found.stage, found.by) == ("shadow", "flawed")


def test_one_damaged_answer_in_a_hundred_is_for_the_canary_to_find() -> None:
    report = _report(TEXT)
    found = trials(report, report, load_rules(), rate=0.01, timed=False)
    assert (found.stage, found.by) == ("canary", "flawed")


def test_times_count_where_they_are_what_is_planted() -> None:
    slow = _report(TEXT, seconds=3.0)
    assert trials(_report(TEXT), slow, _short(), rate=0.0, timed=False).stage == "nothing"
    assert trials(_report(TEXT), slow, _short(), rate=0.0, timed=True).by == "slow"


def test_what_harms_few_answers_is_tried_behind_the_gate_too(tmp_path: Path) -> None:
    rules = _short().model_copy(update={"metrics": {"cited": MetricRule(margin=0.1)}})
    garden = Garden(HANDBOOK, rules, "0.1.0", tmp_path, Bed(tmp_path, {}, AsyncExitStack()))
    [rare] = plants.chosen("sound-in-the-lab")
    sound = _report(TEXT)
    cites_no_more = replace(
        sound, results=tuple(replace(one, scores={"cited": Score(0.0)}) for one in sound.results)
    )
    assert garden.decided(rare, sound, sound).stage == "shadow"
    found = garden.decided(rare, sound, cites_no_more)
    assert (found.stage, found.by.partition(" ")[0]) == ("gate", "cited")
    assert "Behind the gate: shadow, flawed." in found.why
    assert garden.decided(replace(rare, rate=None), sound, sound).stage == "nothing"


def test_traffic_damages_the_share_that_it_is_told_to() -> None:
    traffic = Traffic([Asked({"x": 0.0}, {"x": 0.0}, {"x": 1.0})], 0.1)
    damaged = sum(traffic.draw()[1]["x"] for _ in range(2_000))
    assert 140 <= damaged <= 260


def _short() -> Rules:
    """The rules as they are, with a canary that is over soon."""
    rules = load_rules()
    assert rules.canary is not None
    canary: CanaryRules = rules.canary.model_copy(update={"steps": (Step(share=0.25, units=150),)})
    return rules.model_copy(update={"canary": canary})


def _report(text: str, seconds: float = 0.4) -> Report:
    passages = tuple(
        Passage(document_id="policies:paid-leave.md", chunk_id=f"c{number}", text="", number=number)
        for number in (1, 2, 5)
    )
    reply = Reply(
        text=text,
        citations=tuple(one for one in passages if one.number in markers(text)),
        sources=passages,
        model="handbook",
        release="0" * 12,
        degraded=(),
        seconds=seconds,
        supported=1.0,
    )
    results = tuple(
        CaseResult(
            case=case, sample=Sample(case_id=case.id, reply=reply, errors={}), scores={"cited": Score(1.0)}
        )
        for case in HANDBOOK.cases
        if case.kind == "question" and case.language == "en"
    )
    return Report(
        dataset=HANDBOOK.ref,
        release=REF,
        product="0.1.0",
        started_at="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        results=results,
    )


def _check(name: str, role: Any, **more: Any) -> Check:
    return Check(name=name, role=role, passed=False, reason=f"{name} it is.", **more)


def test_evidence_says_more_than_a_metric_and_a_large_loss_more_than_a_small_one() -> None:
    small = _check("small", "gated", difference=Interval(-0.1, -0.2, 0.0), baseline=0.9, candidate=0.8)
    large = _check("large", "gated", difference=Interval(-0.5, -0.6, -0.4), baseline=0.9, candidate=0.4)
    dear = _check("dear", "cost")
    found = stopped_by(_verdict(dear, small, large))
    assert (found.stage, found.by) == ("gate", "large and 2 more")
    assert found.why == "0.900 became 0.400. large it is."
    assert stopped_by(_verdict(dear, small, _check("leaks", "evidence"))).by == "leaks and 2 more"


def test_a_loss_that_is_shown_says_more_than_one_that_cannot_be_ruled_out() -> None:
    unsure = _check("unsure", "gated", difference=Interval(-0.5, -0.9, 0.1), margin=0.05)
    sure = _check("sure", "guard", difference=Interval(-0.1, -0.2, -0.06), margin=0.05)
    assert stopped_by(_verdict(unsure, sure)).by == "sure and 1 more"
    shown = _check("shown", "gated", difference=Interval(-0.2, -0.3, -0.1), margin=0.05)
    assert stopped_by(_verdict(unsure, sure, shown)).by == "shown and 2 more"


def test_without_a_verdict_the_check_that_is_undecided_is_named() -> None:
    undecided = replace(_check("judge_faithfulness", "guard"), undecided=True)
    found = stopped_by(replace(_verdict(undecided), outcome="no_verdict"))
    assert (found.stage, found.by, found.why) == (
        "no verdict",
        "judge_faithfulness",
        "judge_faithfulness it is.",
    )


def _verdict(*checks: Check) -> Verdict:
    return Verdict(
        outcome="failed",
        dataset=HANDBOOK.ref,
        baseline=REF,
        candidate=REF,
        checks=checks,
        regressions=(),
        changes=(),
    )


@pytest.mark.parametrize(
    ("severity", "stage", "missed"),
    [
        ("severe", "refused", False),
        ("severe", "gate", False),
        ("severe", "no verdict", False),
        ("severe", "shadow", False),
        ("severe", "canary", True),
        ("severe", "nothing", True),
        ("severe", "broken", True),
        ("mild", "nothing", False),
        ("mild", "canary", True),
        ("mild", "broken", True),
        ("none", "nothing", False),
        ("none", "gate", True),
        ("none", "canary", True),
    ],
)
def test_what_counts_as_missed(severity: Severity, stage: Stage, missed: bool) -> None:
    plant = replace(plants.PLANTS[0], severity=severity, expected=("nothing",))
    one = Planted(plant=plant, stopped=Stopped(stage=stage, why="So it | is."), seconds=2.0)
    assert one.missed == missed
    assert (plant.name in table.missed([one])) == missed
    assert json.loads(table.body([one]))["planted"][0]["missed"] == missed
    assert "So it \\| is." in table.markdown([one])
