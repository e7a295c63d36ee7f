"""The gate on the real product: each release runs in an instance of its own, on the shipped data set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.release import DEFAULT_RELEASE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LIMIT = "25"
"""Cases asked of each release: enough for every verdict here, spread over all kinds."""


@pytest.fixture(scope="module")
def folder(parts_folder: Path) -> Path:
    """Where the private instances are too, so that what they leave is told from what others run."""
    folder = parts_folder / "gate"
    folder.mkdir(mode=0o711)
    return folder


@pytest.fixture(scope="module")
def baseline(folder: Path) -> Path:
    return _run(folder, "baseline", None)


def test_the_baseline_answers_and_loses_nothing(baseline: Path) -> None:
    report = json.loads(baseline.read_text())
    assert report["error"] is None
    assert len(report["results"]) == int(LIMIT)
    metrics = report["metrics"]
    assert {name: found["failed"] for name, found in metrics.items() if found["failed"]} == {}
    assert metrics["document_recall_10"]["mean"] > 0.9
    assert metrics["passage_recall_10"]["mean"] > 0.8
    assert metrics["context_recall"]["mean"] > 0.8
    assert metrics["citation_hit"]["mean"] > 0.5
    assert len(report["release"]["id"]) == 12


def test_an_unchanged_release_passes(folder: Path, baseline: Path) -> None:
    release = folder / "unchanged.toml"
    release.write_text(DEFAULT_RELEASE.read_text())
    code, verdict = _gate(folder, baseline, _run(folder, "unchanged", release))
    assert code == 0
    assert verdict["passed"]
    assert verdict["changes"] == []
    assert verdict["baseline"]["id"] == verdict["candidate"]["id"]


def test_a_release_that_retrieves_one_passage_fails_and_the_report_says_why(
    folder: Path, baseline: Path
) -> None:
    release = folder / "narrow.toml"
    release.write_text(DEFAULT_RELEASE.read_text().replace("limit = 8", "limit = 1"))
    code, verdict = _gate(folder, baseline, _run(folder, "narrow", release))
    assert code == 1
    assert "context_recall" in _failed(verdict)
    assert verdict["changes"] == [{"path": "search.limit", "before": "8", "after": "1"}]
    assert verdict["regressions"]
    text = (folder / "verdict.md").read_text()
    assert text.startswith("# FAIL")
    assert "**context_recall**" in text
    assert "`search.limit`: `8` to `1`" in text


def test_a_release_whose_prompt_lacks_the_passages_fails(folder: Path, baseline: Path) -> None:
    (folder / "blind.md").write_text("# user\nAnswer this question.\n\n{question}\n")
    release = folder / "blind.toml"
    release.write_text(DEFAULT_RELEASE.read_text() + '\n[prompts]\nanswer = "./blind.md"\n')
    code, verdict = _gate(folder, baseline, _run(folder, "blind", release))
    assert code == 1
    assert {"answered", "citation_hit"} <= set(_failed(verdict))
    assert [change["path"] for change in verdict["changes"]] == ["prompts.answer"]


def test_nothing_of_the_private_instances_is_left(folder: Path, baseline: Path) -> None:
    left = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in argument for argument in process.info["cmdline"] or [])
    ]
    assert left == []
    assert list(folder.glob("plumbline-eval-*")) == []


def _run(folder: Path, name: str, release: Path | None) -> Path:
    out = folder / f"{name}.json"
    command = ["run", "--limit-cases", LIMIT, "--out", str(out)]
    done = _eval(folder, *command, *(["--release", str(release)] if release else []))
    assert out.exists(), done.stderr
    return out


def _gate(folder: Path, baseline: Path, candidate: Path) -> tuple[int, dict[str, Any]]:
    out = folder / "verdict.json"
    done = _eval(folder, "gate", str(baseline), str(candidate), "--out", str(out))
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(out.read_text())


def _eval(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli", "eval", *arguments]
    environment = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=500)


def _failed(verdict: dict[str, Any]) -> list[str]:
    return [check["name"] for check in verdict["checks"] if not check["passed"]]
