"""What `kubectl kustomize` makes of deploy/kubernetes is valid, and fits the service and the compose file.

No cluster runs here: that pods start, reach one another and are kept from the rest is not checked.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.main import create_app
from app.release import load_release
from app.routes.health import PATIENCE
from app.settings import Settings, load_settings
from app.standalone import AFTER_GRACE, PARTS_STOP

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
PLUMBLINE = Path(sys.executable).parent / "plumbline"
OVERLAYS = ("small", "cluster")
OLDEST, NEWEST = "1.30", "1.37"
"""Versions of Kubernetes; `preStop.sleep` came with the first."""
OTHERS = frozenset({"ServiceMonitor", "PrometheusRule", "ScaledObject"})
"""Kinds of operators, whose schemas are not Kubernetes' own."""
NAMESPACE, ADDRESS = "plumbline", "http://plumbline.plumbline.svc.cluster.local:8080"
ROOTS = frozenset({"milvus"})
"""Containers that must run as the user of their image."""

CLAIMS = "volumeClaimTemplates"
DEFAULTS = load_settings({})
Object = Mapping[str, Any]

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
overlays = pytest.mark.parametrize("overlay", OVERLAYS)


@cache
def _rendered(overlay: str) -> tuple[Object, ...]:
    folder = KUBERNETES / "overlays" / overlay
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def _of(overlay: str, kind: str) -> dict[str, Any]:
    return {one["metadata"]["name"]: one for one in _rendered(overlay) if one["kind"] == kind}


def _workloads(overlay: str) -> dict[str, Any]:
    return {**_of(overlay, "Deployment"), **_of(overlay, "StatefulSet")}


def _pods(overlay: str) -> dict[str, Any]:
    """What pods are made of, by the name of what makes them. Each has one container."""
    return {name: one["spec"]["template"]["spec"] for name, one in _workloads(overlay).items()}


def _container(overlay: str, name: str) -> dict[str, Any]:
    [found] = _pods(overlay)[name]["containers"]
    return dict(found)


def _own(overlay: str) -> dict[str, dict[str, Any]]:
    """Containers of Plumbline's own image, by the name of their deployment."""
    found = {name: _container(overlay, name) for name in _pods(overlay)}
    return {name: one for name, one in found.items() if name.startswith("plumbline-")}


def _environment(overlay: str, name: str) -> dict[str, str]:
    """The settings that a deployment's container gets, files of secrets by their paths."""
    container = _container(overlay, name)
    configured: dict[str, str] = {}
    for source in container["envFrom"]:
        configured |= _of(overlay, "ConfigMap")[source["configMapRef"]["name"]]["data"]
    return configured | {one["name"]: one["value"] for one in container["env"]}


@cache
def _compose() -> dict[str, Any]:
    loaded = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return dict(loaded["services"])


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@overlays
def test_every_object_follows_the_schema_of_kubernetes(overlay: str, version: str) -> None:
    for one in _rendered(overlay):
        if one["kind"] not in OTHERS:
            kubernetes_validate.validate(dict(one), version, strict=True)


def alive_by(command: Sequence[str], shown: str, pulse: Path) -> tuple[bool, bool, bool]:
    """What a probe says of a file that is not there, that was just touched, and that was a minute ago."""
    asked = [word.replace("$$", "$").replace(shown, str(pulse)) for word in command]

    def said() -> bool:
        return subprocess.run(asked, stderr=subprocess.DEVNULL, check=False).returncode == 0

    missing = said()
    pulse.touch()
    fresh = said()
    minute_ago = time.time() - 61
    os.utime(pulse, (minute_ago, minute_ago))
    return missing, fresh, said()


@overlays
def test_everything_is_in_the_namespace_and_named_once(overlay: str) -> None:
    found = [(one["kind"], one["metadata"]["name"]) for one in _rendered(overlay)]
    assert len(set(found)) == len(found)
    assert list(_of(overlay, "Namespace")) == [NAMESPACE]
    for one in _rendered(overlay):
        assert one["kind"] == "Namespace" or one["metadata"]["namespace"] == NAMESPACE


