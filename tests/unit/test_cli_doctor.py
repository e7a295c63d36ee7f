"""`plumbline doctor --settings`: every setting by its name, and no secret."""

from __future__ import annotations

import json

import pytest

from app.settings import Settings
from tests.shell import run


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    monkeypatch.setenv("DATABASE_URL", "postgresql://someone:hunter2@127.0.0.1/ledger")
    monkeypatch.setenv("PLUMBLINE_MODEL_URL", "http://key:hunter2@a/v1,http://b/v1")
    monkeypatch.setenv("PLUMBLINE_KEY", "pl-hunter2")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hunter2")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:hunter2@collector:4318")
    done = run("doctor", "--settings", "--json")
    assert done.exit_code == 0, done.output
    assert "hunter2" not in done.output
    return {one["variable"]: one for one in json.loads(done.output)["settings"]}


def test_every_setting_is_listed_with_what_it_means(listed: dict[str, dict[str, str]]) -> None:
    ours = [name for name in listed if not name.startswith("OTEL_")]
    assert len(ours) == len(Settings.model_fields)
    assert all(one["description"] for one in listed.values())
    assert {"DATABASE_URL", "MILVUS_URI", "PLUMBLINE_PORT", "OTEL_TRACES_EXPORTER"} <= listed.keys()


def test_values_are_shown_without_passwords(listed: dict[str, dict[str, str]]) -> None:
    assert listed["PLUMBLINE_MODEL_URL"]["value"] == "http://a/v1,http://b/v1"
    assert listed["DATABASE_URL"]["value"] == "**********"
    assert listed["OTEL_EXPORTER_OTLP_ENDPOINT"]["value"] == "http://collector:4318"
    assert listed["OTEL_EXPORTER_OTLP_HEADERS"]["value"] == "**********"
