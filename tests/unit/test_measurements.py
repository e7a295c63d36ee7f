"""The measurements of answers: what counts as right, and that the open sets are read as they are."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from eval import checker, summaries, unanswerable
from eval.checker import Labelled
from eval.encoders import encoder
from eval.inprocess import InProcess, Text
from eval.types import EvalError
from eval.unanswerable import Asked
from retrieval.errors import EmbedderUnavailable
from retrieval.types import Encoder

DATA = Path(__file__).parents[3] / "shared" / "data"
open_data = pytest.mark.skipif(not DATA.is_dir(), reason="The open data sets are not in ../shared/data")
SOURCE = "Every employee has 28 days of paid leave. Unused days expire on 31 March."


@pytest.fixture(scope="module")
async def embedder(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Encoder]:
    try:
        async with encoder("all-MiniLM-L6-v2", tmp_path_factory.mktemp("models")) as found:
            yield found
    except EmbedderUnavailable as error:
        pytest.skip(str(error))


def _quiet(step: str, done: int, total: int) -> None:
    return


async def _alike(tenant: str, text: str, sentences: Sequence[str]) -> list[float]:
    return [0.5] * len(sentences)


def _labelled(text: str, supported: bool, group: str) -> Labelled:
    return Labelled(
        dataset="set",
        group=group,
        text=text,
        question="",
        source=SOURCE,
        supported=supported,
        held_out=True,
    )


async def test_figures_count_right_and_wrong_verdicts() -> None:
    items = [
        _labelled("Every employee has 28 days of paid leave.", True, "1"),
        _labelled("Every employee has 30 days of paid leave.", False, "1"),
        _labelled("Unused days expire on 31 March.", False, "2"),
    ]
    (row,) = checker.figures(await checker.measured(items, _alike, _quiet))
    assert (row.precision, row.recall, row.caught, row.ranked) == (0.5, 1.0, 0.5, 1.0)
    assert row.auc == 0.75


async def test_the_fit_finds_the_measure_that_tells() -> None:
    items = []
    for n in range(40):
        text = (
            "Unused days expire on 31 March." if n % 2 else f"Unused days expire in {n + 50} weeks of rain."
        )
        items.append(_labelled(text, bool(n % 2), str(n)))
    found = await checker.measured([_train(item) for item in items], _alike, _quiet)
    weights = checker.fitted(found, lambda one: one.words)
    assert weights["quoted"] > 0 > weights["numbers"]


def _train(item: Labelled) -> Labelled:
    return Labelled(**{**{name: getattr(item, name) for name in Labelled.__slots__}, "held_out": False})


@open_data
def test_the_labelled_sets_have_the_published_sizes() -> None:
    assert len(checker.halueval(DATA / "halueval" / "qa_one.jsonl")) == 1_000
    assert len(checker.qags(DATA / "qags" / "qags_cnndm.jsonl")) == 714
    claims = checker.scifact(DATA / "scifact")
    assert {claim.held_out for claim in claims} == {True, False}
    groups = {claim.group.partition("/")[0] for claim in claims if claim.held_out}
    assert not groups & {claim.group.partition("/")[0] for claim in claims if not claim.held_out}


@open_data
def test_questions_are_half_answerable_and_the_summaries_have_references() -> None:
    wanted = unanswerable.questions(DATA / "squad-v2.0-dev", 20)
    assert [bool(answers) for _, answers in wanted] == [True] * 10 + [False] * 10
    for tasks in (
        summaries.squality(DATA / "squality" / "dev.jsonl", 2),
        summaries.qmsum(DATA / "qmsum" / "val.jsonl", 2),
    ):
        assert len(tasks) == 4
        assert all(task.references and task.text and task.words >= 50 for task in tasks)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match=r"nowhere\.jsonl"):
        checker.qags(tmp_path / "nowhere.jsonl")


def test_declining_is_right_only_where_there_is_no_answer() -> None:
    found = [
        Asked(question="a", answers=("28 days",), said="It is. The 28 days.", declined=False, first="It is."),
        Asked(question="b", answers=("Paris",), said="Not here.", declined=True),
        Asked(question="c", answers=(), said="Not here.", declined=True),
        Asked(question="d", answers=(), said="Made up.", declined=False),
    ]
    row = unanswerable.figures(found)
    assert (row.precision, row.recall, row.answered, row.contained) == (0.5, 0.5, 0.5, 0.5)
    assert row.first == 0.0


async def test_questions_are_asked_of_the_product_itself(embedder: Encoder) -> None:
    house = InProcess(embedder)
    await house.add([Text("leave", "Leave", SOURCE)], _quiet)
    wanted = [("How many days of paid leave are there?", ("28 days",)), ("Who built the pyramids?", ())]
    row = unanswerable.figures(await unanswerable.asked(house, wanted, _quiet))
    assert (row.precision, row.recall, row.contained, row.first) == (1.0, 1.0, 1.0, 1.0)


def test_a_set_without_unanswerable_questions_has_them_of_what_is_left_out(tmp_path: Path) -> None:
    texts = [{"_id": f"1-{n}", "title": "T", "text": f"Text {n}."} for n in range(4)]
    asked = [
        {"question": f"q{n}", "context_id": f"1-{n}", "answers": ["x"], "is_impossible": False}
        for n in range(4)
    ]
    for name, rows in (("corpus", texts), ("qa", asked)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [text.id for text in unanswerable.paragraphs(tmp_path)] == ["1-1", "1-3"]
    assert unanswerable.questions(tmp_path, 4) == [("q1", ("x",)), ("q3", ("x",)), ("q0", ()), ("q2", ())]
    asked[0]["is_impossible"] = True
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    assert len(unanswerable.paragraphs(tmp_path)) == 4


async def test_summaries_are_measured_against_references(embedder: Encoder, tmp_path: Path) -> None:
    pytest.importorskip("rouge_score")
    file = tmp_path / "dev.jsonl"
    text = " ".join(f"On day {n} the river rose by {n * 3} centimetres near the mill." for n in range(30))
    responses = [{"response_text": "The river rose near the mill day by day."}]
    questions = [{"question_text": "What is the plot?", "responses": responses}]
    file.write_text(json.dumps({"document": text, "questions": questions}))
    house = InProcess(embedder)
    row = await summaries.measured("squality", house, summaries.squality(file, 1), _quiet)
    assert row.summaries == 1
    assert row.rouge1 > 0
    assert row.supported == 1.0
