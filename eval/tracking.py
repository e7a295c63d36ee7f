"""A report as a run in MLflow, for those who keep all their experiments there.

Of the release and the data set it logs what names them, of each metric the mean that the gate counts (a
failure as the worst value) with its interval and numbers of cases, and the report in every form. Needs the
extra `mlflow`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from eval.forms import write
from eval.means import means
from eval.types import Report, TrackingFailed

EXPERIMENT = "plumbline"
RETRIES = 2
"""MLflow's own number has a caller wait for minutes where nobody answers."""


def log(report: Report, uri: str, experiment: str = EXPERIMENT) -> str:
    """The id of the new run at the tracking server or in the folder of that address; logged twice, a report
    is two runs. Times are the evaluation's. Raises `TrackingFailed`."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param
    from mlflow.environment_variables import (
        MLFLOW_HTTP_REQUEST_MAX_RETRIES,
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT,
    )

    if not MLFLOW_HTTP_REQUEST_MAX_RETRIES.is_set():
        MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(RETRIES)
    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.set(True)  # The command's own output may be JSON.
    start = round(datetime.fromisoformat(report.started_at).timestamp() * 1000)
    end = start + round(report.seconds * 1000)
    with _failures(uri):
        client = MlflowClient(tracking_uri=uri)
        known = client.get_experiment_by_name(experiment)
        place = known.experiment_id if known else client.create_experiment(experiment)
        name = f"{report.release.name} on {report.dataset.name}"
        run = str(client.create_run(place, start_time=start, run_name=name).info.run_id)
        client.log_batch(
            run,
            metrics=[Metric(key, value, end, 0) for key, value in metrics(report).items()],
            params=[Param(key, value) for key, value in params(report).items()],
        )
        with TemporaryDirectory() as folder:
            write(report, Path(folder) / "report.json")
            client.log_artifacts(run, folder)
        client.set_terminated(run, "FAILED" if report.error else "FINISHED", end_time=end)
    return run


def params(report: Report) -> dict[str, str]:
    """What was evaluated, on what, by what."""
    release, dataset = report.release, report.dataset
    return {
        "release": release.name,
        "release_id": release.id,
        "fingerprint": release.fingerprint,
        "dataset": dataset.name,
        "dataset_version": dataset.version,
        "dataset_fingerprint": dataset.fingerprint,
        "product": report.product,
        "judge": report.judge or "none",
    }


def metrics(report: Report) -> dict[str, float]:
    """`NAME`, `NAME.low` and `NAME.high` (the mean and its 95 % interval), `NAME.cases` and `NAME.failed`."""
    found: dict[str, float] = {}
    for name, (aggregate, interval) in means(report).items():
        found |= {
            name: aggregate.mean,
            f"{name}.low": interval.low,
            f"{name}.high": interval.high,
            f"{name}.cases": float(aggregate.cases),
            f"{name}.failed": float(aggregate.failed),
        }
    return found


@contextmanager
def _failures(uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        raise TrackingFailed(f"MLflow at {uri} did not take the run: {error}") from None
