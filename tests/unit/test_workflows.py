"""The workflows follow GitHub's schema; what they run exists, and finds the releases that changed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yaml"))
GATE = ROOT / ".github/workflows/release-gate.yaml"
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def gate() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(GATE.read_text())
    return loaded


def _steps(workflow: dict[str, Any], job: str) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = workflow["jobs"][job]["steps"]
    return steps


@pytest.mark.parametrize("schema", ["vendor.github-workflows", "custom.github-workflows-require-timeout"])
def test_workflows_follow_their_schema(schema: str) -> None:
    assert WORKFLOWS
    command: list[str | Path] = [BIN / "check-jsonschema", "--builtin-schema", schema, *WORKFLOWS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_no_script_holds_what_others_may_write(file: Path) -> None:
    """Text of a pull request reaches scripts as variables: put into one, it would run."""
    for job in yaml.safe_load(file.read_text())["jobs"].values():
        for step in job["steps"]:
            assert "${{" not in step.get("run", "")


def test_the_gate_uses_options_and_targets_that_exist(gate: dict[str, Any]) -> None:
    scripts = "\n".join(step.get("run", "") for step in _steps(gate, "gate"))
    used = re.findall(r"plumbline (eval \w+)((?: --?[\w-]+| \S+)*)", scripts)
    assert {command for command, _ in used} == {"eval run", "eval gate"}
    for command, rest in used:
        shown = subprocess.run(
            [BIN / "plumbline", *command.split(), "--help"], capture_output=True, text=True, check=True
        )
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in shown.stdout, (command, option)
    for target in re.findall(r"make ([\w-]+)", scripts):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text()


def test_a_gate_that_fails_fails_the_job_and_is_told_all_the_same(gate: dict[str, Any]) -> None:
    steps = _steps(gate, "gate")
    names = [step.get("name") or step["uses"].partition("@")[0] for step in steps]
    [judge] = [step for step in steps if "eval gate" in step.get("run", "")]
    assert "continue-on-error" not in judge
    assert "||" not in judge["run"]
    after = steps[names.index("Judge") + 1 :]
    assert [step.get("uses", "").partition("@")[0] for step in after] == [
        "",
        "actions/upload-artifact",
        "mikepenz/action-junit-report",
    ]
    assert all("!cancelled()" in step["if"] for step in after)
    assert "GITHUB_STEP_SUMMARY" in after[0]["run"]


def _git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    command = ("git", *identity, *arguments)
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    releases = tmp_path / "deploy/releases"
    (releases / "prompts").mkdir(parents=True)
    (tmp_path / "app").mkdir()
    for name in ("deploy/releases/a.toml", "deploy/releases/b.toml", "app/default.toml", "README.md"):
        (tmp_path / name).write_text("1")
    (releases / "answer.md").write_text("1")
    _git(tmp_path, "init", "-q", "-b", "main")
    _git(tmp_path, "add", "-A")
    _git(tmp_path, "commit", "-qm", "base")
    return tmp_path


def _found(gate: dict[str, Any], repository: Path, **environment: str) -> list[str]:
    """The releases that the workflow's own script finds."""
    [script] = [step["run"] for step in _steps(gate, "changed") if "run" in step]
    output = repository.parent / f"{repository.name}-output"
    output.unlink(missing_ok=True)
    told = {"ONE": "", "PATHS": "deploy/releases app/default.toml", "GITHUB_OUTPUT": str(output)}
    subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=repository,
        check=True,
        env={"PATH": os.environ["PATH"], **told, **environment},
    )
    found: list[str] = json.loads(output.read_text().removeprefix("releases="))
    return found


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"deploy/releases/a.toml": "2"}, ["deploy/releases/a.toml"]),
        ({"deploy/releases/new.toml": "1", "README.md": "2"}, ["deploy/releases/new.toml"]),
        ({"app/default.toml": "2"}, ["app/default.toml"]),
        ({"README.md": "2"}, []),
        ({"deploy/releases/answer.md": "2"}, ["deploy/releases/a.toml", "deploy/releases/b.toml"]),
        ({"deploy/releases/a.toml": None}, []),
        ({"deploy/releases/$(touch x).toml": "1"}, ["deploy/releases/$(touch x).toml"]),
    ],
    ids=str,
)
def test_the_changed_releases_are_found(
    gate: dict[str, Any], repository: Path, change: dict[str, str | None], found: list[str]
) -> None:
    base = _git(repository, "rev-parse", "HEAD")
    for name, content in change.items():
        if content is None:
            (repository / name).unlink()
        else:
            (repository / name).write_text(content)
    _git(repository, "add", "-A")
    _git(repository, "commit", "-qm", "change")
    assert _found(gate, repository, BASE=base) == found
    assert not (repository / "x").exists()


def test_one_release_can_be_named(gate: dict[str, Any], repository: Path) -> None:
    assert _found(gate, repository, BASE="", ONE="some/where.toml") == ["some/where.toml"]
