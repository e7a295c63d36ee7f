"""`plumbline eval` as a shell runs it: what ends it early says so in one sentence."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from app.embedded import free_port
from eval.instance import _spawn, _until_ready
from eval.outputs import write_beside
from eval.report import dump, report_json
from eval.target import HttpTarget
from eval.types import InstanceFailed, Report, Score
from tests import reports
from tests.shell import run

CANNOT = 2


def _unjudged(report: Report) -> Report:
    """The same, of which one case's answer got no verdict."""
    first, *others = report.results
    away = Score(None, "The judge is away.", "judge")
    return replace(report, results=(replace(first, scores={**first.scores, "faithfulness": away}), *others))


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.json"
    path.write_text(dump(report_json(reports.report())))
    return path


@pytest.mark.parametrize("command", ["run", "planted", "simulate", "gate"])
def test_a_place_that_takes_no_file_is_told_before_the_work_begins(
    command: str, tmp_path: Path, report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.cli.asyncio.run", lambda work: pytest.fail("the work began"))
    monkeypatch.setattr("eval.simulate.simulate", lambda *_, **__: pytest.fail("the work began"))
    given = [str(report), str(report)] if command == "gate" else []
    ended = run("eval", command, *given, "--out", str(report / "below" / "found.json"))
    assert (ended.exit_code, ended.stdout) == (CANNOT, "")
    assert ended.stderr.startswith(f"plumbline eval: Cannot write to {report / 'below'}")
    assert ended.stderr.count("\n") == 1


def test_a_page_that_cannot_be_written_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "index.html").mkdir()
    ended = run("eval", "index", str(tmp_path))
    assert ended.exit_code == CANNOT
    assert ended.stderr == f"plumbline eval: Cannot write to {tmp_path / 'index.html'}: Is a directory.\n"


@pytest.mark.parametrize("name", ["found", "found.json", "found.md"])
def test_each_form_has_a_file_whichever_of_them_was_named(tmp_path: Path, name: str) -> None:
    written = write_beside(tmp_path / name, {".json": "{}", ".md": "# Found"})
    assert [(path.name, path.read_text()) for path in written] == [
        ("found.json", "{}"),
        ("found.md", "# Found"),
    ]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:1", "nothing answers at http://127.0.0.1:1"),
        ("somewhere", "somewhere is no address of a service: write one as http://127.0.0.1:8080."),
        ("http://here:port", "http://here:port is no address"),
    ],
)
def test_an_address_where_nothing_is_ends_a_run_with_a_sentence(
    address: str, said: str, tmp_path: Path
) -> None:
    ended = run("eval", "run", "--url", address, "--out", str(tmp_path / "report.json"))
    assert ended.exit_code == CANNOT
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        (reports.report(), 0, ""),
        (reports.report(lost=2), 1, "2 of 13 cases had a request that failed."),
        (_unjudged(reports.report()), 1, "1 of 13 cases have a score that the judge did not give."),
    ],
)
def test_a_run_that_lost_answers_or_scores_is_no_success(
    found: Report, code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def evaluated(*_: object) -> Report:
        return found

    monkeypatch.setattr("eval.cli._evaluate", evaluated)
    ended = run("eval", "run", "--out", str(tmp_path / "report.json"))
    assert ended.exit_code == code
    assert (tmp_path / "report.json").exists()
    assert said in ended.stderr
    assert ("plumbline eval: " in ended.stderr) is bool(said)


async def test_an_instance_that_did_not_start_tells_why(tmp_path: Path) -> None:
    why = "No installed package carries the embedder 'none'."
    line = json.dumps({"level": "info", "message": "Will assume transactional DDL."})
    log = tmp_path / "log"
    printed = "\n".join(
        [
            "creating the database",
            "ready    milvus  1.4 s",
            "api ended with exit code 3. Its log is /gone; the last of it:",
        ]
        + [f"  api | {line}"] * 20
        + [f"  api | {why}"]
    )
    process = await _spawn(["sh", "-c", 'echo "$0"; exit 3', printed], log)
    async with HttpTarget(f"http://127.0.0.1:{free_port()}") as target:
        with pytest.raises(InstanceFailed) as failed:
            await asyncio.wait_for(_until_ready(target, process, log), 60)
    assert str(failed.value) == f"It ended with 3 before it was ready: api | {why}"
