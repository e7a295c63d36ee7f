"""Settings that cannot be used are told in a sentence before anything starts; what they hold is not shown."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import SettingsError, load_settings, misspelt
from tests.shell import run

PARTS = {
    "DATABASE_URL": "postgresql://u:sekret@127.0.0.1:1/x",
    "REDIS_URL": "redis://:sekret@127.0.0.1:1/0",
    "MILVUS_URI": "http://127.0.0.1:1",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_URL", "sekret"),
        ("REDIS_URL", "redis://"),
        ("MILVUS_URI", "localhost:19530"),
        ("PLUMBLINE_MODEL_URL", "http://a/v1,sekret"),
        ("PLUMBLINE_MODEL_URL", "qwen=b/v1"),
        ("PLUMBLINE_RERANK_URL", "rerank"),
        ("PLUMBLINE_LOG_LEVEL", "loud"),
        ("PLUMBLINE_PORT", "99999"),
        ("PLUMBLINE_ALLOWED_ORIGINS", "*"),
        ("PLUMBLINE_ALLOWED_ORIGINS", "https://app.example.com/, https://b.example.com"),
        ("PLUMBLINE_ALLOWED_ORIGINS", "app.example.com"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_value_that_cannot_be_used_ends_the_start_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, command: str, name: str, value: str
) -> None:
    for given in (*PARTS.items(), (name, value)):
        monkeypatch.setenv(*given)
    done = run(command)
    assert done.exit_code == 3
    assert done.stderr.startswith(f"Settings that cannot be used: {name}: ")
    assert "sekret" not in done.stderr


@pytest.mark.parametrize("command", [("up",), ("doctor",)])
def test_an_option_that_cannot_be_used_is_told_by_its_name(command: tuple[str, ...], tmp_path: Path) -> None:
    done = run(*command, "--port", "99999", "--data", str(tmp_path / "data"))
    assert done.exit_code == 2
    assert done.stderr.startswith("Settings that cannot be used: --port: ")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_LOGS_EXPORTER", "zipkin"),
        ("OTEL_PROPAGATORS", "b3"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "half"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "many"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "sekret"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere"),
    ],
)
def test_what_opentelemetry_cannot_use_is_told_like_other_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    for given in (*PARTS.items(), (name, value)):
        monkeypatch.setenv(*given)
    commands = {("serve",): 3, ("worker",): 3, ("controller",): 3, ("up",): 2, ("doctor",): 2}
    for command, code in commands.items():
        done = run(*command, "--data", str(tmp_path / "data"))
        assert done.exit_code == code, command
        assert done.stderr.startswith(f"Settings that cannot be used: {name}: ")
        assert "sekret" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_what_opentelemetry_finds_wrong_itself_is_no_traceback_either() -> None:
    environ = {
        **{k: v for k, v in os.environ.items() if not k.startswith("OTEL_")},
        **PARTS,
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1000000",
    }
    for command in ("serve", "worker", "controller"):
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", command],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 3
        assert done.stderr.splitlines()[-1].startswith(
            "Settings that cannot be used: of OTEL_*: max_export_batch_size "
        )
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "given",
    [
        {"redis_url": "unix:///run/redis.sock"},
        {"redis_url": "rediss://:p%40ss@cache:6380/1"},
        {"milvus_uri": "https://milvus.example"},
        {"model_url": "http://a/v1, qwen=https://b:8000/v1"},
        {"log_level": "WARNING"},
        {"allowed_origins": "https://app.example.com, http://localhost:5173,http://[::1]:3000"},
    ],
)
def test_what_people_write_is_taken(given: dict[str, str]) -> None:
    load_settings({}, **given)


def test_a_taken_port_is_told_before_anything_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    for given in PARTS.items():
        monkeypatch.setenv(*given)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("serve", "--port", str(port))
    assert (done.exit_code, done.stderr.split(". ")[0]) == (3, f"Port {port} on 127.0.0.1 is taken")


def test_a_database_that_cannot_be_reached_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for given in PARTS.items():
        monkeypatch.setenv(*given)
    done = run("worker")
    assert done.exit_code == 1
    assert "PostgreSQL cannot be reached at 127.0.0.1:1 (DATABASE_URL)" in done.stderr
    assert "sekret" not in done.stderr


def test_a_misspelt_setting_is_found() -> None:
    environ = {
        "PLUMBLINE_UPLOAD_LMIT": "1",
        "PLUMBLINE_PORT": "1",
        "PLUMBLINE_KEY_FILE": "/k",
        "PLUMBLINE_RULES": "r",
        "PATH": "",
    }
    assert misspelt(environ) == ["PLUMBLINE_UPLOAD_LMIT"]


def test_a_secret_is_read_from_the_file_that_its_variable_names(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("pässword\n", encoding="utf-8")
    settings = load_settings({"PLUMBLINE_MODEL_KEY_FILE": str(tmp_path / "secret")})
    assert settings.model_key is not None
    assert settings.model_key.get_secret_value() == "pässword"


def test_a_file_that_is_not_there_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"REDIS_URL_FILE: cannot read .*No such file"):
        load_settings({"REDIS_URL_FILE": str(tmp_path / "nothing")})


def test_a_file_that_is_no_text_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff\xfe\x00\x9f")
    with pytest.raises(SettingsError, match=r"MODEL_KEY_FILE: .* is no text in UTF-8"):
        load_settings({"PLUMBLINE_MODEL_KEY_FILE": str(tmp_path / "key")})
