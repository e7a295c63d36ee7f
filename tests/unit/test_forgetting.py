"""Reports of runs keep nothing that an erased document was quoted with, and stay reports."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from eval.forgetting import Forgotten, forget
from eval.report import aggregates, dump, read, read_report, report_json, verdict_json
from eval.types import ReportInvalid, Verdict
from ingestion.receipts import FORMAT, Receipt, Receipts, reference
from tests import reports

SAID = "The answer is 28 days. [1]"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "base.json"
    path.parent.mkdir()
    path.write_text(dump(report_json(reports.report())), encoding="utf-8")
    path.with_suffix(".html").write_text(f"<p>{SAID}</p>")
    return path


def receipt(tmp_path: Path, *documents: str) -> Receipt:
    named = [
        {"reference": reference("ab", "default", one), "version": 1, "revisions": []} for one in documents
    ]
    body = {"format": FORMAT, "id": "r", "tenant": "default", "salt": "ab", "documents": named}
    kept = Receipts(str(tmp_path / "receipts"))
    kept.sign("r", body)
    [receipt] = kept.all()
    return receipt


def documents_of(path: Path) -> list[str]:
    found = read_report(path)
    return sorted({one.document_id for result in found.results for one in result.case.gold})


def test_answers_from_an_erased_document_lose_their_text_and_scores_stay(
    written: Path, tmp_path: Path
) -> None:
    before = read_report(written)
    erased = documents_of(written)
    told = forget(written.parent, [receipt(tmp_path, *erased)])
    after = read_report(written)

    assert told == Forgotten(len(before.results), 1)
    assert SAID not in written.read_text()
    assert all(
        result.case.question not in written.read_text() for result in before.results if result.case.question
    )
    assert aggregates(after) == aggregates(before)
    assert [result.case.id for result in after.results] == [result.case.id for result in before.results]
    assert not written.with_suffix(".html").exists()


def test_a_verdict_on_the_reports_loses_what_it_quotes_of_them(written: Path, tmp_path: Path) -> None:
    compared = reports.verdict("failed")
    here, elsewhere = (written.with_name(f"{name}.json") for name in ("verdict", "other"))
    here.write_text(dump(verdict_json(compared)))
    here.with_suffix(".xml").write_text("<testsuites/>")
    apart = replace(compared, dataset=replace(compared.dataset, fingerprint="b" * 64))
    elsewhere.write_text(dump(verdict_json(apart)))
    quoted = compared.regressions[0].baseline_answer
    assert quoted in here.read_text()

    told = forget(written.parent, [receipt(tmp_path, *documents_of(written))])

    assert told == Forgotten(len(read_report(written).results) + 1, 2)
    assert quoted not in here.read_text()
    assert compared.regressions[0].question not in here.read_text()
    after = read(here)
    assert isinstance(after, Verdict)
    assert after.checks == compared.checks
    assert not here.with_suffix(".xml").exists()
    assert quoted in elsewhere.read_text()


def test_a_report_that_cannot_be_read_is_not_passed_over(written: Path, tmp_path: Path) -> None:
    written.with_name("folder.json").mkdir()
    with pytest.raises(ReportInvalid, match=r"folder\.json: Is a directory"):
        forget(written.parent, [receipt(tmp_path, *documents_of(written))])


def test_answers_from_other_documents_stay(written: Path, tmp_path: Path) -> None:
    before = written.read_text()
    assert forget(written.parent, [receipt(tmp_path, "never-asked-about.md")]) == Forgotten(0, 0)
    assert written.read_text() == before
    assert written.with_suffix(".html").exists()


def test_other_files_of_the_folder_are_left_alone(written: Path, tmp_path: Path) -> None:
    other = written.with_name("package.json")
    other.write_text(json.dumps({"kind": "package"}))
    written.with_name("broken.json").write_text("{")
    forget(written.parent, [receipt(tmp_path, *documents_of(written))])
    assert json.loads(other.read_text()) == {"kind": "package"}
