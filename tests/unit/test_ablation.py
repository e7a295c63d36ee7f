"""The ablation over a small data set of its own: rows, what they mean, and that nothing is embedded twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.release import DEFAULT_RELEASE, load_release
from eval.ablation import STEPS, Remembering, ablate, choose, named
from eval.cases import load_dataset
from eval.table import Comparison, Table
from eval.types import EvalError
from retrieval.types import Matrix
from tests.unit.ranked_corpus import Same

DOCUMENTS = {
    "leave": "Employees are entitled to 28 days of paid leave a year.",
    "pump": "The display shows E-1042 when the pump is blocked.",
    "roof": "Solar panels are inspected every spring.",
}
QUERIES = {"1": ("E-1042", "pump"), "2": ("solar inspection", "roof"), "3": ("paid leave", "leave")}


class Counting(Same):
    """Every text means the same; counts the texts that were embedded."""

    def __init__(self) -> None:
        self.count = 0

    async def embed(self, texts: Sequence[str]) -> Matrix:
        self.count += len(texts)
        return await super().embed(texts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "sets" / "small"
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": name, "title": "", "text": text} for name, text in DOCUMENTS.items()]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    queries = [{"_id": key, "text": text} for key, (text, _) in QUERIES.items()]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    judged = [f"{key}\t{wanted}\t1" for key, (_, wanted) in QUERIES.items()]
    (folder / "qrels/test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]))
    return folder


async def test_words_find_what_an_embedder_that_knows_nothing_does_not(folder: Path, tmp_path: Path) -> None:
    shown: list[str] = []
    embedder = Counting()
    table = await ablate(
        {"small": load_dataset(str(folder))},
        load_release(DEFAULT_RELEASE),
        Remembering(embedder, tmp_path / "cache"),
        list(STEPS.values()),
        lambda step, done, total: shown.append(step),
    )
    means = table.means()
    assert list(means) == list(STEPS)
    assert means["keyword"] == means["keyword by language"] == {"small": 1.0}
    assert means["dense"]["small"] < 1
    assert "| keyword | 1.0000 | 1.0000 |" in table.markdown()
    told = json.loads(table.json())
    assert told["rows"]["keyword"] == {"small": 1.0}
    assert told["cases"]["small"]["keyword"] == {"1": 1.0, "2": 1.0, "3": 1.0}
    assert {"small documents", "small steps"} == set(shown)


async def test_what_was_embedded_once_is_not_embedded_again(folder: Path, tmp_path: Path) -> None:
    first, again = Counting(), Counting()
    for embedder in (first, again):
        remembering = Remembering(embedder, tmp_path / "cache")
        await ablate(
            {"small": load_dataset(str(folder))},
            load_release(DEFAULT_RELEASE),
            remembering,
            choose("release"),
            lambda step, done, total: None,
        )
        remembering.save()
    assert first.count == len(DOCUMENTS) + len(QUERIES)
    assert again.count == 0


def test_a_difference_is_to_the_better_arm_of_each_set_case_by_case() -> None:
    column = {
        "dense": {"1": 0.0, "2": 0.0, "3": 0.0, "4": 0.0},
        "keyword": {"1": 0.1, "2": 0.9, "3": 0.5, "4": 0.3},
        "release": {"1": 0.2, "2": 1.0, "3": 0.6, "4": 0.4},
    }
    swapped = {"dense": column["keyword"], "keyword": column["dense"], "release": column["release"]}
    better = Comparison("better", ("dense", "keyword"), "release")
    table = Table("r", {"words": column, "meaning": swapped}, [better])
    for found in table.differences()["better"].values():
        assert found.mean == pytest.approx(0.1)
        assert found.low == pytest.approx(found.high), "no case differs from another: nothing is in doubt"
    assert "| better | +0.1000 (+0.1000 to +0.1000) |" in table.markdown()


def test_a_comparison_without_its_rows_is_left_out() -> None:
    table = Table("r", {"small": {"release": {"1": 1.0}}}, [Comparison("gain", ("dense",), "release")])
    assert table.differences() == {}
    assert "interval" not in table.markdown()


def test_steps_keep_their_order_and_unknown_ones_are_named() -> None:
    assert [step.name for step in choose("release, dense")] == ["dense", "release"]
    assert [step.name for step in choose(",".join(STEPS))] == list(STEPS)
    with pytest.raises(EvalError, match="'magic'"):
        choose("magic")


def test_sets_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    folders = [tmp_path / "xquad/de", tmp_path / "xquad/en", tmp_path / "scifact"]
    assert list(named(folders)) == ["xquad/de", "xquad/en", "scifact"]
    assert list(named(folders[:1])) == ["de"]
