"""The rules that a reader may rely on, checked: folders, names, imports, environment."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("app", "ingestion", "retrieval", "llm", "eval")
ALLOWED = {
    *("pyproject.toml", "README.md", "CHANGELOG.md", "Makefile", *FOLDERS, "deploy", "tests"),
}


def _files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--config", "pyproject.toml", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_top_level_holds_only_what_belongs_there() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    names = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in names if not name.startswith(".")} <= ALLOWED


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_other_distribution_owns_our_import_names(folder: str) -> None:
    owners = importlib.metadata.packages_distributions().get(folder, [])
    assert set(owners) <= {"plumbline"}


def test_optional_packages_are_not_imported_at_start_up() -> None:
    """Starting the command line or the API must not pay for extras, nor for torch; no command for what only
    the API needs."""
    script = (
        "import sys, app.cli, app.main; "
        "heavy = ('torch', 'ragas', 'sentence_transformers', 'scipy', 'mcp', 'langchain_core', 'mlflow'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_the_environment_is_read_in_one_place() -> None:
    """Settings read it, and the check of OpenTelemetry's names, to which processes hand it; a child inherits
    it; RAGAS is told through it to send nothing; servers of measurements are started by uvicorn, which hands
    no options on."""
    allowed = {
        *("app/settings.py", "app/otel.py", "app/main.py", "app/cli/workerprocess.py", "app/child.py"),
        *("eval/controller.py", "eval/cli.py", "eval/metrics/answer.py"),
        *("eval/bench/paced.py", "eval/planted/server.py"),
    }
    found = set()
    for path in _files(*FOLDERS):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
                found.add(str(path.relative_to(ROOT)))
    assert found <= allowed


def test_every_module_says_why_it_exists() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in _files(*FOLDERS)
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_declared_conflict_between_vllm_and_evaluation_is_real() -> None:
    """vLLM lives in an environment of its own; pyproject must never ask for both."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    everything = [*project["dependencies"], *(r for name, rs in extras.items() if name != "gpu" for r in rs)]
    assert not any(r.startswith("vllm") for r in everything)
