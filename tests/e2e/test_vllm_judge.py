"""Tier 2 on a real vLLM with a tiny model of random weights: its verdicts mean nothing, but they are made,
kept and lost as a large model's are. The last tests with this server: it is killed while it judges."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest

from eval.cases import limited, load_dataset
from eval.judge import Bounds, Judge, JudgeSettings
from eval.markdown import report_markdown
from eval.metrics.catalogue import CATALOGUE, about
from eval.report import aggregates
from eval.run import evaluate
from eval.target import HttpTarget
from eval.types import Report, Score
from llm.errors import ModelUnavailable, StreamBroken
from llm.vllm import Vllm
from tests.calls import call, drain, endless
from tests.live import Instance
from tests.vllm_server import MODEL, VllmServer

# Starting vLLM takes minutes on a busy machine, and the first test waits for it.
pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(600)]

CASES = 10
MIDWAY = 12
"""Verdicts after which the judge is killed: there are some hundred."""
BOUNDS = Bounds(characters=40, items=3, tokens=700)
ANSWERED = "vllm:request_success_total"
JUDGED = {name for name in CATALOGUE if about(name).tier == 2}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Verdicts of the whole run."""
    return tmp_path_factory.mktemp("verdicts")


@dataclass(frozen=True, slots=True)
class Whole:
    """A run in which the judge was there all along, and how often it was asked."""

    report: Report
    asked: float


@pytest.fixture(scope="module")
async def whole(vllm_server: VllmServer, sampled: Instance, kept: Path) -> Whole:
    before = vllm_server.metric(ANSWERED)
    report = await _evaluated(vllm_server, sampled, kept)
    return Whole(report, vllm_server.metric(ANSWERED) - before)


@dataclass(frozen=True, slots=True)
class Killed:
    """A run in which the judge was killed midway, and what came of a stream that it was sending."""

    report: Report
    stream: Exception | None


@pytest.fixture(scope="module")
async def killed(
    vllm_server: VllmServer, sampled: Instance, whole: Whole, tmp_path_factory: pytest.TempPathFactory
) -> Killed:
    folder = tmp_path_factory.mktemp("midway")

    async def kill() -> Exception | None:
        while len(list(folder.rglob("*.json"))) < MIDWAY:
            await asyncio.sleep(0.01)
        model = Vllm(vllm_server.url, vllm_server.model)
        async with aclosing(model), aclosing(model.stream(endless(60))) as stream:
            await anext(stream)
            vllm_server.kill()
            try:
                _ = [delta async for delta in stream]
            except Exception as error:
                return error
        return None

    killing = asyncio.create_task(kill())
    report = await _evaluated(vllm_server, sampled, folder)
    return Killed(report, await killing)


async def test_every_metric_that_asks_a_judge_gets_its_verdicts_in_json_of_the_schema(whole: Whole) -> None:
    found = {name: one for name, one in aggregates(whole.report).items() if name in JUDGED}
    assert set(found) == JUDGED
    assert {name: one.failed for name, one in found.items() if one.failed} == {}
    # How near texts are is a cosine: of random words it may be below 0.
    lowest = {"judge_answer_relevancy": -1.0}
    assert all(lowest.get(name, 0.0) <= one.mean <= 1 for name, one in found.items())
    assert whole.report.judge == f"{MODEL} x1"
    assert whole.asked > CASES


async def test_a_judge_killed_midway_is_counted_and_changes_no_other_score(
    whole: Whole, killed: Killed
) -> None:
    report, lost = killed.report, 0
    for before, after in zip(whole.report.results, report.results, strict=True):
        assert _lasting(after.scores) == _lasting(before.scores)
        assert set(after.scores) == set(before.scores)
        failed = [score for name, score in after.scores.items() if name in JUDGED and score.value is None]
        assert all(score.fault == "judge" and score.error for score in failed)
        lost += len(failed)
    judged = {name: one for name, one in aggregates(report).items() if name in JUDGED}
    assert 0 < lost == sum(one.failed for one in judged.values()) < sum(one.cases for one in judged.values())
    for name, one in judged.items():
        values = [result.scores[name].value or 0.0 for result in report.results if name in result.scores]
        assert one.mean == pytest.approx(sum(values) / one.cases)
    text = report_markdown(report)
    assert "The judge" in text
    for name, one in judged.items():
        [row] = [line for line in text.splitlines() if line.startswith(f"| {name} ")]
        assert row.endswith(f"| {one.cases} | {one.failed} |")


async def test_a_stream_of_a_server_that_is_killed_breaks_and_the_next_does_not_begin(
    vllm_server: VllmServer, killed: Killed
) -> None:
    assert isinstance(killed.stream, StreamBroken)
    async with aclosing(Vllm(vllm_server.url, vllm_server.model)) as model:
        with pytest.raises(ModelUnavailable):
            await drain(model, call("Are you there?"))


async def test_what_was_judged_once_needs_no_judge_again(
    vllm_server: VllmServer, sampled: Instance, whole: Whole, killed: Killed, kept: Path
) -> None:
    assert vllm_server.process.poll() is not None
    again = await _evaluated(vllm_server, sampled, kept)
    for before, after in zip(whole.report.results, again.results, strict=True):
        assert {name: after.scores[name] for name in after.scores.keys() & JUDGED} == {
            name: before.scores[name] for name in before.scores.keys() & JUDGED
        }


async def _evaluated(server: VllmServer, instance: Instance, kept: Path) -> Report:
    settings = JudgeSettings(url=server.url, model=MODEL, cache=kept, timeout=60.0, bounds=BOUNDS)
    async with Judge(settings) as judge, HttpTarget(instance.url) as target:
        dataset = limited(load_dataset("handbook"), CASES)
        release = await target.release()
        return await evaluate(
            target, dataset, release, product="0.1.0", progress=lambda step, done, total: None, judge=judge
        )


def _lasting(scores: Mapping[str, Score]) -> dict[str, Score]:
    """What needs no judge and does not depend on the moment."""
    return {name: score for name, score in scores.items() if name not in JUDGED and "latency" not in name}
