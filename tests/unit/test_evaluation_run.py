"""An evaluation loses nothing, whatever fails under it."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.embedded import free_port
from eval.cases import limited, load_dataset
from eval.gate import judge
from eval.report import aggregates
from eval.rules import load_rules
from eval.run import evaluate, evaluate_private
from eval.target import HttpTarget
from eval.types import CannotJudge, InstanceFailed, ReleaseRef

RELEASE = ReleaseRef(id="0123456789ab", name="default", fingerprint="0" * 64, canonical="{}")


def _silent(step: str, done: int, total: int) -> None:
    return None


async def test_an_instance_that_is_down_leaves_a_report_in_which_every_case_failed() -> None:
    dataset = limited(load_dataset("handbook"), 10)
    async with HttpTarget(f"http://127.0.0.1:{free_port()}") as target:
        report = await evaluate(target, dataset, RELEASE, product="0.1.0", progress=_silent)
    assert [result.case for result in report.results] == list(dataset.cases)
    assert all(set(result.sample.errors) == {"chat", "search"} for result in report.results)
    for name, aggregate in aggregates(report).items():
        assert (name, aggregate.coverage, aggregate.mean) == (name, 0.0, 0.0)
    with pytest.raises(CannotJudge):
        judge(report, report, load_rules())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = [", "not valid TOML"),
        ('name = "x"\nmodels = [{ name = "extractive" }]\n[search]\nlimt = 1\n', "search.limt"),
        (
            'name = "x"\nmodels = [{ name = "extractive" }]\n[prompts]\nanswer = "./none.md"\n',
            "prompts.answer",
        ),
    ],
)
async def test_a_release_that_cannot_be_loaded_has_failed_every_case(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(text)
    dataset = limited(load_dataset("handbook"), 5)
    report = await evaluate_private(path, dataset, product="0.1.0", progress=_silent)
    assert report.error
    assert said in report.error
    assert report.release.name == "broken"
    assert len(report.results) == 5
    assert all(score.value is None for result in report.results for score in result.scores.values())


async def test_a_release_file_that_is_not_there_is_no_evaluation(tmp_path: Path) -> None:
    dataset = limited(load_dataset("handbook"), 5)
    with pytest.raises(InstanceFailed, match="nowhere"):
        await evaluate_private(tmp_path / "nowhere.toml", dataset, product="0.1.0", progress=_silent)
