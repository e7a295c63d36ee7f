"""Each score leaves as an event of OpenTelemetry, and none where nobody asked for them."""

from __future__ import annotations

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from eval.events import tell, telling
from eval.types import Case, CaseResult, DatasetRef, EvalError, ReleaseRef, Reply, Report, Sample, Score

REPORT = Report(
    dataset=DatasetRef(name="handbook", version="2", fingerprint="0" * 64),
    release=ReleaseRef(id="0123456789ab", name="default", fingerprint="0" * 64, canonical="{}"),
    product="0.1.0",
    started_at="2026-01-01T00:00:00+00:00",
    seconds=1.0,
    results=(
        CaseResult(
            case=Case(id="leave", question="?", gold=()),
            sample=Sample(
                case_id="leave",
                reply=Reply(
                    text="28",
                    citations=(),
                    sources=(),
                    model="extractive",
                    release="0123456789ab",
                    degraded=(),
                    seconds=0.1,
                    id="chatcmpl-1",
                ),
                errors={},
            ),
            scores={"rouge_l": Score(0.25), "judge_faithfulness": Score(None, "It was away.", "judge")},
        ),
    ),
)


def test_a_score_is_an_event_with_its_value_and_a_failure_one_with_its_reason() -> None:
    exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    assert tell(REPORT, provider) == 2
    provider.shutdown()
    scored, failed = [one.log_record for one in exporter.get_finished_logs()]
    about = {
        "plumbline.release": "0123456789ab",
        "plumbline.evaluation.dataset": "handbook 2",
        "plumbline.evaluation.case": "leave",
        "gen_ai.response.id": "chatcmpl-1",
    }
    assert scored.event_name == failed.event_name == "gen_ai.evaluation.result"
    assert dict(scored.attributes or {}) == {
        **about,
        "gen_ai.evaluation.name": "rouge_l",
        "gen_ai.evaluation.score.value": 0.25,
    }
    assert dict(failed.attributes or {}) == {
        **about,
        "gen_ai.evaluation.name": "judge_faithfulness",
        "error.type": "judge",
        "gen_ai.evaluation.explanation": "It was away.",
    }


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_LOGS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_LOGS_EXPORTER": "console"},
    ],
)
def test_nothing_is_told_where_nobody_asked(environ: dict[str, str]) -> None:
    with telling(environ) as provider:
        assert provider is None


def test_events_go_to_the_console_where_it_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with telling({"OTEL_LOGS_EXPORTER": "console"}) as provider:
        assert provider is not None
        tell(REPORT, provider)
    assert "gen_ai.evaluation.result" in capsys.readouterr().err


def test_an_exporter_that_is_not_known_is_an_error() -> None:
    with pytest.raises(EvalError, match="zipkin"), telling({"OTEL_LOGS_EXPORTER": "zipkin"}):
        pass
