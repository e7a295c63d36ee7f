"""The shipped data set is what it says: its quotes are in its documents, its files come from its sources."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from app.release import DEFAULT_RELEASE, load_release
from eval.cases import document_id, limited, load_dataset, load_folder
from eval.leakage import leaks
from eval.metrics.ranking import normalised
from eval.types import CaseResult, Dataset, DatasetInvalid, Sample
from ingestion.parse import parse
from llm.language import LANGUAGES, detect

ROOT = Path(__file__).parents[2]
LEAST_WORDS = 20


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
        if case.kind == "question"
        and (gold.quote is None or texts[gold.document_id].count(normalised(gold.quote)) != 1)
    ]
    assert wrong == []


def test_a_fifth_of_the_questions_cannot_be_answered(handbook: Dataset) -> None:
    questions = [case for case in handbook.cases if case.kind == "question"]
    unanswerable = [case for case in questions if not case.answerable]
    assert len(questions) == 85
    assert len(unanswerable) * 5 >= len(questions)
    for case in unanswerable:
        assert "unanswerable" in case.tags
        assert case.reference == LANGUAGES[case.language].not_found


def test_some_cases_are_summaries_with_a_reference_within_their_words(handbook: Dataset) -> None:
    summaries = [case for case in handbook.cases if case.kind == "summary"]
    assert len(summaries) == 10
    assert any(case.question for case in summaries)
    assert any(len(case.gold) > 1 for case in summaries)
    for case in summaries:
        assert case.words
        assert LEAST_WORDS <= len((case.reference or "").split()) <= case.words


def test_questions_are_in_three_languages_as_they_say(handbook: Dataset) -> None:
    languages = Counter(case.language for case in handbook.cases)
    assert languages == {"en": 85, "de": 5, "es": 5}
    assert all(
        detect(case.question) in (None, case.language) for case in handbook.cases if case.kind == "question"
    )


def test_no_case_is_in_the_corpus_or_in_the_prompts_of_the_default_release(
    handbook: Dataset, texts: dict[str, str]
) -> None:
    results = [
        CaseResult(case=case, sample=Sample(case_id=case.id, errors={}), scores={}) for case in handbook.cases
    ]
    assert leaks(results, load_release(DEFAULT_RELEASE).canonical(), texts) == ()


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
    assert load_folder(folder) == load_dataset("handbook")
    cases = folder / "cases.jsonl"
    cases.write_text(cases.read_text().replace("28 days per calendar year", "29 days per calendar year"))
    with pytest.raises(DatasetInvalid, match="have changed"):
        load_folder(folder)


def test_a_folder_may_bring_its_corpus_as_files_or_as_texts(tmp_path: Path) -> None:
    case = {
        "id": "one",
        "question": "What is first?",
        "gold": [{"document_id": "a:b.md"}],
        "reference": "It.",
    }
    (tmp_path / "cases.jsonl").write_text(json.dumps(case) + "\n")
    (tmp_path / "files" / "a").mkdir(parents=True)
    (tmp_path / "files" / "a" / "b.md").write_text("# One\n")
    about = 'name = "x"\nversion = "1"\nlicence = "none"\n[corpus]\n'
    (tmp_path / "dataset.toml").write_text(about + 'folder = "files"\n')
    dataset = load_dataset(str(tmp_path))
    assert [document.filename for document in dataset.documents] == ["b.md"]
    assert not dataset.retrieval_only
    (tmp_path / "texts.jsonl").write_text('{"_id": "a/b.md", "text": "One"}\n')
    (tmp_path / "dataset.toml").write_text(about + 'file = "texts.jsonl"\n')
    [document] = load_dataset(str(tmp_path)).documents
    assert (document.id, document.content, document.filename) == ("a:b.md", b"One", None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gold": [{"document_id": "none.md"}]}, "no document 'none.md'"),
        ({"gold": [{"document_id": "d", "quote": "Two"}]}, "'d' does not hold its quote 'Two'"),
        ({"gold": ["d"]}, r"cases.jsonl, case 1 \(id 'one'\): 'd' is no dict"),
        ({"gold": None}, "None is no list"),
        ({"answer": "It."}, "has no answer"),
        ({"id": 1}, "1 is no str"),
        ({"kind": "essay"}, "'essay' is none of question, summary"),
        ({"kind": "summary", "gold": []}, "nothing to summarize"),
    ],
)
def test_a_case_that_cannot_be_asked_is_refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    case = {"id": "one", "question": "First?", "gold": [{"document_id": "d"}], "reference": "It.", **change}
    (tmp_path / "cases.jsonl").write_text(json.dumps(case) + "\n")
    (tmp_path / "texts.jsonl").write_text('{"_id": "d", "text": "One"}\n')
    (tmp_path / "dataset.toml").write_text(
        'name = "x"\nversion = "1"\nlicence = "none"\n[corpus]\nfile = "texts.jsonl"\n'
    )
    with pytest.raises(DatasetInvalid, match=said):
        load_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("cases", "said"),
    [("", "holds no case"), ('"one"\n', "line 1 is no object"), ('{"id": "one"}\n', "lacks gold, question")],
)
def test_what_holds_no_cases_is_refused(tmp_path: Path, cases: str, said: str) -> None:
    (tmp_path / "cases.jsonl").write_text(cases)
    (tmp_path / "texts.jsonl").write_text('{"_id": "d", "text": "One"}\n')
    (tmp_path / "dataset.toml").write_text('name = "x"\nversion = "1"\n[corpus]\nfile = "texts.jsonl"\n')
    with pytest.raises(DatasetInvalid, match=said):
        load_dataset(str(tmp_path))


def test_a_quoted_document_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    gold = [{"document_id": "a.pdf", "quote": "It."}]
    (tmp_path / "cases.jsonl").write_text(json.dumps({"id": "one", "question": "What?", "gold": gold}))
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.pdf").write_bytes(b"%PDF-1.7 cut short")
    (tmp_path / "dataset.toml").write_text('name = "x"\nversion = "1"\n[corpus]\nfolder = "files"\n')
    with pytest.raises(DatasetInvalid, match=r"'a.pdf' is quoted and cannot be read: The PDF is damaged"):
        load_dataset(str(tmp_path))


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
