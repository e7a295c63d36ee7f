"""A report in MLflow: what it is told, and that a real one, where it is installed, keeps it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eval import tracking
from eval.cli import commands
from eval.console import CANNOT
from eval.means import means
from eval.report import dump, read_report, report_json
from tests.reports import report

FOLDER_ALLOWED = {"MLFLOW_ALLOW_FILE_STORE": "true"}
"""MLflow wants to be told that its files may be used, which it does not develop any more."""


def _written(folder: Path) -> Path:
    path = folder / "run.json"
    path.write_text(dump(report_json(report(0.5, lost=2))))
    return path


def test_a_metric_is_its_mean_its_interval_and_its_cases() -> None:
    found = report(0.5, lost=2)
    told = tracking.metrics(found)
    for name, (aggregate, interval) in means(found).items():
        assert (told[f"{name}.low"], told[name], told[f"{name}.high"]) == (
            *(interval.low, aggregate.mean),
            interval.high,
        )
        assert (told[f"{name}.cases"], told[f"{name}.failed"]) == (aggregate.cases, aggregate.failed)


def test_release_and_data_set_are_named_with_their_fingerprints() -> None:
    found = report()
    told = tracking.params(found)
    assert told["fingerprint"] == found.release.fingerprint
    assert told["release_id"] == found.release.id
    assert (told["dataset"], told["dataset_fingerprint"]) == ("handbook", "a" * 64)


@pytest.mark.filterwarnings("default")
def test_a_real_mlflow_keeps_the_run_and_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    for name, value in FOLDER_ALLOWED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    path, store = _written(tmp_path), str(tmp_path / "store")

    done = CliRunner().invoke(commands, ["log", str(path), "--mlflow", store, "--json"])

    assert done.exit_code == 0, done.output
    client = mlflow.MlflowClient(tracking_uri=store)
    run = client.get_run(json.loads(done.stdout)["run"])
    logged = read_report(path)
    assert run.info.status == "FINISHED"
    assert run.data.params == tracking.params(logged)
    assert run.data.metrics == pytest.approx(tracking.metrics(logged))
    names = {one.path for one in client.list_artifacts(run.info.run_id)}
    assert names == {"report.json", "report.md", "report.html"}
    kept = client.download_artifacts(run.info.run_id, "report.json", str(tmp_path))
    assert read_report(Path(kept)) == logged
    broken = tracking.log(replace(logged, error="It broke off."), store)
    assert client.get_run(broken).info.status == "FAILED"


@pytest.mark.filterwarnings("default")
def test_a_place_that_takes_no_run_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    place = "http://127.0.0.1:1"
    done = CliRunner().invoke(commands, ["log", str(_written(tmp_path)), "--mlflow", place])
    assert done.exit_code == CANNOT
    assert f"MLflow at {place} did not take the run" in done.stderr


def test_without_mlflow_the_command_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    done = CliRunner().invoke(commands, ["log", str(_written(tmp_path)), "--mlflow", "x"])
    assert done.exit_code == CANNOT
    assert "pip install 'plumbline[mlflow]'" in done.stderr
