"""Where the `eval` extra is not installed, what needs it says so at once, and how to get it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from eval import cli, console

EXTRA = ("ragas", "langchain_community", "langchain_text_splitters", "rapidfuzz", "rouge_score", "scipy")


def test_a_run_without_ragas_is_told_at_once_and_with_the_command_that_mends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    asked = CliRunner().invoke(cli.commands, ["run", "--dataset", "handbook"])
    assert asked.exit_code == console.CANNOT
    assert "scored by RAGAS, which is not installed." in asked.stderr
    assert f"{sys.executable} -m pip install 'plumbline[eval]'" in asked.stderr


def test_nothing_of_the_extra_is_imported_before_it_is_needed() -> None:
    script = f"import sys, eval.cli, eval.measurements; print(set({EXTRA}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
