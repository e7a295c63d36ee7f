"""`plumbline eval search` on the real product: an instance of its own, asked over HTTP, release and arms."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DOCUMENTS = {
    "leave": "Employees are entitled to 28 days of paid leave a year.",
    "pump": "The display shows E-1042 when the pump is blocked.",
    "roof": "Solar panels are inspected every spring.",
}
CODE, MEANING = "1", "2"
QUERIES = {CODE: ("E-1042", "pump"), MEANING: ("how long may I be on holiday", "leave")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": name, "title": "", "text": text} for name, text in DOCUMENTS.items()]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    queries = [{"_id": key, "text": text} for key, (text, _) in QUERIES.items()]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    judged = [f"{key}\t{wanted}\t1" for key, (_, wanted) in QUERIES.items()]
    (folder / "qrels/test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]))
    return folder


def test_a_release_and_its_arms_are_scored_by_what_an_instance_finds(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    done = _search(str(folder), "--out", str(out))
    assert done.returncode == 0, done.stderr
    cases = json.loads(out.read_text())["cases"]["small"]
    assert list(cases) == ["release", "dense", "keyword"]
    assert cases["release"] == {CODE: 1.0, MEANING: 1.0}
    assert cases["dense"][MEANING] == 1.0, "vectors alone know what a holiday is"
    assert cases["keyword"][CODE] == 1.0, "words alone know a code"
    assert "release over its better arm" in done.stdout


def test_a_folder_that_is_no_data_set_is_told_so_in_a_sentence(folder: Path) -> None:
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n1 pump 1\n")
    done = _search(str(folder))
    assert done.returncode == 2
    assert "is not in BEIR's layout" in done.stderr
    assert "Traceback" not in done.stderr


def _search(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli", "eval", "search", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