@overlays
def test_every_part_that_is_named_exists(overlay: str) -> None:
    secrets = {"small": {"plumbline", "plumbline-parts"}, "cluster": {"plumbline"}}[overlay]
    claims, accounts = _of(overlay, "PersistentVolumeClaim"), _of(overlay, "ServiceAccount")
    for name, pod in _pods(overlay).items():
        assert pod["serviceAccountName"] in accounts
        [container] = pod["containers"]
        own = [claim["metadata"]["name"] for claim in _workloads(overlay)[name]["spec"].get(CLAIMS, [])]
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        assert {mount["name"] for mount in container.get("volumeMounts", [])} == {*volumes, *own}
        for volume in volumes.values():
            assert volume.get("secret", {}).get("secretName", "plumbline") in secrets
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
        for variable in container.get("env", []):
            wanted = variable.get("valueFrom", {}).get("secretKeyRef", {"name": "plumbline"})
            assert wanted["name"] in secrets


@overlays
def test_services_budgets_and_policies_select_pods_that_exist(overlay: str) -> None:
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in _workloads(overlay).values()]
    selectors = [one["spec"]["selector"] for one in _of(overlay, "Service").values()]
    selectors += [
        one["spec"]["selector"]["matchLabels"] for one in _of(overlay, "PodDisruptionBudget").values()
    ]
    for policy in _of(overlay, "NetworkPolicy").values():
        selectors += list(_selected(policy["spec"]))
    assert len(selectors) > 8
    for selector in selectors:
        assert any(selector.items() <= one.items() for one in labels), selector


def _selected(tree: object) -> Iterator[dict[str, str]]:
    """What the pod selectors in a policy ask for; an expression is as many."""
    if isinstance(tree, list):
        for one in tree:
            yield from _selected(one)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key == "podSelector":
                asks = value.get("matchExpressions", [])
                if "matchLabels" in value or not asks:
                    yield value.get("matchLabels", {})
                for asked in asks:
                    yield from ({asked["key"]: each} for each in asked["values"])
            else:
                yield from _selected(value)


@overlays
def test_the_service_is_given_settings_that_it_knows(overlay: str) -> None:
    known = set(Settings.model_fields)
    for name in _own(overlay):
        given = _environment(overlay, name)
        ours = {key: value for key, value in given.items() if not key.startswith(("OTEL_", "AWS_"))}
        asked = {key.removesuffix("_FILE").removeprefix("PLUMBLINE_").lower() for key in ours}
        assert asked <= known, asked - known
        values = {key: value for key, value in ours.items() if not key.endswith("_FILE")}
        names = [key.removesuffix("_FILE").lower() for key in ours if key.endswith("_FILE")]
        secret = {key: "redis://cache" if key == "redis_url" else "x" for key in names}
        plain = {key.removeprefix("PLUMBLINE_").lower(): value for key, value in values.items()}
        settings = load_settings({}, **plain, **secret)
        settings.require("database_url", *(() if "controller" in name else ("redis_url", "milvus_uri")))


@overlays
def test_all_processes_would_start_a_new_instance_with_the_same_release(overlay: str) -> None:
    """Whichever comes first makes it."""
    first = [
        {key: _environment(overlay, name).get(key) for key in ("PLUMBLINE_MODEL", "PLUMBLINE_RELEASE")}
        for name in _own(overlay)
    ]
    assert len(first) == 3
    assert first[0] == first[1] == first[2]


@overlays
def test_secrets_are_files_that_are_mounted(overlay: str) -> None:
    for name, container in _own(overlay).items():
        [mount] = [one for one in container["volumeMounts"] if one["name"] == "secrets"]
        [volume] = [one for one in _pods(overlay)[name]["volumes"] if one["name"] == "secrets"]
        handed = {item["path"] for item in volume["secret"].get("items", [])}
        for key, value in _environment(overlay, name).items():
            if key.endswith("_FILE") and not key.startswith("AWS_"):
                assert value.startswith(mount["mountPath"] + "/")
                assert not handed or value.rsplit("/", 1)[1] in handed


