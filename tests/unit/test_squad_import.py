"""A set in SQuAD's form becomes a data set of ours that says the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eval.cases import load_dataset
from eval.cli import commands
from eval.console import CANNOT
from eval.squad import import_squad
from eval.types import DatasetInvalid
from llm.language import LANGUAGES

TEXT = "Leave is 28 days, e.g. in May. It is paid. Nobody works on Sunday."


def test_the_gold_quote_is_the_sentence_that_holds_the_answer(tmp_path: Path) -> None:
    _source(tmp_path / "in", [_row("q1", "28 days"), _row("q2", "paid"), _row("q3", "paid. Nobody")])
    import_squad(tmp_path / "in", tmp_path / "out", questions=9, language="en", licence="none")
    dataset = load_dataset(str(tmp_path / "out"))
    assert [case.gold[0].quote for case in dataset.cases] == [
        "Leave is 28 days, e.g. in May.",
        "It is paid.",
        "It is paid. Nobody works on Sunday.",
    ]
    assert [case.reference for case in dataset.cases] == ["28 days", "paid", "paid. Nobody"]
    assert {case.gold[0].document_id for case in dataset.cases} == {
        document.id for document in dataset.documents
    }
    assert (dataset.ref.name, dataset.licence) == ("out", "none")


def test_a_fifth_of_the_cases_has_no_answer_and_says_so_in_its_language(tmp_path: Path) -> None:
    rows = [_row(f"q{n}", "paid") for n in range(20)] + [_row(f"n{n}", None) for n in range(20)]
    _source(tmp_path / "in", rows)
    made = import_squad(tmp_path / "in", tmp_path / "out", questions=10, language="de", licence="none")
    nothing = [case for case in made.cases if not case.answerable]
    assert (len(made.cases), len(nothing)) == (10, 2)
    assert {case.reference for case in nothing} == {LANGUAGES["de"].not_found}
    assert {case.language for case in made.cases} == {"de"}
    again = import_squad(tmp_path / "in", tmp_path / "out", questions=10, language="de", licence="none")
    assert again == made


def test_what_was_imported_cannot_change_unnoticed(tmp_path: Path) -> None:
    _source(tmp_path / "in", [_row("q1", "28 days")])
    import_squad(tmp_path / "in", tmp_path / "out", questions=1, language="en", licence="none")
    cases = tmp_path / "out" / "cases.jsonl"
    cases.write_text(cases.read_text().replace("28 days", "29 days"))
    with pytest.raises(DatasetInvalid, match="have changed"):
        load_dataset(str(tmp_path / "out"))


def test_the_command_writes_it_and_says_how_much(tmp_path: Path) -> None:
    _source(tmp_path / "in", [_row("q1", "28 days")])
    done = CliRunner().invoke(commands, ["import", "squad", str(tmp_path / "in"), str(tmp_path / "out")])
    assert done.exit_code == 0
    assert "1 cases on 1 documents" in done.output
    failed = CliRunner().invoke(commands, ["import", "squad", str(tmp_path), str(tmp_path / "out")])
    assert failed.exit_code == CANNOT


@pytest.mark.parametrize("row", [{"id": "q"}, {"id": "q", "question": "?", "is_impossible": False}])
def test_another_form_is_refused(tmp_path: Path, row: dict[str, object]) -> None:
    _source(tmp_path / "in", [row])
    with pytest.raises(DatasetInvalid, match="SQuAD's form"):
        import_squad(tmp_path / "in", tmp_path / "out", questions=1, language="en", licence="none")


def _row(name: str, answer: str | None) -> dict[str, object]:
    found: dict[str, object] = {"answers": [], "answer_start": []}
    if answer is not None:
        found = {"answers": [answer], "answer_start": [TEXT.index(answer)]}
    return {"id": name, "question": "?", "context_id": "0/1", "is_impossible": answer is None, **found}


def _source(folder: Path, rows: list[dict[str, object]]) -> None:
    folder.mkdir()
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": "0/1", "title": "Leave", "text": TEXT}) + "\n")
    (folder / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
