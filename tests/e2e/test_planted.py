"""Some regressions planted in real instances: a file, an artefact, a model's server, a cache and a judge."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PLANTED = {
    "misspelt-key": "refused",
    "cut-weights": "refused",
    "never-cites": "gate",
    "cached-answers": "gate",
    "judge-outage": "no verdict",
}
LIMIT = "20"
"""Cases that each release is asked: enough for every verdict here."""


def test_each_is_stopped_where_it_is_expected_to_be(tmp_path: Path) -> None:
    out = tmp_path / "found"
    done = _planted("--only", ",".join(PLANTED), "--limit-cases", LIMIT, "--out", str(out), "--json")
    found: dict[str, Any] = {row["name"]: row for row in json.loads(done.stdout)["planted"]}
    assert {name: row["stage"] for name, row in found.items()} == PLANTED, done.stderr
    assert done.returncode == 0
    assert found["misspelt-key"]["why"].startswith("search.limt")
    assert json.loads((out / "planted.json").read_text())["missed"] == []
    assert "| never-cites |" in (out / "planted.md").read_text()
    assert "citation_hit" in _failed(out / "never-cites.json")
    assert {name.partition("_")[0] for name in _failed(out / "judge-outage.json")} == {"judge"}
    cached = json.loads((out / "cached-answers.json").read_text())
    assert "came from a cache" in json.dumps(cached["regressions"])


def test_a_gate_that_looks_at_nothing_lets_readers_meet_it(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[metrics.answer_words]\nrole = "guard"\ndirection = "lower"\nmargin = 1e6\n')
    done = _planted("--only", "one-passage", "--limit-cases", LIMIT, "--rules", str(rules), "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert ([row["stage"] for row in found["planted"]], found["missed"]) == (["nothing"], ["one-passage"])


def test_an_unknown_one_is_refused() -> None:
    done = _planted("--only", "no-such")
    assert (done.returncode, "no-such" in done.stderr) == (2, True)


def _planted(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli", "eval", "planted", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)


def _failed(verdict: Path) -> set[str]:
    return {check["name"] for check in json.loads(verdict.read_text())["checks"] if not check["passed"]}
