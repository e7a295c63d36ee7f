"""The files beside each other, the page of all of them, and the commands that write both."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lxml import html
from typer.testing import CliRunner

from eval.cli import commands
from eval.forms import Form, rendered, write
from eval.history import history, index_html
from eval.types import ReportInvalid
from tests.reports import report, verdict

RUNNER = CliRunner()


def test_a_verdict_is_written_in_four_forms_and_a_report_in_three(tmp_path: Path) -> None:
    written = write(verdict(), tmp_path / "new" / "verdict.json")
    assert [path.name for path in written] == ["verdict.json", "verdict.md", "verdict.html", "verdict.xml"]
    assert [path.name for path in write(report(), tmp_path / "run-1.2")] == [
        "run-1.2.json",
        "run-1.2.md",
        "run-1.2.html",
    ]
    assert all(path.stat().st_size > 100 for path in written)


def test_a_report_has_no_junit_form() -> None:
    with pytest.raises(ReportInvalid, match="JUnit XML is a form of verdicts"):
        rendered(report(), Form.junit)


@pytest.mark.parametrize(
    ("form", "start"),
    [("html", "<!doctype html>"), ("markdown", "# FAIL"), ("json", "{"), ("junit", "<?xml")],
)
def test_the_report_command_shows_every_form(tmp_path: Path, form: str, start: str) -> None:
    [file, *_] = write(verdict(), tmp_path / "verdict.json")
    shown = RUNNER.invoke(commands, ["report", str(file), "--format", form])
    assert shown.exit_code == 0
    assert shown.output.startswith(start)


def test_the_report_command_refuses_junit_of_a_run(tmp_path: Path) -> None:
    [file, *_] = write(report(), tmp_path / "run.json")
    shown = RUNNER.invoke(commands, ["report", str(file), "--format", "junit"])
    assert shown.exit_code == 2
    assert "JUnit XML is a form of verdicts" in shown.stderr


def test_the_newest_comes_first_and_a_verdict_before_its_run(tmp_path: Path) -> None:
    write(report(), tmp_path / "old.json")
    write(report(0.5, started_at="2026-06-02T12:00:00+00:00"), tmp_path / "runs" / "new.json")
    write(verdict(), tmp_path / "verdict.json")
    paths = [entry.path.as_posix() for entry in history(tmp_path).entries]
    assert paths == ["verdict.json", "runs/new.json", "old.json"]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    write(report(), tmp_path / "run.json")
    (tmp_path / "other.json").write_text("{}")
    found = history(tmp_path)
    assert len(found.entries) == 1
    assert "other.json is not an evaluation report" in found.unread[0]
    assert "other.json is not an evaluation report" in index_html(found, tmp_path)


def test_the_index_links_each_entry_and_shows_outcome_and_trend(tmp_path: Path) -> None:
    write(report(0.8), tmp_path / "a b#1.json")
    write(report(0.6, started_at="2026-06-02T12:00:00+00:00"), tmp_path / "new.json")
    [file, *_] = write(verdict(), tmp_path / "verdict.json")
    file.with_suffix(".html").unlink()
    done = RUNNER.invoke(commands, ["index", str(tmp_path), "--json"])
    assert json.loads(done.output) == {"index": str(tmp_path / "index.html")}
    root: Any = html.document_fromstring((tmp_path / "index.html").read_text())
    assert [link.get("href") for link in root.xpath("//tbody//a")] == [
        "verdict.json",
        "new.html",
        "a%20b%231.html",
    ]
    assert root.xpath("//tbody//span[contains(@class, 'badge')]/text()") == ["FAIL", "run", "run"]
    [recall] = root.xpath("//figure[figcaption/strong='context_recall']")
    assert recall.xpath("string(.//*[local-name()='title'])") == "0.8, 0.6"
    assert "0.600, before 0.800" in recall.text_content()


def test_runs_of_different_data_have_no_trend_in_common(tmp_path: Path) -> None:
    other = report(started_at="2026-06-02T12:00:00+00:00")
    write(report(), tmp_path / "a.json")
    write(replace(other, dataset=replace(other.dataset, fingerprint="b" * 64)), tmp_path / "b.json")
    assert "<figure" not in index_html(history(tmp_path), tmp_path)


def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    done = RUNNER.invoke(commands, ["index", str(tmp_path / "nowhere")])
    assert done.exit_code == 2
    assert "There is no folder" in done.stderr