@overlays
def test_no_secret_is_in_the_manifests(overlay: str) -> None:
    assert not _of(overlay, "Secret")
    secret = [
        name.upper() for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)
    ]
    assert len(secret) > 4
    for name in _own(overlay):
        assert not {*secret, *(f"PLUMBLINE_{one}" for one in secret)} & set(_environment(overlay, name))
    for name in _pods(overlay):
        for variable in _container(overlay, name).get("env", []):
            if re.search(r"PASSWORD|SECRET|TOKEN|AUTH$", variable["name"]) and "value" in variable:
                assert variable["value"] == "$(PASSWORD)" or variable["name"].endswith("_FILE")


@overlays
def test_every_command_exists(overlay: str) -> None:
    assert {container["args"][0] for container in _own(overlay).values()} == {"serve", "worker", "controller"}
    for container in _own(overlay).values():
        done = subprocess.run(
            [PLUMBLINE, *container["args"], "--help"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


@overlays
def test_probes_ask_for_paths_that_exist_and_wait_for_the_answer(overlay: str) -> None:
    container = _container(overlay, "plumbline-api")
    paths = set(create_app(DEFAULTS).openapi()["paths"])
    assert {"name": "http", "containerPort": DEFAULTS.port} in container["ports"]
    for kind, path in (("startup", "live"), ("liveness", "live"), ("readiness", "ready")):
        probe = container[f"{kind}Probe"]
        assert probe["httpGet"] == {"path": f"/health/{path}", "port": "http"}
        assert probe["httpGet"]["path"] in paths
    assert container["readinessProbe"]["timeoutSeconds"] > PATIENCE
    annotations = _workloads(overlay)["plumbline-api"]["spec"]["template"]["metadata"].get("annotations", {})
    assert annotations.get("prometheus.io/path", "/metrics") in paths


@overlays
@pytest.mark.parametrize("name", ["plumbline-worker", "plumbline-controller"])
def test_what_listens_nowhere_is_alive_while_its_pulse_is_fresh(
    overlay: str, name: str, tmp_path: Path
) -> None:
    container = _container(overlay, name)
    shown = _environment(overlay, name)["PLUMBLINE_PULSE"]
    assert Path(shown).parent in {Path(mount["mountPath"]) for mount in container["volumeMounts"]}
    probe = container["livenessProbe"]
    assert probe["exec"] == container["startupProbe"]["exec"]
    assert container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"] >= 600
    assert alive_by(probe["exec"]["command"], shown, tmp_path / "pulse") == (False, True, False)


@overlays
def test_pods_have_the_time_that_the_service_takes_to_stop(overlay: str) -> None:
    for name, takes in (("plumbline-api", AFTER_GRACE), ("plumbline-worker", PARTS_STOP)):
        container = _container(overlay, name)
        grace = float(_environment(overlay, name).get("PLUMBLINE_GRACE", DEFAULTS.grace))
        before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert _pods(overlay)[name]["terminationGracePeriodSeconds"] >= before + grace + takes


@overlays
def test_an_update_cuts_no_answer_short(overlay: str) -> None:
    given = _environment(overlay, "plumbline-api")
    longest = float(given.get("PLUMBLINE_REQUEST_TIMEOUT", DEFAULTS.request_timeout))
    assert float(given["PLUMBLINE_GRACE"]) >= longest
    strategy = _workloads(overlay)["plumbline-api"]["spec"]["strategy"]["rollingUpdate"]
    assert strategy["maxUnavailable"] == 0
    assert _container(overlay, "plumbline-api")["lifecycle"]["preStop"]["sleep"]["seconds"] >= 5


@overlays
def test_pods_have_no_rights_that_they_do_not_need(overlay: str) -> None:
    for name, pod in _pods(overlay).items():
        [container] = pod["containers"]
        assert pod["automountServiceAccountToken"] is False, name
        # Variables named after services would be read as settings: PLUMBLINE_PORT=tcp://..., VLLM_PORT.
        assert pod["enableServiceLinks"] is False, name
        held = container["securityContext"]
        assert held["allowPrivilegeEscalation"] is False, name
        assert held["capabilities"] == {"drop": ["ALL"]}, name
        assert "limits" in container["resources"], name
        assert "requests" in container["resources"], name
        if name not in ROOTS:
            assert held["readOnlyRootFilesystem"] is True, name
            assert pod["securityContext"]["runAsNonRoot"] is True, name
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name


@overlays
def test_our_pods_run_as_the_user_of_the_image_and_may_write_where_it_writes(overlay: str) -> None:
    image = (DEPLOY / "docker" / "plumbline.Dockerfile").read_text()
    [user] = re.findall(r"useradd .*--uid (\d+)", image)
    [data] = re.findall(r"PLUMBLINE_DATA=(\S+)", image)
    for name, container in _own(overlay).items():
        held = _pods(overlay)[name]["securityContext"]
        assert {held["runAsUser"], held["fsGroup"]} == {int(user)}
        assert {data, "/tmp"} <= {mount["mountPath"] for mount in container["volumeMounts"]}


@overlays
def test_everybody_is_shut_off_unless_a_policy_says_otherwise(overlay: str) -> None:
    everybody = _of(overlay, "NetworkPolicy")["plumbline-nobody"]["spec"]
    assert everybody["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in everybody
    assert {port["port"] for rule in everybody["egress"] for port in rule["ports"]} == {53}
    chosen = everybody["podSelector"]["matchLabels"]
    for one in _workloads(overlay).values():
        assert chosen.items() <= one["spec"]["template"]["metadata"]["labels"].items()
    policies = [one["spec"] for one in _of(overlay, "NetworkPolicy").values()]
    chosen_to_listen = [
        labels
        for policy in policies
        if "ingress" in policy
        for labels in _selected({"podSelector": policy["podSelector"]})
    ]
    assert chosen_to_listen
    for name in ("plumbline-worker", "plumbline-controller"):
        labels = _workloads(overlay)[name]["spec"]["template"]["metadata"]["labels"]
        assert not [one for one in chosen_to_listen if one.items() <= labels.items()]


def test_small_has_the_databases_of_compose() -> None:
    for name in ("postgres", "redis", "etcd", "minio", "milvus"):
        container = _container("small", name)
        assert container["image"] == _compose()[name]["image"]
        fixed = {k: v for k, v in _compose()[name].get("environment", {}).items() if "${" not in v}
        plain = {one["name"]: one.get("value") for one in container.get("env", [])}
        assert fixed.items() <= {**plain, "REDISCLI_AUTH": ""}.items()
        ports = {port["containerPort"] for port in container["ports"]}
        service = _of("small", "Service")[name]["spec"]["ports"]
        assert {port["port"] for port in service} <= ports
    given = _compose()["api"]["environment"]
    assert _environment("small", "plumbline-api")["MILVUS_URI"] == given["MILVUS_URI"]
    head = (KUBERNETES / "overlays/small/kustomization.yaml").read_text()
    for url in ("DATABASE_URL", "REDIS_URL", "MILVUS_TOKEN"):
        assert re.sub(r"\$\{[^}]*\}", "$p", given[url]) in head


def test_cluster_has_no_database_inside() -> None:
    assert set(_of("cluster", "StatefulSet")) == {"vllm"}
    assert _environment("cluster", "plumbline-api")["PLUMBLINE_BLOBS_URL"].startswith("s3://")
    assert re.search(r"^ARG EXTRAS", (DEPLOY / "docker/plumbline.Dockerfile").read_text(), re.MULTILINE)


def test_compose_asks_what_listens_nowhere_for_its_pulse(tmp_path: Path) -> None:
    shown = _compose()["worker"]["environment"]["PLUMBLINE_PULSE"]
    for name in ("worker", "controller"):
        kind, command = _compose()[name]["healthcheck"]["test"]
        assert kind == "CMD-SHELL"
        assert alive_by(["sh", "-c", command], shown, tmp_path / name) == (False, True, False)


def test_images_are_those_of_compose() -> None:
    assert {one["image"] for one in _own("small").values()} == {_compose()["api"]["image"]}
    [renamed] = {one["image"] for one in _own("cluster").values()}
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert renamed == f"registry.example/plumbline:{version[1]}"
    base = re.search(r"^FROM (\S+)", (DEPLOY / "docker/vllm.Dockerfile").read_text(), re.MULTILINE)
    assert base
    assert _container("cluster", "vllm")["image"] == base[1]


def test_vllm_is_started_as_the_release_says() -> None:
    release = DEPLOY / "releases" / "vllm.toml"
    command: list[str | Path] = [
        PLUMBLINE,
        "release",
        "serve-command",
        release,
        "--host",
        "0.0.0.0",
        "--python",
        "python3",
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert _container("cluster", "vllm")["command"] == said.split()
    assert (
        _environment("cluster", "plumbline-api")["PLUMBLINE_MODEL"]
        == load_release(release).body.models[0].name
    )


def test_every_vllm_is_asked_by_a_name_of_its_own() -> None:
    serving = _of("cluster", "StatefulSet")["vllm"]["spec"]
    service = _of("cluster", "Service")[serving["serviceName"]]["spec"]
    assert service["clusterIP"] == "None"
    port, names = service["ports"][0]["port"], range(serving["replicas"])
    settings = load_settings({}, model_url=_environment("cluster", "plumbline-api")["PLUMBLINE_MODEL_URL"])
    wanted = tuple(f"http://vllm-{number}.{serving['serviceName']}:{port}/v1" for number in names)
    assert settings.model_urls("any") == wanted
    assert serving["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_alerts_are_those_of_compose() -> None:
    script = KUBERNETES / "rule.py"
    made = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    held = KUBERNETES / "components/monitoring/rule.yaml"
    assert held.read_text() == made, f"run {script.relative_to(ROOT)} and keep what it prints in {held.name}"
    [rule] = _of("cluster", "PrometheusRule").values()
    assert rule["spec"] == {
        "groups": yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"]
    }


def test_metrics_are_scraped_once_and_from_ports_that_exist() -> None:
    [monitor] = _of("cluster", "ServiceMonitor").values()
    wanted = monitor["spec"]["selector"]["matchLabels"]
    ports = {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]}
    chosen = {
        name: {port["name"] for port in one["spec"]["ports"]} & ports
        for name, one in _of("cluster", "Service").items()
        if wanted.items() <= one["metadata"]["labels"].items()
    }
    assert chosen == {"plumbline": {"http"}, "vllm": {"http"}}
    pod = _workloads("cluster")["plumbline-api"]["spec"]["template"]["metadata"]
    assert not [one for one in pod.get("annotations", {}) if one.startswith("prometheus.io/")]


def test_workers_follow_a_metric_that_exists() -> None:
    [scaled] = _of("cluster", "ScaledObject").values()
    source = (ROOT / "app" / "metrics.py").read_text()
    [trigger] = scaled["spec"]["triggers"]
    names = re.findall(r"plumbline_[a-z_]+", trigger["metadata"]["query"])
    assert names
    assert [name for name in names if f'"{name}"' not in source] == []
    workers = _of("cluster", "Deployment")[scaled["spec"]["scaleTargetRef"]["name"]]["spec"]
    assert "replicas" not in workers
    assert scaled["spec"]["minReplicaCount"] >= 1


def test_a_number_of_pods_has_one_owner() -> None:
    for scaler in _of("cluster", "HorizontalPodAutoscaler").values():
        assert "replicas" not in _workloads("cluster")[scaler["spec"]["scaleTargetRef"]["name"]]["spec"]
        assert scaler["spec"]["minReplicas"] > 1
    assert all("replicas" in _workloads("small")[name]["spec"] for name in _own("small"))


@pytest.mark.parametrize("name", ["argo/analysis-template.yaml", "flagger/canary.yaml"])
def test_deployment_controllers_are_told_the_address_of_the_service(name: str) -> None:
    addresses = set(re.findall(r"http://[a-z.-]+:\d+", (DEPLOY / name).read_text()))
    assert addresses == {ADDRESS}
    for overlay in OVERLAYS:
        [port] = _of(overlay, "Service")["plumbline"]["spec"]["ports"]
        assert f"http://plumbline.{NAMESPACE}.svc.cluster.local:{port['port']}" == ADDRESS


def test_nodes_of_a_cluster_share_no_volume() -> None:
    """Original files, receipts of erasures and their key are in the bucket."""
    assert "plumbline-data" not in _of("cluster", "PersistentVolumeClaim")
    for name in _own("cluster"):
        [data] = [one for one in _pods("cluster")[name]["volumes"] if one["name"] == "data"]
        assert set(data) == {"name", "emptyDir"}
