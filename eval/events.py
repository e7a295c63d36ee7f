"""Scores as OpenTelemetry sees them: one `gen_ai.evaluation.result` event each.

They leave only when the environment names where to (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_LOGS_EXPORTER`), as
traces do; otherwise nothing is made.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    ConsoleLogRecordExporter,
    LogRecordExporter,
    SimpleLogRecordProcessor,
)
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource

from app import otel, semconv
from app.settings import SettingsError
from eval.types import CaseResult, EvalError, Report, Score

SERVICE = "plumbline-eval"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT")


@contextmanager
def telling(environ: Mapping[str, str]) -> Iterator[LoggerProvider | None]:
    """Where events go; None where nobody wants them. What was told has left when the block ends. Raises
    `EvalError` when OTEL_* says what cannot be used."""
    try:
        otel.require_usable(environ)
        processor = _processor(environ)
    except (SettingsError, ValueError) as error:
        raise EvalError(str(error)) from error
    if processor is None:
        yield None
        return
    name = environ.get("OTEL_SERVICE_NAME", SERVICE)
    provider = LoggerProvider(
        resource=Resource.create({SERVICE_NAME: name, SERVICE_VERSION: version("plumbline")})
    )
    provider.add_log_record_processor(processor)
    try:
        yield provider
    finally:
        provider.shutdown()


def tell(report: Report, provider: LoggerProvider) -> int:
    """An event for every score of the report; how many there were."""
    logger = provider.get_logger("plumbline.eval", version("plumbline"))
    told = 0
    for result in report.results:
        for name, score in result.scores.items():
            logger.emit(
                event_name=semconv.EVALUATION_RESULT,
                attributes={**_about(report, result), **_scored(name, score)},
            )
            told += 1
    return told


def _about(report: Report, result: CaseResult) -> dict[str, str]:
    about = {
        semconv.RELEASE: report.release.id,
        semconv.EVALUATION_DATASET: f"{report.dataset.name} {report.dataset.version}".strip(),
        semconv.EVALUATION_CASE: result.case.id,
    }
    reply = result.sample.reply
    return {**about, semconv.RESPONSE_ID: reply.id} if reply and reply.id else about


def _scored(name: str, score: Score) -> dict[str, str | float]:
    named = {semconv.EVALUATION_NAME: name}
    if score.value is not None:
        return {**named, semconv.EVALUATION_SCORE: score.value}
    # The conventions want few values of an error's type; the sentence goes with it.
    return {**named, semconv.ERROR_TYPE: score.fault, semconv.EVALUATION_EXPLANATION: score.error or ""}


def _processor(environ: Mapping[str, str]) -> BatchLogRecordProcessor | SimpleLogRecordProcessor | None:
    exporter = environ.get("OTEL_LOGS_EXPORTER", "").strip().lower()
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return None
    if exporter == "console":
        return SimpleLogRecordProcessor(_console())
    if exporter == "otlp" or any(environ.get(name) for name in _ENDPOINTS):
        return BatchLogRecordProcessor(OTLPLogExporter())
    return None


def _console() -> LogRecordExporter:
    return ConsoleLogRecordExporter(out=sys.stderr)
