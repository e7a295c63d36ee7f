"""The deployment files are valid by their own schemas, and name only settings and files that exist.

No container engine runs here: what only a real start would show (images, networks) is not checked.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.release import load_release
from app.settings import load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_follows_its_schema() -> None:
    _run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")


@pytest.mark.parametrize("file", sorted(DEPLOY.glob("docker/*.Dockerfile")), ids=lambda p: p.name)
def test_dockerfiles_pass_the_linter(file: Path) -> None:
    _run(BIN / "hadolint", "--failure-threshold", "warning", file)


def test_the_service_is_given_settings_that_it_knows(compose: dict[str, Any]) -> None:
    given = compose["services"]["api"]["environment"]
    # What has a default gets it, and what is then empty is not set.
    plain = {
        k: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", v) for k, v in given.items() if not k.startswith("OTEL_")
    }
    plain = {k: re.sub(r"\$\{[^}]*\}", "x", v) for k, v in plain.items() if v}
    plain = {k: v for k, v in plain.items() if k not in ("PLUMBLINE_MODEL_URL", "PLUMBLINE_MODEL")}
    names = {name.removeprefix("PLUMBLINE_").lower() for name in given if not name.startswith("OTEL_")}
    known = set(type(load_settings({})).model_fields)
    assert names <= known
    load_settings({}, **{k.removeprefix("PLUMBLINE_").lower(): v for k, v in plain.items()}).require(
        "database_url", "redis_url", "milvus_uri"
    )


def test_the_served_model_is_started_as_releases_want_it() -> None:
    written = (DEPLOY / "docker" / "vllm.Dockerfile").read_text()
    (given,) = re.findall(r"^ENTRYPOINT (\[.*\])$", written, re.MULTILINE)
    entry = json.loads(given)
    command = (
        load_release(DEPLOY / "releases" / "vllm.toml")
        .body.models[0]
        .spec()
        .command("python3", "0.0.0.0", 8000)
    )
    assert entry[:3] == list(command[:3])
    assert set(entry) <= {*command}
    switches = {"--enable-prefix-caching", "--enable-chunked-prefill", "--scheduling-policy", "priority"}
    assert switches <= set(entry)


def test_the_model_that_is_served_has_the_key_that_the_service_sends(compose: dict[str, Any]) -> None:
    asked = compose["services"]["vllm"]["environment"]["VLLM_API_KEY"]
    assert asked == "${PLUMBLINE_MODEL_KEY}"
    # The other parts' passwords must be set as well.
    assert compose["services"]["api"]["environment"]["PLUMBLINE_MODEL_KEY"].startswith(f"{asked[:-1]}:?")


def test_every_service_that_is_named_exists(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for service in services.values():
        assert set(service.get("depends_on", [])) <= set(services)
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())["scrape_configs"]
    hosts = {
        t.split(":")[0] for job in scraped for config in job["static_configs"] for t in config["targets"]
    }
    assert hosts <= set(services)


def test_every_mounted_file_exists(compose: dict[str, Any]) -> None:
    mounts = [v for s in compose["services"].values() for v in s.get("volumes", []) if v.startswith(".")]
    assert mounts
    for mount in mounts:
        assert (DEPLOY / mount.split(":")[0]).exists(), mount


def test_only_loopback_is_published(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_password_has_a_default(compose: dict[str, Any]) -> None:
    assert not re.search(r"PASSWORD:-", (DEPLOY / "compose.yaml").read_text())


@pytest.mark.parametrize("file", sorted(DEPLOY.glob("releases/*.toml")), ids=lambda p: p.name)
def test_sample_releases_load(file: Path) -> None:
    assert load_release(file).body.models[0].name


def _unknown(expression: str) -> list[str]:
    """The `plumbline_*` metrics that the service does not register."""
    source = (ROOT / "app" / "metrics.py").read_text()
    names = re.findall(r"plumbline_[a-z_]+", expression)
    return [name for name in names if f'"{re.sub(r"_(bucket|sum|count|total)$", "", name)}"' not in source]


def test_dashboards_ask_for_metrics_that_exist() -> None:
    files = list(DEPLOY.glob("grafana/dashboards/*.json"))
    assert files
    for file in files:
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", []):
                assert _unknown(target["expr"]) == [], file.name


def test_panels_of_a_dashboard_do_not_overlap() -> None:
    for file in DEPLOY.glob("grafana/dashboards/*.json"):
        panels = json.loads(file.read_text())["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            at = panel["gridPos"]
            cells = {
                (x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
            }
            assert not cells & taken, panel["title"]
            assert at["x"] + at["w"] <= 24
            taken |= cells


def test_alerts_are_loaded_and_ask_for_metrics_that_exist(compose: dict[str, Any]) -> None:
    [named] = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())["rule_files"]
    assert any(mount.endswith(f":{named}:ro") for mount in compose["services"]["prometheus"]["volumes"])
    groups = yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert _unknown(rule["expr"]) == [], rule["alert"]
        assert "plumbline" in rule["expr"]
        assert set(rule["annotations"]) == {"summary", "action"}


def test_every_command_in_compose_exists(compose: dict[str, Any]) -> None:
    """Of the services that are Plumbline's own."""
    own = {n: s["command"][0] for n, s in compose["services"].items() if s["image"] == "plumbline"}
    assert set(own) >= {"api", "worker", "controller"}
    for command in own.values():
        _run(BIN / "plumbline", command, "--help")


def test_the_image_installs_neither_torch_nor_embedded_servers() -> None:
    text = (DEPLOY / "docker/plumbline.Dockerfile").read_text()
    assert "[" not in re.findall(r"pip install -c \S+ (\S+)", text)[0]
    pins = (DEPLOY / "constraints/main.txt").read_text()
    assert not re.search(r"^torch==", pins, re.MULTILINE)
