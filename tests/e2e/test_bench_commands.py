"""`plumbline bench` measures what it says, on parts of its own, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eval.bench.paced import PacedServer
from tests.paced import serving


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
    assert told["times_the_floor"] > 1
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


def test_streams_are_compared_with_the_model_itself_and_far_too_much_load_is_refused(tmp_path: Path) -> None:
    size = ("--in-flight", "16", "--tokens", "8", "--rounds", "3", "--spread", "0.2", "--seconds", "1.5")
    told = _bench(tmp_path, "chat", *size)
    streams, (*_, flooded) = told["streams"], told["rounds"]["overload"]
    for one in told["rounds"]["streams"]:
        # Neither side is faster than the model, but for the clocks: 0.2 s to the first token, and 20 a second
        # from then on.
        assert min(one["service_first_ms"], one["straight_first_ms"]) > 190
        rates = one["service_tokens_per_second"], one["straight_tokens_per_second"]
        assert 0 < max(rates) < 1.1 * 16 * 8 / (15 / 16 * 0.2 + 0.2 + 7 / 20)
        assert one["ratio"] == pytest.approx(rates[0] / rates[1], abs=1e-2)
    assert streams["service_cpu_us_per_token"] > 0
    assert flooded["good"] > 0
    assert flooded["shed"] > flooded["other"] == 0
    assert flooded["good"] + flooded["shed"] == flooded["sent"]
    assert told["overload"]["of_peak"] > 0


def test_answers_are_timed_with_a_shadow_and_without(tmp_path: Path) -> None:
    told = _bench(tmp_path, "shadow", "--rate", "4", "--seconds", "3", "--rounds", "1")
    assert [one["shadow"] for one in told["rounds"]] == [False, True]
    # The models take a second for an answer.
    assert min(told["off"]["p95_ms"], told["on"]["p95_ms"]) > 900
    assert told["ratio_p95"] > 0
    assert told["shadow"]["mirrored"] > told["shadow"]["failed"] == 0
    assert sum(told["shadow"].values()) <= told["on"]["answers"]


def test_a_model_that_runs_is_asked_for_as_much_by_both_sides(tmp_path: Path) -> None:
    app, model = PacedServer(), "paced?rate=100&length=100"
    with serving(app) as url:
        size = ("--in-flight", "2", "--tokens", "5", "--rounds", "2")
        told = _bench(tmp_path, "chat", "--model-url", url, "--model", model, *size)
    assert len(told["rounds"]) == 2
    assert told["streams"]["ratio"] > 0
    assert (
        {body["max_tokens"] for body in app.requests} == {body["min_tokens"] for body in app.requests} == {5}
    )
    # Warm-up and two rounds of each side, no question twice.
    prompts = {body["messages"][-1]["content"] for body in app.requests}
    assert len(prompts) == len(app.requests) == 2 * (2 + 2 * 3 * 2)


def test_a_model_that_is_not_there_is_said_in_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app.cli", "bench", "chat", "--in-flight", "1", "--rounds", "1"]
    nowhere = ("--model-url", "http://127.0.0.1:1/v1", "--model", "none")
    done = subprocess.run(
        [*command, *nowhere], capture_output=True, text=True, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert done.returncode == 2
    assert "Nothing answers at" in done.stderr
    # Before anything was started for it.
    assert "collecting prompts" not in done.stderr
    assert not list(tmp_path.glob("plumbline-bench-*"))


def _notes(folder: Path, count: int) -> Path:
    folder.mkdir()
    for n in range(count):
        lines = [f"The keeper of lighthouse {n} wrote line {line} of the log." for line in range(20)]
        (folder / f"lighthouse-{n}.md").write_text(f"# Lighthouse {n}\n\n{' '.join(lines)}")
    return folder


def test_the_whole_path_of_documents_is_timed_beside_embedding_their_chunks_alone(tmp_path: Path) -> None:
    folder = _notes(tmp_path / "notes", 30)
    told = _bench(tmp_path, "ingest", str(folder), "--chunks", "400", "--rate", "20", "--seconds", "1")[
        "notes"
    ]
    assert told["documents"] > 30
    assert told["chunks"] >= 360
    assert told["tokens_not_embedded"] == told["chunks_not_found"] == 0
    whole, alone = told["whole_path"]["tokens_per_second"], told["embedding_alone"]["tokens_per_second"]
    assert 0 < whole < alone
    assert told["peak_mib"]["worker"] > 100
    assert told["search_idle"]["failed"] == told["search_during_load"]["failed"] == 0


def test_several_workers_are_timed_and_none_does_what_another_did(tmp_path: Path) -> None:
    folder = _notes(tmp_path / "notes", 60)
    told = _bench(tmp_path, "workers", str(folder), "--workers", "2")["2 workers"]
    assert told["jobs"] == told["revisions"] == told["shown"] == told["documents"] == 60
    assert told["taken_again"] == told["unfinished"] == 0
