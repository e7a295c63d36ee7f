"""The shipped data set is what it says: its quotes are in its documents, its files come from its sources."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from eval.cases import document_id, limited, load_dataset, load_shipped
from eval.metrics.ranking import normalised
from eval.types import Dataset, DatasetInvalid
from ingestion.parse import parse
from llm.language import NOT_FOUND

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def handbook() -> Dataset:
    return load_dataset("handbook")


@pytest.fixture(scope="module")
def texts(handbook: Dataset) -> dict[str, str]:
    """The extracted text of every document, white space normalised."""
    return {
        document.id: normalised(parse(document.content, document.filename, None).text)
        for document in handbook.documents
    }


def test_every_gold_quote_occurs_once_in_its_document(handbook: Dataset, texts: dict[str, str]) -> None:
    wrong = [
        (case.id, gold.quote)
        for case in handbook.cases
        for gold in case.gold
        if gold.quote is None or texts[gold.document_id].count(normalised(gold.quote)) != 1
    ]
    assert wrong == []


def test_a_fifth_of_the_questions_cannot_be_answered(handbook: Dataset) -> None:
    unanswerable = [case for case in handbook.cases if not case.answerable]
    assert len(handbook.cases) >= 48
    assert len(unanswerable) * 5 >= len(handbook.cases)
    assert all("unanswerable" in case.tags and case.reference == NOT_FOUND for case in unanswerable)


def test_every_document_is_asked_about(handbook: Dataset) -> None:
    asked = {gold.document_id for case in handbook.cases for gold in case.gold}
    assert {document.id for document in handbook.documents} == asked


def test_the_corpus_covers_every_format(handbook: Dataset) -> None:
    formats = {document.id.rsplit(".", 1)[-1] for document in handbook.documents}
    assert formats == {"md", "html", "pdf", "docx"}
    assert len(handbook.documents) >= 20


def test_the_committed_pdf_and_docx_files_say_what_their_sources_say(
    handbook: Dataset, texts: dict[str, str], tmp_path: Path
) -> None:
    written = _builder().build(tmp_path)
    built = {document_id(path.relative_to(tmp_path).as_posix()): path for path in written}
    assert set(built) == {d.id for d in handbook.documents if d.id.endswith((".pdf", ".docx"))}
    for name, path in built.items():
        assert normalised(parse(path.read_bytes(), path.name, None).text) == texts[name]


def test_a_part_of_the_cases_is_another_data_set_with_every_kind_in_it(handbook: Dataset) -> None:
    part = limited(handbook, 20)
    assert len(part.cases) == 20
    assert part.ref.fingerprint != handbook.ref.fingerprint
    assert {case.answerable for case in part.cases} == {True, False}
    assert limited(handbook, 10_000) is handbook


def test_a_beir_folder_is_a_retrieval_only_data_set(tmp_path: Path) -> None:
    _beir(tmp_path)
    dataset = load_dataset(str(tmp_path))
    assert dataset.retrieval_only
    assert dataset.search_limit == 10
    [case] = dataset.cases
    assert {gold.document_id: gold.gain for gold in case.gold} == {"d:1": 2.0, "d2": 1.0}
    assert [document.id for document in dataset.documents] == ["d:1", "d2"]


def test_other_content_is_another_fingerprint(tmp_path: Path) -> None:
    _beir(tmp_path)
    before = load_dataset(str(tmp_path)).ref.fingerprint
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace("first", "1st"))
    assert load_dataset(str(tmp_path)).ref.fingerprint != before


def test_cases_cannot_change_under_the_same_version(tmp_path: Path) -> None:
    folder = tmp_path / "handbook"
    shutil.copytree(ROOT / "eval" / "datasets" / "handbook", folder)
    assert load_shipped(folder) == load_dataset("handbook")
    cases = folder / "cases.jsonl"
    cases.write_text(cases.read_text().replace("28 days per calendar year", "29 days per calendar year"))
    with pytest.raises(DatasetInvalid, match="have changed"):
        load_shipped(folder)


def test_a_name_that_is_no_data_set_is_told_so() -> None:
    with pytest.raises(DatasetInvalid, match="handbook"):
        load_dataset("no-such-set")


def _beir(folder: Path) -> None:
    (folder / "qrels").mkdir()
    (folder / "corpus.jsonl").write_text(
        '{"_id": "d/1", "title": "One", "text": "the first\\u2028text"}\n'
        '{"_id": "d2", "title": "", "text": "two"}\n'
    )
    (folder / "queries.jsonl").write_text(
        '{"_id": "q1", "text": "first?"}\n{"_id": "q2", "text": "no judgment"}\n'
    )
    (folder / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq1\td/1\t2\nq1\td2\t1\nq1\td3\t0\n"
    )


def _builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sample_build", ROOT / "deploy" / "sample" / "build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
