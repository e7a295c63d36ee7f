"""The ablation over a small data set of its own: rows, what they mean, and that nothing is embedded twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.release import DEFAULT_RELEASE, load_release
from eval.ablation import STEPS, Remembering, ablate, choose, named
from eval.cases import load_dataset
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
    assert list(table.rows) == list(STEPS)
    assert table.rows["keyword"] == (1.0,)
    assert table.rows["dense"][0] < 1
    assert "| keyword | 1.000 | 1.000 |" in table.markdown()
    assert json.loads(table.json())["rows"]["keyword"] == {"small": 1.0}
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


def test_steps_keep_their_order_and_unknown_ones_are_named() -> None:
    assert [step.name for step in choose("release, dense")] == ["dense", "release"]
    with pytest.raises(EvalError, match="'magic'"):
        choose("magic")


def test_sets_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    folders = [tmp_path / "xquad/de", tmp_path / "xquad/en", tmp_path / "scifact"]
    assert list(named(folders)) == ["xquad/de", "xquad/en", "scifact"]
    assert list(named(folders[:1])) == ["de"]
