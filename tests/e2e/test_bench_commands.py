"""`plumbline bench` measures what it says, on parts of its own, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def _bench(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "app.cli", "bench", *arguments, "--json", "--out", str(out)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PLUMBLINE_", "OTEL_"))}
    done = subprocess.run(
        command, capture_output=True, text=True, env={**environment, "TMPDIR": str(tmp_path)}, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(out.read_text())
    assert not list(tmp_path.glob("plumbline-bench-*"))
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("name", ["hop", "cache"])
def test_the_path_of_a_question_is_measured_step_by_step_beside_a_floor(tmp_path: Path, name: str) -> None:
    told = _bench(tmp_path, name, "--requests", "30", "--rounds", "2")
    assert told["bench"] == name
    assert told["service"]["failed"] == told["floor"]["failed"] == 0
    assert told["service"]["p50"] > told["floor"]["p50"] > 0
    assert told["service"]["cpu_ms"] > 0
    steps = {"cache"} if name == "cache" else {"cache", "search", "model", "check"}
    assert steps <= told["stages_ms"].keys()
    assert len(told["rounds"]["service"]) == len(told["rounds"]["floor"]) == 2


def test_a_search_is_told_apart_into_own_time_store_and_embedding(tmp_path: Path) -> None:
    told = _bench(tmp_path, "search", "--passages", "200", "--requests", "20", "--rate", "20")
    parts = told["median_ms"]
    assert parts["embedding"] > 0
    assert parts["store"] > 0
    assert 0 < parts["own"] < parts["wall"]
    assert told["one_client"]["failed"] == told["open_loop"]["failed"] == 0
