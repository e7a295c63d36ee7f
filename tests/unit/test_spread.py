"""A run over several processes says all that one process would say, and fails where it lost something."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import spread

ROOT = Path(__file__).parents[2]
CONFTEST = """
import pytest
from tests import realparts, spread

def pytest_configure(config):
    for name in ("vllm", "browser"):
        config.addinivalue_line("markers", name)
    config.pluginmanager.register(realparts)
    spread.register(config)

@pytest.fixture
def redis_url():
    return "redis://"
"""
PLAIN = """
import pytest

def test_it_runs_on_redis(redis_url): ...

@pytest.mark.browser
def test_it_needs_a_browser():
    pytest.skip("Chromium is not installed")
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -ra --strict-markers\n")
    for name in ("test_one.py", "test_two.py"):
        (tmp_path / name).write_text(PLAIN)
    return tmp_path


def _run(suite: Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-p", "xdist", "-n", "2", "--max-worker-restart", "1"]
    environment = {"PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        command, cwd=suite, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


def _told(said: str, part: str) -> str:
    [line] = [line for line in said.splitlines() if line.startswith(f"{part} ")]
    return line.removeprefix(part).strip()


def test_files_that_go_together_are_there() -> None:
    assert [name for name in spread.TOGETHER if not (ROOT / "tests" / name).is_file()] == []


def test_what_ran_on_real_parts_and_what_was_skipped_is_told_for_all_processes(suite: Path) -> None:
    code, said = _run(suite)
    assert code == 0, said
    assert _told(said, "Redis") == "2 tests ran on it"
    assert _told(said, "Chromium") == "not used; 2 tests skipped: Chromium is not installed"
    assert "2 passed, 2 skipped" in said


def test_failures_and_a_process_that_dies_fail_the_run_and_the_others_go_on(suite: Path) -> None:
    crash = "import os, signal\n\ndef test_it_dies():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    (suite / "test_two.py").write_text(crash)
    (suite / "test_three.py").write_text("def test_it_fails():\n    assert 2 + 2 == 5\n")
    code, said = _run(suite)
    assert code == 1
    assert "FAILED test_three.py::test_it_fails" in said
    assert "crashed while running 'test_two.py::test_it_dies'" in said
    assert _told(said, "Redis") == "1 tests ran on it"


def test_a_test_that_no_process_ran_fails_the_run(suite: Path) -> None:
    """As if a scheduler had forgotten it."""
    forget = """
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item):
    return True if item.name == "test_it_is_forgotten" else None
"""
    with (suite / "conftest.py").open("a") as conftest:
        conftest.write(forget)
    (suite / "test_two.py").write_text("def test_it_is_forgotten(): ...\n")
    code, said = _run(suite)
    assert code == 1
    assert "1 tests were collected and not run" in said
    assert "test_two.py::test_it_is_forgotten" in said
